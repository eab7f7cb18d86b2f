"""What a CI job does to become a robot: snippets of each system, filled in. `docs/how-to/ci.md` shows the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_EXCHANGE: Final = """curl --fail --silent --show-error {url}/auth/exchange \\
  --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \\
  --data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:jwt \\
  --data-urlencode subject_token="{variable}" \\
  --data-urlencode robot={robot} | jq -r .access_token"""

_GITHUB: Final = """permissions:
  contents: read
  id-token: write
steps:
  - name: Sign in to {host}
    run: |
      identity=$(curl --fail --silent -H "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \\
        "$ACTIONS_ID_TOKEN_REQUEST_URL&audience={audience}" | jq -r .value)
      token=$({exchange})
      echo "::add-mask::$token"
      echo "$token" | docker login {host} -u {robot} --password-stdin
"""

_GITLAB: Final = """push:
  id_tokens:
    GRAVINGDOCK_IDENTITY:
      aud: {audience}
  script:
    - |
      token=$({exchange})
      echo "$token" | docker login {host} -u {robot} --password-stdin
"""

_JENKINS: Final = """// Needs the plugin "OpenID Connect Provider", and an id token credential named gravingdock.
// Its audience: {audience}
withCredentials([string(credentialsId: 'gravingdock', variable: 'IDENTITY')]) {{
  sh '''
    set +x
    token=$({exchange})
    echo "$token" | docker login {host} -u {robot} --password-stdin
  '''
}}
"""

_TEKTON: Final = """# A step of a Task. Its pod gets a token of its service account for us.
volumes:
  - name: identity
    projected:
      sources:
        - serviceAccountToken: {{audience: "{audience}", expirationSeconds: 600, path: token}}
steps:
  - name: sign-in
    image: quay.io/buildah/stable
    volumeMounts: [{{name: identity, mountPath: /var/run/gravingdock, readOnly: true}}]
    script: |
      token=$({exchange})
      echo "$token" | buildah login -u {robot} --password-stdin {host}
"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """What to paste into one CI system, and the issuer and claims of its rule."""

    key: str
    title: str
    issuer: str
    claims: str
    text: str


_SYSTEMS: Final = (
    ("github", "GitHub Actions", "https://token.actions.githubusercontent.com",
     "repository=acme/shop, ref=refs/heads/main", _GITHUB, "$identity", 6),
    ("gitlab", "GitLab CI", "https://gitlab.com",
     "project_path=acme/shop, ref_protected=true", _GITLAB, "$GRAVINGDOCK_IDENTITY", 6),
    ("jenkins", "Jenkins", "https://jenkins.example.com/oidc",
     "sub=https://jenkins.example.com/job/shop/", _JENKINS, "$IDENTITY", 4),
    ("tekton", "Tekton", "the issuer of your cluster",
     "kubernetes.io/namespace=ci, kubernetes.io/serviceaccount/name=builder", _TEKTON,
     "$(cat /var/run/gravingdock/token)", 6),
)  # fmt: skip


def snippets(*, url: str, host: str, robot: str, audience: str) -> list[Snippet]:
    """Return the snippets of all systems. `host` is that of the registry, `robot` the user name of the robot."""
    made = []
    for key, title, issuer, claims, template, variable, indent in _SYSTEMS:
        exchange = _EXCHANGE.format(url=url, variable=variable, robot=robot).replace("\n", "\n" + " " * indent)
        text = template.format(host=host, robot=robot, audience=audience, exchange=exchange)
        made.append(Snippet(key, title, issuer, claims, text))
    return made
