"""Every route has a reviewed row: who gets in, who is told nothing, who is refused. Every call has somebody who may.

A route without a row fails, and so does a row without a route. Columns: nobody (no session, no token), outsider (signed
in, in no team), viewer of the team. `in` answers 2xx or 3xx to a page of its own, `out` leads to the sign-in or answers
401, `hidden` answers 404, `refused` 403 or 400, `405` is what a GET of a POST-only route gets.
"""

from __future__ import annotations

import re
from typing import Final

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import tokens
from accounts.models import ApiToken, Robot, Role, Team, User
from lifecycle.audit import services as audit
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.jobs.models import Job
from lifecycle.promotion import services as promotions
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Metadata
from tests.factories import dock as rows
from tests.factories.people import robot as new_robot

pytestmark = pytest.mark.django_db

OUT, IN, HIDDEN, REFUSED, POST_ONLY = "out", "in", "hidden", "refused", "405"
# Address pattern -> GET by (nobody, an outsider, a viewer of the team). "-": tested elsewhere.
MATRIX: Final[dict[str, tuple[str, str, str]]] = {
    "": (OUT, IN, IN),
    "livez": (IN, IN, IN),
    "readyz": ("-", "-", "-"),  # needs Redis: tests/integration/embedded
    "metrics": (IN, IN, IN),
    "accounts/sign-in/": (IN, IN, IN),
    "accounts/password/change/": (OUT, IN, IN),
    "accounts/sign-out/": (IN, IN, IN),  # leads on; only a POST signs out
    "hooks/registry/<str:name>": (POST_ONLY, POST_ONLY, POST_ONLY),
    "api/v1/schema/": (OUT, IN, IN),
    "api/v1/me/": (OUT, IN, IN),
    "api/v1/images/": (OUT, IN, IN),
    "api/v1/images/{digest}/": (OUT, HIDDEN, IN),
    "api/v1/images/{digest}/findings/": (OUT, HIDDEN, IN),
    "api/v1/images/{digest}/packages/": (OUT, HIDDEN, IN),
    "api/v1/images/{digest}/compare/?to={digest}": (OUT, HIDDEN, IN),
    "api/v1/repositories/": (OUT, IN, IN),
    "api/v1/repositories/{repository}/": (OUT, HIDDEN, IN),
    "api/v1/images/{digest}/lineage/": (OUT, HIDDEN, IN),
    "api/v1/repositories/{repository}/recipe/": (OUT, HIDDEN, IN),
    "api/v1/repositories/{repository}/builder/": (OUT, HIDDEN, IN),
    "api/v1/repositories/{repository}/protected-tags/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/repositories/{repository}/watches/": (OUT, HIDDEN, IN),
    "api/v1/repositories/{repository}/watches/{watch}/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/rebuild-waves/": (OUT, IN, IN),
    "api/v1/rebuild-waves/{wave}/": (OUT, HIDDEN, IN),
    "api/v1/rebuild-waves/{wave}/confirm/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/rebuild-waves/{wave}/cancel/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/rebuild-waves/{wave}/retry/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/rebuild-waves/{wave}/jobs/{wave_job}/log/": (OUT, HIDDEN, IN),
    "api/v1/environments/": (OUT, IN, IN),
    "api/v1/environments/{environment}/": (OUT, HIDDEN, IN),
    "api/v1/promotions/": (OUT, IN, IN),
    "api/v1/promotions/{promotion}/": (OUT, HIDDEN, IN),
    "api/v1/promotions/{promotion}/approve/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/promotions/{promotion}/reject/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/promotions/{promotion}/execute/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/promotions/{promotion}/withdraw/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/audit-events/": (OUT, IN, IN),
    "api/v1/audit-events/{event}/": (OUT, HIDDEN, HIDDEN),
    "api/v1/jobs/": (OUT, IN, IN),
    "api/v1/jobs/{job}/": (OUT, HIDDEN, HIDDEN),
    "api/v1/jobs/{job}/log/": (OUT, HIDDEN, HIDDEN),
    "api/v1/jobs/{job}/cancel/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/jobs/{job}/retry/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/teams/": (OUT, IN, IN),
    "api/v1/teams/{team}/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/grants/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/grants/{grant}/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/robots/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/robots/{robot}/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/robots/{robot}/take-over/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/teams/{team}/robots/{robot}/tokens/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/robots/{robot}/tokens/{robot_token}/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/teams/{team}/environments/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/builder/": (OUT, HIDDEN, IN),
    "api/v1/teams/{team}/explain/?who=viewer&verb=image.view": (OUT, HIDDEN, IN),
    "api/v1/roles/": (OUT, IN, IN),
    "api/v1/roles/{role}/": (OUT, IN, IN),
    "api/v1/tokens/": (OUT, IN, IN),
    "api/v1/tokens/{token}/": (OUT, POST_ONLY, POST_ONLY),
    "jobs/": (OUT, IN, IN),
    "jobs/{job}/": (OUT, HIDDEN, HIDDEN),
    "jobs/{job}/log.txt": (OUT, HIDDEN, HIDDEN),
    "jobs/{job}/cancel/": (OUT, POST_ONLY, POST_ONLY),
    "jobs/{job}/retry/": (OUT, POST_ONLY, POST_ONLY),
    "images/": (OUT, IN, IN),
    "rebuilds/": (OUT, IN, IN),
    "rebuilds/new/": (OUT, IN, IN),
    "rebuilds/{wave}/": (OUT, HIDDEN, IN),
    "rebuilds/{wave}/confirm/": (OUT, POST_ONLY, POST_ONLY),
    "rebuilds/{wave}/cancel/": (OUT, HIDDEN, IN),  # the question, with the count; a POST does it
    "rebuilds/{wave}/retry/": (OUT, POST_ONLY, POST_ONLY),
    "rebuilds/{wave}/jobs/{wave_job}/log/": (OUT, HIDDEN, IN),
    "rebuilds/{wave}/jobs/{wave_job}/log.txt": (OUT, HIDDEN, IN),
    "rebuilds/repositories/{repository}/watches/": (OUT, POST_ONLY, POST_ONLY),
    "rebuilds/repositories/{repository}/watches/{watch}/remove/": (OUT, POST_ONLY, POST_ONLY),
    "rebuilds/repositories/{repository}/builder/": (OUT, POST_ONLY, POST_ONLY),
    "rebuilds/repositories/{repository}/recipe/": (OUT, HIDDEN, IN),  # greyed, with the reason
    "lineage/": (OUT, IN, IN),
    "lineage/{digest}/": (OUT, HIDDEN, IN),
    "t/{team}/r/{repository_name}/": (OUT, HIDDEN, IN),
    "t/{team}/r/{repository_name}/i/{digest}/": (OUT, HIDDEN, IN),
    "t/{team}/r/{repository_name}/-/describe/": (OUT, POST_ONLY, POST_ONLY),
    "t/{team}/r/{repository_name}/-/protect/": (OUT, POST_ONLY, POST_ONLY),
    "t/{team}/r/{repository_name}/-/metadata/": (OUT, POST_ONLY, POST_ONLY),
    "t/{team}/r/{repository_name}/-/metadata/remove/": (OUT, POST_ONLY, POST_ONLY),
    "api/v1/repositories/{repository}/metadata/": (OUT, HIDDEN, IN),
    "t/{team}/r/{repository_name}/-/tags/{tag}/delete/": (OUT, HIDDEN, REFUSED),
    "t/{team}/r/{repository_name}/i/{digest}/delete/": (OUT, HIDDEN, REFUSED),
    "teams/{team}/rename/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/delete/": (OUT, HIDDEN, REFUSED),
    "t/{team}/r/{repository_name}/i/{digest}/rescan/": (OUT, POST_ONLY, POST_ONLY),
    "t/{team}/r/{repository_name}/i/{digest}/export/{export}": (OUT, HIDDEN, IN),
    "compare/?from={digest}": (OUT, IN, IN),
    "inbox/": (OUT, IN, IN),
    "inbox/lists/": (OUT, IN, IN),
    "inbox/seen/": (OUT, POST_ONLY, POST_ONLY),
    "promotions/bulk/": (OUT, POST_ONLY, POST_ONLY),
    "jobs/bulk/": (OUT, POST_ONLY, POST_ONLY),
    "promotions/": (OUT, IN, IN),
    "promotions/new/?repository={repository}&digest={digest}": (OUT, HIDDEN, REFUSED),
    "promotions/{promotion}/": (OUT, HIDDEN, IN),
    "promotions/environments/": (OUT, IN, IN),
    "promotions/{promotion}/detail/": (OUT, HIDDEN, IN),
    "promotions/{promotion}/progress/": (OUT, HIDDEN, IN),
    "compare/{digest}...{digest}/": (OUT, HIDDEN, IN),
    "promotions/{promotion}/approve/": (OUT, POST_ONLY, POST_ONLY),
    "promotions/{promotion}/reject/": (OUT, POST_ONLY, POST_ONLY),
    "promotions/{promotion}/execute/": (OUT, POST_ONLY, POST_ONLY),
    "promotions/{promotion}/withdraw/": (OUT, POST_ONLY, POST_ONLY),
    "teams/": (OUT, IN, IN),
    "teams/{team}/": (OUT, HIDDEN, IN),
    "teams/{team}/members/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/grants/{grant}/revoke/": (OUT, HIDDEN, REFUSED),
    "teams/{team}/environments/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/builder/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/robots/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/robots/{robot}/": (OUT, HIDDEN, IN),
    "teams/{team}/robots/{robot}/grants/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/robots/{robot}/tokens/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/robots/{robot}/tokens/{robot_token}/revoke/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/robots/{robot}/take-over/": (OUT, POST_ONLY, POST_ONLY),
    "teams/{team}/robots/{robot}/retire/": (OUT, HIDDEN, REFUSED),
    "roles/": (OUT, IN, IN),  # what a role allows is no secret
    "roles/{role}/": (OUT, IN, IN),
    "roles/{role}/delete/": (OUT, POST_ONLY, POST_ONLY),
    "people/": (OUT, REFUSED, REFUSED),
    "people/{person}/": (OUT, HIDDEN, IN),
    "people/{person}/reset-password/": (OUT, POST_ONLY, POST_ONLY),
    "people/{person}/admin/": (OUT, POST_ONLY, POST_ONLY),
    "people/{person}/verify-mail/": (OUT, POST_ONLY, POST_ONLY),
    "people/{person}/deactivate/": (OUT, REFUSED, REFUSED),
    "people/{person}/reactivate/": (OUT, POST_ONLY, POST_ONLY),
    "account/": (OUT, IN, IN),
    "account/link/<str:text>/": ("-", "-", "-"),  # the link is the credential: tests/integration/authority
    "account/tokens/": (OUT, IN, IN),
    "account/tokens/{token}/revoke/": (OUT, POST_ONLY, POST_ONLY),
    "audit/": (OUT, REFUSED, REFUSED),
    "audit/export/": (OUT, REFUSED, REFUSED),
    "docs/api/": (OUT, IN, IN),
    "about/": (OUT, IN, IN),
    "search/?q=shop": (OUT, IN, IN),
    "advisories/{advisory}/": (OUT, IN, IN),  # feeds are public; only its list of images depends on the reader
    "packages/{package_type}/{package_name}/": (OUT, HIDDEN, IN),
    "api/v1/search/?q=shop": (OUT, IN, IN),
    "audit/{event}/": (OUT, HIDDEN, HIDDEN),
    "theme/": (POST_ONLY, POST_ONLY, POST_ONLY),
}
BACKEND: Final = "allauth.account.auth_backends.AuthenticationBackend"
# POST: who holds no verb changes nothing, whatever the state.
POSTS: Final = ("approve", "reject", "execute", "withdraw")
# Method, address, body: what only who may rebuild (or, for a recipe, amend) gets done.
REBUILD_ACTS: Final[tuple[tuple[str, str, dict[str, object]], ...]] = (
    ("post", "rebuild-waves/{wave}/confirm/", {}),
    ("post", "rebuild-waves/{wave}/cancel/", {}),
    ("post", "rebuild-waves/{wave}/retry/", {}),
    ("post", "repositories/{repository}/watches/", {"tag": "2.0"}),
    ("delete", "repositories/{repository}/watches/{watch}/", {}),
    ("put", "repositories/{repository}/recipe/", {"containerfile": "FROM scratch"}),
    ("put", "repositories/{repository}/protected-tags/", {"patterns": ["*"]}),
)
# Pages that change who may what: address, form; and what an outsider and a viewer of the team are told.
FORMS: Final[tuple[tuple[str, dict[str, str], int, int], ...]] = (
    ("teams/", {"slug": "mine"}, 403, 403),
    ("teams/{team}/members/", {"username": "outsider", "role": "owner", "repository_pattern": "*"}, 404, 403),
    ("teams/{team}/grants/{grant}/revoke/", {}, 404, 403),
    ("teams/{team}/environments/", {"slug": "x", "target_prefix": "x", "required_approvals": "0"}, 404, 403),
    ("teams/{team}/builder/", {"turn": "on"}, 404, 403),
    ("rebuilds/repositories/{repository}/builder/", {"turn": "on"}, 404, 403),
    ("teams/{team}/robots/", {"name": "mine"}, 404, 403),
    ("teams/{team}/robots/{robot}/grants/", {"grant-role": "viewer", "grant-repository_pattern": "*"}, 404, 403),
    ("teams/{team}/robots/{robot}/tokens/", {"name": "mine", "days": "1"}, 404, 403),
    ("teams/{team}/robots/{robot}/tokens/{robot_token}/revoke/", {}, 404, 403),
    ("teams/{team}/robots/{robot}/retire/", {}, 404, 403),
    ("teams/{team}/robots/{robot}/take-over/", {}, 404, 403),
    ("roles/", {"slug": "all", "name": "All", "verbs": "team.manage"}, 403, 403),
    ("roles/{role}/", {"name": "All", "verbs": "team.manage"}, 403, 403),
    ("roles/{role}/delete/", {}, 403, 403),
    ("people/", {"username": "mine"}, 403, 403),
    ("people/{person}/deactivate/", {}, 403, 403),
    ("people/{person}/reset-password/", {}, 403, 403),
    ("people/{person}/admin/", {"is_admin": "1"}, 403, 403),
    ("people/{person}/verify-mail/", {}, 403, 403),
    ("people/{person}/reactivate/", {}, 403, 403),
    ("t/{team}/r/{repository_name}/i/{digest}/rescan/", {}, 404, 403),
    ("t/{team}/r/{repository_name}/-/describe/", {"description": "x"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/protect/", {"patterns": "*"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/metadata/", {"key": "x", "kind": "text", "value": "y"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/metadata/remove/", {"key": "owner"}, 404, 403),
    ("t/{team}/r/{repository_name}/-/tags/{tag}/delete/", {}, 404, 403),
    ("t/{team}/r/{repository_name}/i/{digest}/delete/", {}, 404, 403),
    ("teams/{team}/rename/", {"name": "x"}, 404, 403),
    ("teams/{team}/delete/", {}, 404, 403),
    ("account/tokens/{token}/revoke/", {}, 404, 404),  # somebody else's
    ("jobs/{job}/cancel/", {}, 404, 404),  # as above
    ("jobs/{job}/retry/", {}, 404, 404),
)
# The same over the API: method, address, body, and what an outsider and a viewer are told.
API_ACTS: Final[tuple[tuple[str, str, dict[str, object], int, int], ...]] = (
    ("post", "teams/", {"slug": "mine"}, 403, 403),
    ("post", "teams/{team}/grants/", {"username": "outsider", "role": "owner"}, 404, 403),
    ("post", "teams/{team}/grants/", {"username": "shop+ci", "role": "owner"}, 404, 403),
    ("delete", "teams/{team}/grants/{grant}/", {}, 404, 403),
    ("post", "teams/{team}/robots/", {"name": "mine"}, 404, 403),
    ("delete", "teams/{team}/robots/{robot}/", {}, 404, 403),
    ("post", "teams/{team}/robots/{robot}/take-over/", {}, 404, 403),
    ("post", "teams/{team}/robots/{robot}/tokens/", {"name": "mine"}, 404, 403),
    ("delete", "teams/{team}/robots/{robot}/tokens/{robot_token}/", {}, 404, 403),
    ("post", "teams/{team}/environments/", {"slug": "x", "prefix": "x"}, 404, 403),
    ("put", "teams/{team}/builder/", {}, 404, 403),
    ("delete", "teams/{team}/builder/", {}, 404, 403),
    ("put", "repositories/{repository}/builder/", {}, 404, 403),
    ("delete", "repositories/{repository}/builder/", {}, 404, 403),
    ("post", "roles/", {"slug": "all", "name": "All", "verbs": ["team.manage"]}, 403, 403),
    ("put", "roles/{role}/", {"name": "All", "verbs": ["team.manage"]}, 403, 403),
    ("delete", "roles/{role}/", {}, 403, 403),
    ("delete", "tokens/{token}/", {}, 404, 404),
    ("post", "jobs/{job}/cancel/", {}, 404, 404),
    ("post", "jobs/{job}/retry/", {}, 404, 404),
)


# Who may: method and address -> one principal with the right role, and the body. A GET without a row here is one that
# the viewer of MATRIX may. Every method of every route has a row, or is such a GET.
MAY: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "GET api/v1/audit-events/{event}/": ("owner", {}),
    "GET api/v1/jobs/{job}/": ("owner", {}),
    "GET api/v1/jobs/{job}/log/": ("owner", {}),
    "GET jobs/{job}/": ("owner", {}),
    "GET jobs/{job}/log.txt": ("owner", {}),
    "GET promotions/new/?repository={repository}&digest={digest}": ("requester", {}),
    "GET teams/{team}/grants/{grant}/revoke/": ("owner", {}),
    "GET teams/{team}/robots/{robot}/retire/": ("owner", {}),
    "GET people/": ("admin", {}),
    "GET people/{person}/deactivate/": ("admin", {}),
    "GET audit/": ("owner", {}),
    "GET audit/export/": ("owner", {}),
    "GET audit/{event}/": ("owner", {}),
    "POST accounts/sign-in/": ("nobody", {"login": "owner", "password": "wrong"}),
    "POST accounts/password/change/": ("viewer", {"oldpassword": "wrong"}),
    "POST accounts/sign-out/": ("viewer", {}),
    "POST theme/": ("nobody", {"theme": "dark"}),
    "POST hooks/registry/<str:name>": ("registry", {"events": []}),
    "PUT api/v1/repositories/{repository}/recipe/": ("owner", {"containerfile": "FROM scratch"}),
    "PUT api/v1/repositories/{repository}/protected-tags/": ("owner", {"patterns": ["1.*"]}),
    "POST api/v1/repositories/{repository}/watches/": ("requester", {"tag": "1.0"}),
    "DELETE api/v1/repositories/{repository}/watches/{watch}/": ("requester", {}),
    "POST api/v1/rebuild-waves/": ("requester", {"base": "shop/api:1.0"}),
    "POST api/v1/rebuild-waves/{wave}/confirm/": ("requester", {}),
    "POST api/v1/rebuild-waves/{wave}/cancel/": ("requester", {}),
    "POST api/v1/rebuild-waves/{failed_wave}/retry/": ("requester", {}),
    "POST api/v1/promotions/": (
        "requester",
        {"digest": "sha256:" + "a" * 64, "repository": "shop/api", "environment": "staging", "reason": "release"},
    ),
    "POST api/v1/promotions/{promotion}/approve/": ("approver", {"reason": "read"}),
    "POST api/v1/promotions/{promotion}/reject/": ("approver", {"reason": "not now"}),
    "POST api/v1/promotions/{ready_promotion}/execute/": ("deployer", {}),
    "POST api/v1/promotions/{promotion}/withdraw/": ("requester", {"reason": "not now"}),
    "POST api/v1/jobs/{waiting_job}/cancel/": ("owner", {}),
    "POST api/v1/jobs/{job}/retry/": ("owner", {}),
    "POST api/v1/teams/": ("admin", {"slug": "mine"}),
    "POST api/v1/teams/{team}/grants/": ("owner", {"username": "outsider", "role": "viewer"}),
    "DELETE api/v1/teams/{team}/grants/{grant}/": ("owner", {}),
    "POST api/v1/teams/{team}/robots/": ("owner", {"name": "mine"}),
    "DELETE api/v1/teams/{team}/robots/{robot}/": ("owner", {}),
    "POST api/v1/teams/{team}/robots/{robot}/take-over/": ("owner", {}),
    "POST api/v1/teams/{team}/robots/{robot}/tokens/": ("owner", {"name": "mine"}),
    "DELETE api/v1/teams/{team}/robots/{robot}/tokens/{robot_token}/": ("owner", {}),
    "POST api/v1/teams/{team}/environments/": ("owner", {"slug": "x", "prefix": "x"}),
    "PUT api/v1/teams/{team}/builder/": ("admin", {}),
    "DELETE api/v1/teams/{team}/builder/": ("admin", {}),
    "PUT api/v1/repositories/{repository}/builder/": ("owner-admin", {}),
    "DELETE api/v1/repositories/{repository}/builder/": ("owner-admin", {}),
    "POST api/v1/roles/": ("admin", {"slug": "all", "name": "All", "verbs": ["team.manage"]}),
    "PUT api/v1/roles/{role}/": ("admin", {"name": "All", "verbs": ["team.manage"]}),
    "DELETE api/v1/roles/{role}/": ("admin", {}),
    "POST api/v1/tokens/": ("outsider", {"name": "mine"}),
    "DELETE api/v1/tokens/{token}/": ("owner", {}),
    "POST jobs/{waiting_job}/cancel/": ("owner", {}),
    "POST jobs/{job}/retry/": ("owner", {}),
    "POST rebuilds/new/": ("requester", {"base": "{repository}", "reference": "1.0"}),
    "POST rebuilds/{wave}/confirm/": ("requester", {}),
    "POST rebuilds/{wave}/cancel/": ("requester", {}),
    "POST rebuilds/{failed_wave}/retry/": ("requester", {}),
    "POST rebuilds/repositories/{repository}/watches/": ("requester", {"tag": "1.0"}),
    "POST rebuilds/repositories/{repository}/watches/{watch}/remove/": ("requester", {}),
    "POST rebuilds/repositories/{repository}/recipe/": ("owner", {"containerfile": "FROM scratch", "tag": "1.0"}),
    "POST promotions/new/?repository={repository}&digest={digest}": (
        "requester",
        {"environment": "{environment}", "reason": "release"},
    ),
    "POST promotions/{promotion}/approve/": ("approver", {"reason": "read"}),
    "POST promotions/{promotion}/reject/": ("approver", {"reason": "not now"}),
    "POST promotions/{ready_promotion}/execute/": ("deployer", {}),
    "POST promotions/{promotion}/withdraw/": ("requester", {}),
    "POST t/{team}/r/{repository_name}/i/{digest}/rescan/": ("requester", {}),
    "POST t/{team}/r/{repository_name}/-/describe/": ("owner", {"description": "x"}),
    "POST t/{team}/r/{repository_name}/-/protect/": ("owner", {"patterns": "1.*"}),
    "POST t/{team}/r/{repository_name}/-/metadata/": ("owner", {"key": "x", "kind": "text", "value": "y"}),
    "POST t/{team}/r/{repository_name}/-/metadata/remove/": ("owner", {"key": "owner"}),
    "PUT api/v1/repositories/{repository}/metadata/": ("owner", {"key": "x", "value": "y"}),
    "DELETE api/v1/repositories/{repository}/metadata/?key=owner": ("owner", {}),
    "GET t/{team}/r/{repository_name}/-/tags/{tag}/delete/": ("owner", {}),
    "POST t/{team}/r/{repository_name}/-/tags/{tag}/delete/": ("owner", {}),
    "GET t/{team}/r/{repository_name}/i/{digest}/delete/": ("owner", {}),
    "POST t/{team}/r/{repository_name}/i/{digest}/delete/": ("owner", {}),
    "POST teams/{team}/rename/": ("owner", {"name": "x"}),
    "GET teams/{team}/delete/": ("admin", {}),
    "POST teams/{empty_team}/delete/": ("admin", {}),
    "POST inbox/seen/": ("outsider", {}),
    "POST promotions/bulk/": ("approver", {"ids": "{promotion}", "act": "approve"}),
    "POST jobs/bulk/": ("owner", {"ids": "{failed_job}", "act": "retry"}),
    "POST teams/": ("admin", {"slug": "mine"}),
    "POST teams/{team}/members/": ("owner", {"username": "outsider", "role": "viewer", "repository_pattern": "*"}),
    "POST teams/{team}/grants/{grant}/revoke/": ("owner", {}),
    "POST teams/{team}/environments/": (
        "owner",
        {"slug": "x", "name": "X", "target_prefix": "x", "required_approvals": "0"},
    ),
    "POST teams/{team}/robots/": ("owner", {"name": "mine"}),
    "POST teams/{team}/robots/{robot}/grants/": ("owner", {"grant-role": "viewer", "grant-repository_pattern": "*"}),
    "POST teams/{team}/robots/{robot}/tokens/": ("owner", {"name": "mine", "days": "1"}),
    "POST teams/{team}/robots/{robot}/tokens/{robot_token}/revoke/": ("owner", {}),
    "POST teams/{team}/robots/{robot}/retire/": ("owner", {}),
    "POST teams/{team}/builder/": ("admin", {"turn": "on"}),
    "POST rebuilds/repositories/{repository}/builder/": ("owner-admin", {"turn": "on"}),
    "POST teams/{team}/robots/{robot}/take-over/": ("owner", {}),
    "POST roles/": ("admin", {"slug": "all", "name": "All", "verbs": "team.manage"}),
    "POST roles/{role}/": ("admin", {"name": "All", "verbs": "team.manage"}),
    "POST roles/{role}/delete/": ("admin", {}),
    "POST people/": ("admin", {"username": "mine"}),
    "POST people/{person}/deactivate/": ("admin", {}),
    "POST people/{person}/reset-password/": ("admin", {}),
    "POST people/{person}/admin/": ("admin", {"is_admin": "1"}),
    "POST people/{mailed_person}/verify-mail/": ("admin", {}),
    "POST account/": ("outsider", {"full_name": "Mine", "email": "", "time_zone": "Europe/Berlin"}),
    "POST people/{inactive_person}/reactivate/": ("admin", {}),
    "POST account/tokens/": ("outsider", {"name": "mine", "days": "1"}),
    "POST account/tokens/{token}/revoke/": ("owner", {}),
}

ROLES: Final = ("owner", "approver", "deployer", "requester")


def routes(resolver: URLResolver | None = None, prefix: str = "") -> list[str]:
    """Return the pattern of every route, as Django has it."""
    found: list[str] = []
    for entry in (resolver or get_resolver()).url_patterns:
        pattern = prefix + str(entry.pattern)
        found += routes(entry, pattern) if isinstance(entry, URLResolver) else [pattern]
        assert isinstance(entry, (URLResolver, URLPattern))
    return found


def shape(pattern: str) -> str:
    """Return a pattern with each parameter as {}: the table's, Django's own and the router's expressions alike."""
    plain = re.sub(
        r"\(\?P<\w+>(?:[^()]|\([^()]*\))*\)", "{}", pattern.replace("^", "").replace("$", "").replace("\\Z", "")
    )
    return re.sub(r"<[^>]+>|\{[^}]*\}", "{}", plain)


def test_every_route_has_a_row_and_every_row_a_route():
    assert {shape(route) for route in routes()} == {shape(pattern.partition("?")[0]) for pattern in MATRIX}


@pytest.fixture
def people(dock):
    viewer = User.objects.create(username="viewer")
    RoleGrant.objects.create(user=viewer, team=dock.team, role=Role.objects.get(slug="viewer"))
    clients = {"nobody": Client(), "outsider": Client(), "viewer": Client()}
    clients["outsider"].force_login(dock.outsider, backend=BACKEND)
    clients["viewer"].force_login(viewer, backend=BACKEND)
    return clients


@pytest.fixture
def wave(dock):
    """A planned wave over the dock's repository, one image in it, a watch, a recipe, and an image on an old base."""
    by = {"repository": dock.repository}
    old, web = rows.image("old base"), rows.image("web")
    rows.push(dock.repository, old, "1.0")
    rows.push(dock.repository, dock.image, "1.0")
    above = rows.repository("shop/web", dock.team)
    rows.push(above, web, "latest")
    rows.derive(old, web)
    Recipe.objects.create(repository=above, revision=1, containerfile="FROM scratch", author=dock.owner)
    BuilderPermit.objects.create(repository=above, turned_on_by=dock.owner)
    made = RebuildWave.objects.create(**by, new_base=dock.image, planned_by=dock.owner)
    recipe = Recipe.objects.create(**by, revision=1, containerfile="FROM scratch", author=dock.owner)
    RebuildJob.objects.create(**by, wave=made, level=1, old_image=dock.image, recipe=recipe, tag="latest")
    UpstreamWatch.objects.create(**by, tag="latest", created_by=dock.owner)
    return made


@pytest.fixture
def estate(dock):
    """A robot with a token, somebody's token, a composed role, and a package with an advisory."""
    robot = new_robot(dock.team)
    tokens.create_token(robot.user, kind="rob", name="ci")
    tokens.create_token(dock.owner, kind="pat", name="laptop")
    Team.objects.create(slug="empty", name="Empty")
    Metadata.objects.create(repository=dock.repository, key="owner", value="kim")
    Role.objects.create(slug="crew", name="Crew", verbs=["image.view"])
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    Job.objects.create(kind="scan", subject_id=1, actor=dock.owner, state="failed", finished_at=clock.now())


def address(pattern, dock, request_):
    values = {
        "grant": RoleGrant.objects.filter(user=dock.approver).values_list("pk", flat=True).first(),
        "robot": Robot.objects.values_list("pk", flat=True).first(),
        "robot_token": ApiToken.objects.filter(kind="rob").values_list("pk", flat=True).first(),
        "token": ApiToken.objects.filter(kind="pat").values_list("pk", flat=True).first(),
        "role": "crew",
        "person": dock.approver.pk,
        "digest": dock.image.digest,
        "repository": dock.repository.pk,
        "repository_name": dock.repository.name,
        "environment": dock.dev.pk,
        "promotion": request_.pk,
        "wave": RebuildWave.objects.values_list("pk", flat=True).first(),
        "wave_job": RebuildJob.objects.values_list("pk", flat=True).first(),
        "watch": UpstreamWatch.objects.values_list("pk", flat=True).first(),
        "event": AuditEvent.objects.order_by("pk").values_list("pk", flat=True).first(),
        "job": Job.objects.filter(kind="scan", subject_id=1).values_list("pk", flat=True).first(),
        "team": dock.team.slug,
        "advisory": "CVE-2026-1",
        "export": "findings.csv",
        "tag": "1.0",
        "empty_team": "empty",
        "package_type": "deb",
        "package_name": "openssl",
    }
    return "/" + pattern.replace("<str:name>", "managed").format(**values)


@pytest.mark.parametrize("pattern", [pattern for pattern, row in MATRIX.items() if row[0] != "-"])
@pytest.mark.usefixtures("wave", "estate")
def test_each_kind_of_visitor_gets_what_the_row_says(pattern, people, dock, request_):
    found = []
    for client in people.values():
        answer = client.get(address(pattern, dock, request_))
        if answer.status_code == 302 and "/accounts/sign-in/" in answer["Location"]:
            found.append(OUT)
        else:
            words = {401: OUT, 404: HIDDEN, 403: REFUSED, 400: REFUSED, 405: POST_ONLY}
            found.append(words.get(answer.status_code, IN if answer.status_code < 400 else str(answer.status_code)))
    assert tuple(found) == MATRIX[pattern]


@pytest.mark.parametrize("act", POSTS)
@pytest.mark.parametrize(("who", "statuses"), [("nobody", {401, 403}), ("outsider", {404}), ("viewer", {403})])
def test_who_holds_no_verb_changes_nothing(act, who, statuses, people, request_):
    answer = people[who].post(
        f"/api/v1/promotions/{request_.pk}/{act}/", {"reason": "x"}, content_type="application/json"
    )
    assert answer.status_code in statuses
    request_.refresh_from_db()
    assert request_.state == "open"


@pytest.mark.parametrize(("method", "pattern", "body"), REBUILD_ACTS)
@pytest.mark.parametrize(("who", "statuses"), [("nobody", {401, 403}), ("outsider", {404}), ("viewer", {403})])
@pytest.mark.usefixtures("wave")
def test_who_may_not_rebuild_changes_nothing(  # noqa: PLR0917 -- fixtures
    method, pattern, body, who, statuses, people, dock, request_
):  # fmt: skip
    where = "/api/v1" + address(pattern, dock, request_)
    answer = getattr(people[who], method)(where, body, content_type="application/json")
    assert answer.status_code in statuses
    assert [row.state for row in RebuildWave.objects.all()] == ["planned"]
    assert (Recipe.objects.count(), UpstreamWatch.objects.count()) == (2, 1)
    dock.repository.refresh_from_db()
    assert dock.repository.protected_tags == []


@pytest.mark.parametrize(("who", "statuses"), [("nobody", {401, 403}), ("outsider", {404})])
def test_who_cannot_see_a_base_plans_nothing(who, statuses, people):
    answer = people[who].post("/api/v1/rebuild-waves/", {"base": "shop/api:1.0"}, content_type="application/json")
    assert answer.status_code in statuses
    assert not RebuildWave.objects.exists()


def changes() -> int:
    """Return how many changes the trail holds: every change is an event, and so is every refusal, which counts not."""
    return AuditEvent.objects.exclude(action="access.refused").count()


@pytest.mark.parametrize("row", FORMS, ids=lambda row: row[0])
@pytest.mark.usefixtures("estate", "wave")
def test_who_manages_nothing_is_refused_by_every_form(row, people, dock, request_):
    pattern, form, for_outsider, for_viewer = row
    before = changes()
    where = address(pattern, dock, request_)
    assert people["nobody"].post(where, form)["Location"].startswith("/accounts/sign-in/")
    assert people["outsider"].post(where, form).status_code == for_outsider
    assert people["viewer"].post(where, form).status_code == for_viewer
    assert changes() == before


@pytest.mark.parametrize("act", API_ACTS, ids=lambda act: f"{act[0]} {act[1]}")
@pytest.mark.usefixtures("estate", "wave")
def test_who_manages_nothing_is_refused_by_every_act_of_the_api(act, people, dock, request_):
    method, pattern, body, for_outsider, for_viewer = act
    before = changes()
    where = address(f"api/v1/{pattern}", dock, request_)
    found = [
        getattr(client, method)(where, body, content_type="application/json").status_code for client in people.values()
    ]
    assert found == [401, for_outsider, for_viewer]
    assert changes() == before


def call_shape(call: str) -> str:
    """Return "METHOD address" with each parameter as {} and without a query."""
    method, _, pattern = call.partition(" ")
    return f"{method} {shape(pattern.partition('?')[0])}"


def may_get() -> list[str]:
    """Return a GET for each route that the viewer of MATRIX may read, as the test of its rows proves."""
    return [f"GET {pattern}" for pattern, row in MATRIX.items() if row[2] == IN]


@pytest.fixture
def principals(dock, people):
    """A client of everybody who may do something."""
    admin = User.objects.create(username="admin", is_superuser=True)
    owner_admin = User.objects.create(username="owner-admin", is_superuser=True)
    RoleGrant.objects.create(user=owner_admin, team=dock.team, role=Role.objects.get(slug="owner"))
    for name, user in [
        ("admin", admin),
        ("owner-admin", owner_admin),
        *((name, getattr(dock, name)) for name in ROLES),
    ]:
        people[name] = Client()
        people[name].force_login(user, backend=BACKEND)
    people["registry"] = Client(headers={"Authorization": f"Bearer {settings.REGISTRY_HOOK_SECRET}"})
    return people


def prepared(call, dock, request_):
    """Return the address of a call, and bring what it is about into the state that the call needs."""
    if "{ready_promotion}" in call:
        promotions.approve(request_.pk, actor=dock.approver, reason="read")
    if "{failed_wave}" in call:
        ended = {"state": "failed", "finished_at": clock.now()}
        RebuildWave.objects.update(confirmed_by=dock.owner, **ended)
        RebuildJob.objects.update(**ended)
    if "{waiting_job}" in call:
        Job.objects.update(state="waiting", finished_at=None)
    if "{mailed_person}" in call:
        User.objects.filter(pk=dock.approver.pk).update(email="approver@example.com")
    if "{inactive_person}" in call:
        User.objects.filter(pk=dock.approver.pk).update(is_active=False)
    if (
        call == "POST api/v1/promotions/"
        or call.startswith("POST promotions/new/")
        or call.endswith("{digest}/delete/")
    ):  # one at a time
        promotions.withdraw(request_.pk, actor=dock.requester)
    plain = re.sub(r"\{(?:ready|failed|inactive|waiting|mailed)_(\w+)\}", r"{\1}", call.partition(" ")[2])
    return address(plain, dock, request_)


@pytest.mark.parametrize("call", [call for call in MAY if " api/v1/" in call and not call.startswith("GET ")])
@pytest.mark.usefixtures("wave", "estate")
def test_answer_to_a_change_needs_no_right_that_ends_meanwhile(call, principals, dock, request_, monkeypatch):
    """The last event of a change ends every right of its actor: the change stands, and so does the answer."""
    who, body = MAY[call]
    where = prepared(call, dock, request_)
    record = audit.record

    def record_and_end_rights(action, *, actor, **more):
        event = record(action, actor=actor, **more)
        if actor is not None and actor.kind == User.Kind.PERSON:
            RoleGrant.objects.filter(user=actor).delete()
            User.objects.filter(pk=actor.pk).update(is_superuser=False)
        return event

    monkeypatch.setattr(audit, "record", record_and_end_rights)
    method = call.partition(" ")[0].lower()
    answer = getattr(principals[who], method)(where, body, content_type="application/json")
    assert answer.status_code < 300, answer.content


@pytest.mark.usefixtures("wave", "estate")
def test_every_method_of_every_route_has_somebody_who_may(principals, dock, request_):
    allowed = set()
    for pattern in MATRIX:
        answer = principals["nobody" if "sign-" in pattern else "admin"].trace(address(pattern, dock, request_))
        assert answer.status_code == 405, f"{pattern} takes any method"
        methods = {method.strip() for method in answer["Allow"].split(",")} - {"HEAD", "OPTIONS"}
        if pattern.startswith("accounts/"):
            methods.discard("PUT")  # Django's form views take it for a POST
        allowed |= {call_shape(f"{method} {pattern}") for method in methods}
    elsewhere = {"GET readyz", *(call_shape(f"{method} account/link/<str:text>/") for method in ("GET", "POST"))}
    assert allowed - elsewhere == {call_shape(call) for call in [*MAY, *may_get()]}


@pytest.mark.parametrize("call", MAY)
@pytest.mark.usefixtures("wave", "estate")
def test_somebody_with_the_right_role_may(call, principals, dock, request_):
    who, body = MAY[call]
    where, client = prepared(call, dock, request_), principals[who]
    method = call.partition(" ")[0].lower()
    if method == "get":
        answer = client.get(where)
    elif "/api/v1/" in where or who == "registry":
        answer = getattr(client, method)(where, body, content_type="application/json")
    else:
        ids = {
            "repository": dock.repository.pk,
            "environment": dock.staging.pk,
            "promotion": request_.pk,
            "failed_job": Job.objects.filter(state="failed").values_list("pk", flat=True).first(),
        }
        answer = client.post(where, {key: str(value).format(**ids) for key, value in body.items()})
    assert answer.status_code < 400, answer.content[:500]
    assert "/accounts/sign-in/" not in answer.get("Location", "") or call == "POST accounts/sign-out/"


# Fields of forms that people do not type into: lists, check boxes, numbers of rows, buttons.
CHOSEN: Final = {
    "act", "base", "days", "environment", "grant-role", "ids", "key", "kind", "login", "next", "oldpassword",
    "required_approvals", "role", "theme", "turn", "verbs",
}  # fmt: skip
TYPED: Final = [
    (call, field)
    for call, (_, body) in MAY.items()
    if call.startswith("POST ") and "api/v1/" not in call and not call.startswith(("POST accounts/", "POST hooks/"))
    for field, value in body.items()
    if isinstance(value, str) and field not in CHOSEN and "{" not in value and "/watches/" not in call  # a list of tags
]


@pytest.mark.parametrize(("call", "field"), TYPED)
@pytest.mark.usefixtures("wave", "estate")
def test_refused_form_keeps_what_was_typed(call, field, principals, dock, request_):
    """Every field of every form with a text that is too long: it is stored, or shown again with the error."""
    who, body = MAY[call]
    where = prepared(call, dock, request_)
    ids = {"repository": dock.repository.pk, "environment": dock.staging.pk, "promotion": request_.pk}
    typed = "Typed-by-hand! " * 700
    form = {key: str(value).format_map(ids) if "{" in str(value) else value for key, value in body.items()}
    answer = principals[who].post(where, form | {field: typed})
    if answer.status_code == 302:
        return  # such a text is fine here
    assert answer.status_code == 422, (call, field, answer.status_code)
    page = answer.content.decode()
    assert "Typed-by-hand! Typed-by-hand!" in page, (call, field)
    assert "error-summary" in page
    assert page.count("invalid-feedback") >= 1 or "bulk-bar" in page
