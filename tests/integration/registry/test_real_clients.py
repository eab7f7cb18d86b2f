"""skopeo, buildah and a real Distribution against our token service, as `make up` runs them."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from django.conf import settings
from django.test import Client

from lifecycle.authority.services import create_environment
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment
from lifecycle.ingest.protection import protect_tags
from lifecycle.oci import signing
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.scopes import CATALOG_SCOPE, repository_scope
from lifecycle.promotion import services as promotions
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Repository, RepositoryImage, Tag, TagEvent
from tests.factories import dock, oci
from tests.factories.people import Person
from tests.integration.registry.test_token_endpoint import Make
from tests.services import Services, wait_until
from tests.skopeo import skopeo


def where(stack: Services, reference: str) -> str:
    return f"docker://localhost:{stack.registry.port}/{reference}"


def push(stack: Services, who: Person, layout: Path, reference: str) -> subprocess.CompletedProcess[str]:
    return skopeo(
        "copy",
        "--dest-tls-verify=false",
        f"--dest-creds={who.user.username}:{who.token}",
        f"oci:{layout}:latest",
        where(stack, reference),
    )


def test_push_creates_rows_within_seconds(live_stack: Services, person: Make, tmp_path: Path) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    label = {"org.opencontainers.image.base.name": "localhost/base/debian:12"}
    item = oci.image("base", "app", labels={"team": "shop"}, annotations=label)
    done = push(live_stack, who, oci.layout(tmp_path / "image", item), "shop/api:1.0")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: Tag.objects.filter(repository__name="shop/api", name="1.0").exists(), 30, every_s=0.05)
    image = Image.objects.get(digest=item.manifest.digest.text)
    assert bytes(image.manifest) == item.manifest.content
    assert (image.kind, image.platform, image.layer_count) == ("manifest", "linux/amd64", 2)
    assert image.labels == {"team": "shop"}
    assert image.annotations == label
    assert image.base_name == "localhost/base/debian:12"
    assert list(image.layers.values_list("diff_id", "created_by")) == [
        (item.diff_ids[0], "COPY base"),
        (item.diff_ids[1], "COPY app"),
    ]
    wait_until(lambda: TagEvent.objects.filter(actor=who.user).exists(), 30)  # a crawl may have found it first
    event = TagEvent.objects.get()
    assert (event.via, event.new_image) == ("push", image)
    repository = Repository.objects.get(name="shop/api")
    assert (repository.team.slug, repository.family) == ("shop", "shop/api")
    assert RepositoryImage.objects.get().pushed_by == who.user
    pulled = skopeo(
        "copy",
        "--src-tls-verify=false",
        f"--src-creds=anna:{who.token}",
        where(live_stack, "shop/api:1.0"),
        f"dir:{tmp_path / 'pulled'}",
    )
    assert pulled.returncode == 0, pulled.stderr


def test_push_outside_the_grant_is_refused(live_stack: Services, person: Make, tmp_path: Path) -> None:
    shop = dock.team("shop")
    Environment.objects.create(team=shop, slug="production", name="Production", position=1, prefix="production")
    owner, viewer = person("anna", "owner", of=shop), person("vera", "viewer", of=shop)
    stranger = person("eve", "owner", of=dock.team("base"))
    layout = oci.layout(tmp_path / "image", oci.image("refused"))
    for who, reference in (
        (owner, "production/shop/api:1"),
        (owner, "base/api:1"),
        (viewer, "shop/api:1"),
        (stranger, "shop/api:1"),
    ):
        done = push(live_stack, who, layout, reference)
        assert done.returncode != 0, (who.user.username, reference)
        assert "denied" in done.stderr or "unauthorized" in done.stderr, done.stderr
    assert push(live_stack, owner, layout, "shop/api:1").returncode == 0
    inspect = ["inspect", "--tls-verify=false", "--raw"]
    seen = skopeo(*inspect, f"--creds=vera:{viewer.token}", where(live_stack, "shop/api:1"))
    assert seen.returncode == 0, seen.stderr
    hidden = skopeo(*inspect, f"--creds=eve:{stranger.token}", where(live_stack, "shop/api:1"))
    assert hidden.returncode != 0
    assert skopeo(*inspect, where(live_stack, "shop/api:1")).returncode != 0


def test_mount_needs_pull_on_the_source(live_stack: Services, person: Make, tmp_path: Path) -> None:
    """Who knows only the digest of a layer cannot get it by mounting it into their own repository."""
    base = dock.team("base")
    anna, owner = person("anna", "creator", of=dock.team("shop")), person("olga", "creator", of=base)
    item = oci.image("secret")
    layer = next(digest for digest, content in item.blobs.items() if content[:2] == b"\x1f\x8b")  # gzip
    assert push(live_stack, owner, oci.layout(tmp_path / "image", item), "base/secret:1").returncode == 0

    def mount(**more: str) -> int:
        """Ask for both repositories as clients do, mount the layer, and return the status."""
        scopes = ["repository:shop/api:pull,push", "repository:base/secret:pull"]
        asked = {"service": settings.REGISTRY_SERVICE, "scope": scopes}
        answer = httpx.get(f"{live_stack.web_url}/auth/token", params=asked, auth=("anna", anna.token))
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        url = f"{live_stack.registry.url}/v2/shop/api/blobs"
        status = httpx.post(f"{url}/uploads/", params={"mount": layer, **more}, headers=headers).status_code
        assert (httpx.head(f"{url}/{layer}", headers=headers).status_code == 200) is (status == 201)
        return status

    assert mount(**{"from": "base/secret"}) == 401
    assert mount() == 202  # without a source, an upload begins, for who has the content
    person("anna", "viewer", of=base)
    wait_until(lambda: mount(**{"from": "base/secret"}) == 201, 10)


def test_protected_tag_moved_by_creator_is_moved_back(live_stack: Services, person: Make, tmp_path: Path) -> None:
    shop = dock.team("shop")
    creator, maintainer = person("carl", "creator", of=shop), person("mary", "maintainer", of=shop)
    first, second = oci.image("first"), oci.image("second")
    layouts = [oci.layout(tmp_path / name, item) for name, item in (("first", first), ("second", second))]
    assert push(live_stack, creator, layouts[0], "shop/api:v1").returncode == 0
    wait_until(lambda: Tag.objects.filter(name="v1", image__isnull=False).exists(), 30)
    protect_tags(Repository.objects.get(name="shop/api").pk, ["v*"], actor=maintainer.user)

    def served() -> str:
        inspect = ["inspect", "--tls-verify=false", "--format={{.Digest}}", f"--creds=carl:{creator.token}"]
        return skopeo(*inspect, where(live_stack, "shop/api:v1")).stdout.strip()

    assert push(live_stack, creator, layouts[1], "shop/api:v1").returncode == 0
    wait_until(lambda: TagEvent.objects.filter(via="protection").exists(), 30)
    wait_until(lambda: served() == first.manifest.digest.text, 30)
    assert Tag.objects.get(name="v1").image.digest == first.manifest.digest.text
    assert push(live_stack, maintainer, layouts[1], "shop/api:v1").returncode == 0
    wait_until(lambda: Tag.objects.get(name="v1").image.digest == second.manifest.digest.text, 30)
    assert served() == second.manifest.digest.text


def test_only_approved_promotion_can_write_to_target(
    live_stack: Services,
    person: Make,
    real_client: RegistryClient,
    tmp_path: Path,
) -> None:
    shop = dock.team("shop")
    environment = create_environment(
        shop,
        actor=promotions.system_user(),
        slug="production",
        name="Production",
        prefix="production",
        required_approvals=1,
    )
    owner, approver = person("anna", "owner", of=shop), person("kim", "approver", "deployer", of=shop)
    admin = person("root", "owner", of=shop)
    admin.user.is_superuser = True
    admin.user.save()
    # An index of two platforms, with an annotation, a signature that refers to it, and one that refers to a platform.
    note = {"org.opencontainers.image.source": "shop/api"}
    amd, arm = (oci.image("base", arch, annotations=note, architecture=arch) for arch in ("amd64", "arm64"))
    top = oci.index(amd, arm)
    for item in (amd, arm):
        oci.push(real_client, "shop/api", item)
    oci.push_manifest(real_client, "shop/api", top, "1.0")
    signatures = [oci.artifact(top, "signature"), oci.artifact(amd.manifest, "sbom")]
    for artifact in signatures:
        for digest, content in artifact.blobs.items():
            real_client.upload_blob("shop/api", Digest.parse(digest), content)
        oci.attach(real_client, "shop/api", artifact.manifest)
    scanned = Image.objects.filter(
        digest__in=[item.manifest.digest.text for item in (amd, arm)], scanned_at__isnull=False
    )
    wait_until(lambda: scanned.count() == 2, 90)
    layout = oci.layout(tmp_path / "image", oci.image("smuggled"))
    for who in (owner, approver, admin):
        assert_no_way_in(live_stack, who, layout)
    assert real_client.resolve("production/shop/api", "1.0") is None
    assert push(live_stack, owner, layout, "shop/other:1.0").returncode == 0  # the same user, in another repository

    repository = Repository.objects.get(name="shop/api")
    made = promotions.request_promotion(
        repository, top.digest.text, environment, actor=owner.user, reason="release", tag="1.0"
    )
    promotions.approve(made.pk, actor=approver.user)
    promotions.execute(made.pk, actor=approver.user)
    wait_until(lambda: PromotionRequest.objects.get(pk=made.pk).state == "succeeded", 60)

    for reference in ("1.0", "current", top.digest.text):
        assert real_client.get_manifest("production/shop/api", reference).content == top.content
    for item in (amd, arm, *signatures):
        served = real_client.get_manifest("production/shop/api", item.manifest.digest.text)
        assert (served.content, served.media_type) == (item.manifest.content, item.manifest.media_type)
    for subject, artifact in ((top.digest, signatures[0]), (amd.manifest.digest, signatures[1])):
        listed = {entry.digest.text for entry in real_client.referrers("production/shop/api", subject)}
        assert artifact.manifest.digest.text in listed
    pulled = skopeo(
        "copy", "--all", "--src-tls-verify=false", f"--src-creds=anna:{owner.token}",
        where(live_stack, "production/shop/api:current"), f"dir:{tmp_path / 'pulled'}",
    )  # fmt: skip
    assert pulled.returncode == 0, pulled.stderr
    for who in (owner, approver, admin):
        assert_no_way_in(live_stack, who, layout)
        gone = skopeo(
            "delete", "--tls-verify=false", f"--creds={who.user.username}:{who.token}",
            where(live_stack, "production/shop/api:1.0"),
        )  # fmt: skip
        assert gone.returncode != 0
    assert real_client.get_manifest("production/shop/api", "current").content == top.content


def assert_no_way_in(stack: Services, who: Person, layout: Path) -> None:
    """Check that a push to any target tag is refused, and that the user's token grants at most pull."""
    for tag in ("1.0", "current", "smuggled"):
        done = push(stack, who, layout, f"production/shop/api:{tag}")
        assert done.returncode != 0, (who.user.username, tag)
        assert "denied" in done.stderr or "unauthorized" in done.stderr, done.stderr
    answer = httpx.get(
        f"{stack.web_url}/auth/token",
        params={"service": settings.REGISTRY_SERVICE, "scope": "repository:production/shop/api:pull,push,delete"},
        auth=(who.user.username, who.token),
    )
    token = answer.json()["token"]
    url = f"{stack.registry.url}/v2/production/shop/api"
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.post(f"{url}/blobs/uploads/", headers=headers).status_code == 401
    assert httpx.delete(f"{url}/manifests/sha256:{'a' * 64}", headers=headers).status_code == 401


def test_buildah_pushes_and_pulls_with_token(live_stack: Services, person: Make, tmp_path: Path) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    item = oci.image("by buildah")
    layout = oci.layout(tmp_path / "image", item)
    store = ["--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs"]
    credentials = ["--tls-verify=false", f"--creds=anna:{who.token}"]

    def buildah(*arguments: str) -> str:
        done = subprocess.run(["buildah", *store, *arguments], capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    identity = buildah("pull", f"oci:{layout}:latest")
    buildah("push", *credentials, identity, where(live_stack, "shop/built:1"))
    buildah("pull", *credentials, where(live_stack, "shop/built:1"))
    wait_until(lambda: Tag.objects.filter(repository__name="shop/built", name="1").exists(), 30)


def test_identity_token_is_refreshed_in_chunked_post(live_stack: Services, person: Make, tmp_path: Path) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    layout = oci.layout(tmp_path / "image", oci.image("chunked"))
    assert push(live_stack, who, layout, "shop/chunked:1").returncode == 0
    answer = httpx.get(
        f"{live_stack.web_url}/auth/token",
        params={"service": settings.REGISTRY_SERVICE, "offline_token": "true"},
        auth=("anna", who.token),
    )
    auth_file = tmp_path / "auth.json"
    host = f"localhost:{live_stack.registry.port}"
    auth_file.write_text(
        json.dumps({"auths": {host: {"identitytoken": answer.json()["refresh_token"], "auth": "Og=="}}})
    )
    seen = skopeo(
        "inspect", "--raw", "--tls-verify=false", "--authfile", auth_file, where(live_stack, "shop/chunked:1")
    )
    assert seen.returncode == 0, seen.stderr


def _certificate_of(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a self-signed certificate with the same subject as ours."""
    name = load_pem_x509_certificate(settings.TOKEN_CERT.encode()).subject
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())


def forged() -> dict[str, str]:
    """Return tokens that must be refused, by their defect."""
    good = signing.sign("anna", [repository_scope("shop/forged", "pull")]).text
    claims: dict[str, Any] = jwt.decode(good, options={"verify_signature": False})
    header = jwt.get_unverified_header(good)
    ours = load_pem_x509_certificate(settings.TOKEN_CERT.encode())
    public = ours.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key, real = ec.generate_private_key(ec.SECP256R1()), signing._key(settings.TOKEN_KEY, settings.TOKEN_CERT)[0]
    head = {"x5c": header["x5c"]}

    def segment(value: object) -> str:
        return jwt.utils.base64url_encode(json.dumps(value).encode()).decode()

    def hmac_signed() -> str:
        # Signed manually: PyJWT refuses to use a public key as a secret.
        import hashlib
        import hmac

        text = f"{segment({'typ': 'JWT', 'alg': 'HS256', **head})}.{segment(claims)}"
        mac = hmac.new(public, text.encode(), hashlib.sha256).digest()
        return f"{text}.{jwt.utils.base64url_encode(mac).decode()}"

    def with_own_jwk() -> str:
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        return jwt.encode(claims, key, algorithm="ES256", headers={"jwk": jwk})

    theirs = base64.b64encode(_certificate_of(key).public_bytes(Encoding.DER)).decode()

    def twice() -> str:
        """Return a token with duplicate `sub` and `access` claims and the header of a valid token."""
        body = (
            json.dumps(claims)[:-1]
            + ',"sub":"root","access":[{"type":"repository","name":"shop/forged","actions":["*"]}]}'
        )
        return f"{good.split('.')[0]}.{jwt.utils.base64url_encode(body.encode()).decode()}.{good.split('.')[2]}"

    return {
        "their own certificate": jwt.encode(claims, key, algorithm="ES256", headers={"x5c": [theirs]}),
        "their certificate before ours": jwt.encode(
            claims, key, algorithm="ES256", headers={"x5c": [theirs, header["x5c"][0]]}
        ),
        "a key id that is a path": jwt.encode(claims, key, algorithm="ES256", headers={"kid": "../../../dev/null"}),
        "a key set elsewhere": jwt.encode(
            claims, key, algorithm="ES256", headers={"jku": "http://localhost:1/", "x5u": "http://localhost:1/"}
        ),
        "claims twice": twice(),
        "a token of our API": "gdk_pat_" + "a" * 40,
        "alg none": f"{segment({'typ': 'JWT', 'alg': 'none', **head})}.{segment(claims)}.",
        "HS256 with the public key": hmac_signed(),
        "another key, our certificate": jwt.encode(claims, key, algorithm="ES256", headers=head),
        "its own jwk": with_own_jwk(),
        "no key named": jwt.encode(claims, real, algorithm="ES256"),
        "another audience": jwt.encode({**claims, "aud": "other"}, real, algorithm="ES256", headers=head),
        "another issuer": jwt.encode({**claims, "iss": "other"}, real, algorithm="ES256", headers=head),
        "expired": jwt.encode({**claims, "exp": int(time.time()) - 120}, real, algorithm="ES256", headers=head),
        "not yet": jwt.encode({**claims, "nbf": int(time.time()) + 120}, real, algorithm="ES256", headers=head),
        "claims changed": ".".join([good.split(".")[0], segment({**claims, "sub": "eve"}), good.split(".")[2]]),
    }


@pytest.mark.parametrize("what", sorted(forged()))
def test_real_registry_refuses_forged_token(services: Services, what: str) -> None:
    services.need_registry()
    url = f"{services.registry.url}/v2/shop/forged/tags/list"
    good = signing.sign("anna", [repository_scope("shop/forged", "pull")]).text
    # Authorized, but it does not exist.
    assert httpx.get(url, headers={"Authorization": f"Bearer {good}"}).status_code == 404
    assert httpx.get(url, headers={"Authorization": f"Bearer {forged()[what]}"}).status_code == 401


@pytest.mark.django_db
def test_api_refuses_registry_token(client: Client) -> None:
    good = signing.sign("anna", [repository_scope("shop/forged", "pull")]).text
    assert client.get("/api/v1/images/", headers={"Authorization": f"Bearer {good}"}).status_code == 401


def test_catalog_and_tags_need_own_scope_and_pages_are_limited(services: Services) -> None:
    services.need_registry()
    url = f"{services.registry.url}/v2"
    pull = signing.sign("anna", [repository_scope("shop/one", "pull")]).text
    catalog = signing.sign("admin", [CATALOG_SCOPE]).text

    def asked(path: str, token: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{url}/{path}", headers=headers).status_code

    for path in ("_catalog", "_catalog?n=1000000000", "shop/one/tags/list", "shop/two/tags/list"):
        assert asked(path) == 401
    assert (asked("_catalog", pull), asked("shop/two/tags/list", pull)) == (401, 401)
    assert asked("shop/one/tags/list", pull) == 404  # authorized, but it does not exist
    assert (asked("_catalog", catalog), asked("_catalog?n=1000000000", catalog)) == (200, 400)
