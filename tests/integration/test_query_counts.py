"""A list costs the same queries at 1 row and at 30, and no more than its ceiling.

Every GET of MATRIX (the authorisation matrix, which has every route) is a list here, or is named as none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from rest_framework.generics import ListAPIView
from rest_framework.mixins import ListModelMixin

from accounts import tokens
from accounts.models import ApiToken, Team, User
from lifecycle.advisories.models import PrivateAdvisory
from lifecycle.alerts.models import Alert
from lifecycle.authority import sessions
from lifecycle.jobs.models import Job
from lifecycle.notices.models import Channel
from lifecycle.pages.authority.views.teams import _TABS as TEAM_TABS
from lifecycle.pages.comparison.views import _TABS as COMPARISON_TABS
from lifecycle.pages.registry.image_tabs import IMAGE_TABS
from lifecycle.pages.registry.views import _REPOSITORY_TABS
from lifecycle.pentests.models import PentestFinding, PentestRun
from lifecycle.policies.models import ExternalCheck, Waiver
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.quarantine.models import Quarantine
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.registry.models import Repository
from lifecycle.retention.models import RetentionPlan
from lifecycle.trust.models import TrustedSource
from lifecycle.vex.models import VexDocument, VexFeed, VexStatement
from tests import sharing
from tests.factories import dock
from tests.integration.matrix_of_routes import MATRIX, POST_ONLY
from tests.integration.rows_of_lists import World, add_rows, make_world
from tests.services import Services

pytestmark = pytest.mark.timeout(900)  # the first test reads every list twice, on a busy machine too
MANY: Final = 30
BACKEND: Final = "allauth.account.auth_backends.AuthenticationBackend"
# Address pattern of MATRIX, with a query where there are tabs -> the most queries of a request.
LISTS: Final[dict[str, int]] = {
    "images/": 14,
    "access/": 20,
    "access-requests/": 12,
    "api/v1/access-requests/": 8,
    "inbox/": 58,  # with the facts for the policies of the chosen request
    "inbox/lists/": 45,
    "promotions/": 12,
    "promotions/environments/": 22,
    "promotions/gates/": 15,
    "promotions/new/?repository={repository}&digest={digest}": 30,
    "release-sets/": 15,
    "release-sets/{set}/": 60,
    "release-sets/{set}/progress/": 60,
    "api/v1/release-sets/": 10,
    "api/v1/release-sets/{set}/": 30,
    "promotions/{promotion}/": 42,
    "promotions/{promotion}/detail/": 38,
    "t/{team}/r/{repository_name}/?tab=tags": 25,
    "t/{team}/r/{repository_name}/?tab=untagged": 20,
    "t/{team}/r/{repository_name}/?tab=settings": 20,
    "t/{team}/r/{repository_name}/i/{digest}/delete/": 25,
    "t/{team}/r/{repository_name}/-/tags/{tag}/delete/": 25,
    "t/{team}/r/{repository_name}/?tab=recipe": 20,
    "t/{team}/r/{repository_name}/?tab=rebuilds": 25,
    "t/{team}/r/{repository_name}/?tab=history": 20,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=overview": 29,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=configuration": 29,
    "t/{team}/r/{repository_name}/i/{digest}/export/{export}": 20,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=lineage": 29,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=packages": 31,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=findings": 38,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=files": 31,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=pentests": 40,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=promotions": 38,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=signatures": 45,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=history": 31,
    "trusted-sources/": 17,
    "trusted-sources/{trusted_source}/": 15,
    "api/v1/images/{digest}/signatures/": 25,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=sboms": 45,
    "api/v1/images/{digest}/sboms/": 25,
    "api/v1/trusted-sources/": 10,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=policy": 50,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=runtime": 35,
    "policies/": 15,
    "policies/{scope}/": 20,
    "clusters/": 12,
    "running/": 20,
    "clusters/{cluster}/": 20,
    "api/v1/clusters/": 8,
    "api/v1/clusters/{cluster}/bindings/": 10,
    "api/v1/clusters/{cluster}/debts/": 8,
    "api/v1/clusters/{cluster}/reports/": 8,
    "api/v1/running/": 14,
    "api/v1/images/{digest}/runtime/": 16,
    "pentests/": 12,
    "pentests/runs/": 12,
    "quarantines/": 12,
    "retention/": 14,
    "retention/{retention_plan}/": 20,
    "api/v1/retention-plans/": 8,
    "api/v1/retention-plans/{retention_plan}/": 12,
    "api/v1/retention-plans/{retention_plan}/digests/": 12,
    "alerts/": 14,
    "alerts/{alert}/": 22,
    "api/v1/alerts/": 8,
    "api/v1/alerts/{alert}/": 14,
    "fixes/": 20,
    "trends/": 14,
    "private-advisories/": 14,
    "private-advisories/{private_advisory}/": 16,
    "api/v1/private-advisories/": 8,
    "api/v1/private-advisories/{private_advisory}/": 8,
    "api/v1/trends/": 8,
    "fixes/{fix}/": 20,
    "api/v1/advisories/{advisory}/": 12,
    "api/v1/advisories/{advisory}/images/": 21,
    "api/v1/fixes/": 10,
    "api/v1/fixes/{fix}/": 12,
    "signing-keys/": 12,
    "api/v1/signing-keys/": 8,
    "quarantines/{quarantine}/": 25,
    "vex/": 12,
    "vex/documents/": 12,
    "waivers/": 12,
    "lineage/": 12,
    "lineage/{digest}/": 26,
    "compare/{digest}...{other_digest}/?tab=findings": 17,
    "compare/{digest}...{other_digest}/?tab=packages": 17,
    "compare/{digest}...{other_digest}/?tab=layers": 17,
    "compare/{digest}...{other_digest}/?tab=configuration": 17,
    "rebuilds/": 12,
    "rebuilds/new/": 15,
    "rebuilds/{wave}/": 17,
    "rebuilds/{wave}/cancel/": 16,
    "rebuilds/{wave}/jobs/{wave_job}/log/": 15,
    "rebuilds/{wave}/jobs/{wave_job}/log.txt": 12,
    "notices/": 12,
    "channels/": 15,
    "channels/{channel}/": 18,
    "api/v1/channels/": 8,
    "external-checks/": 15,
    "api/v1/external-checks/": 8,
    "api/v1/messages/": 8,
    "account/notices/": 12,
    "api/v1/notice-mutes/": 8,
    "api/v1/notices/": 8,
    "jobs/": 15,
    "jobs/{job}/": 15,
    "jobs/{job}/log.txt": 12,
    "audit/": 20,
    "audit/export/": 15,
    "search/?q=app": 20,
    "search/?q=common": 20,
    "advisories/{advisory}/": 21,
    "packages/{package_type}/{package_name}/": 15,
    "api/v1/search/?q=app": 15,
    "teams/": 12,
    "teams/{team}/?tab=members": 18,
    "teams/{team}/?tab=robots": 18,
    "teams/{team}/?tab=environments": 20,
    "teams/{team}/?tab=builder": 20,
    "teams/{team}/?tab=why": 20,
    "teams/{team}/?tab=settings": 20,
    "teams/{team}/move/": 20,
    "teams/{team}/robots/{robot}/": 21,
    "teams/{team}/robots/{robot}/keyless/": 16,
    "groups/": 12,
    "groups/{group}/": 18,
    "sign-in/": 12,
    "sign-in/{provider}/": 15,
    "account/identities/": 12,
    "roles/{role}/": 12,
    "people/": 12,
    "feeds/": 12,
    "vex/feeds/": 12,
    "registries/": 12,
    "people/{person}/": 15,
    "account/tokens/": 12,
    "account/access/": 14,
    "api/v1/me/": 5,
    "api/v1/images/": 10,
    "api/v1/images/{digest}/": 10,
    "api/v1/images/{digest}/findings/": 18,
    "api/v1/images/{digest}/packages/": 10,
    "api/v1/images/{digest}/exports/{export}/": 19,
    "api/v1/images/{digest}/compare/?to={other_digest}": 15,
    "api/v1/images/{digest}/lineage/": 15,
    "api/v1/repositories/": 8,
    "api/v1/repositories/{repository}/metadata/": 8,
    "api/v1/repositories/{repository}/watches/": 8,
    "api/v1/rebuild-waves/": 8,
    "api/v1/rebuild-waves/{wave}/": 15,
    "api/v1/rebuild-waves/{wave}/jobs/{wave_job}/log/": 10,
    "api/v1/environments/": 8,
    "api/v1/windows/": 8,
    "api/v1/holds/": 8,
    "api/v1/promotions/": 8,
    "api/v1/promotions/{promotion}/": 26,
    "api/v1/images/{digest}/verdict/?environment=place-0": 35,
    "api/v1/policies/": 8,
    "api/v1/policies/{scope}/revisions/": 10,
    "api/v1/images/{digest}/contents/": 12,
    "api/v1/pentest-runs/": 8,
    "api/v1/pentest-findings/": 8,
    "api/v1/images/{digest}/pentests/": 13,
    "api/v1/quarantines/": 8,
    "api/v1/quarantines/{quarantine}/images/": 15,
    "api/v1/quarantines/{quarantine}/withdrawals/": 10,
    "api/v1/quarantines/{quarantine}/exemptions/": 10,
    "api/v1/vex/statements/": 8,
    "api/v1/vex/documents/": 8,
    "api/v1/waivers/": 8,
    "api/v1/audit-events/": 8,
    "api/v1/jobs/": 8,
    "api/v1/jobs/{job}/log/": 8,
    "api/v1/teams/": 8,
    "api/v1/teams/{team}/grants/": 8,
    "api/v1/teams/{team}/robots/": 8,
    "api/v1/teams/{team}/robots/{robot}/tokens/": 8,
    "api/v1/teams/{team}/robots/{robot}/trust-rules/": 8,
    "api/v1/teams/{team}/environments/": 8,
    "api/v1/people/": 8,
    "api/v1/feeds/": 8,
    "api/v1/vex/feeds/": 8,
    "api/v1/registries/": 8,
    "api/v1/groups/": 8,
    "api/v1/groups/{group}/members/": 10,
    "api/v1/sign-in/providers/": 8,
    "api/v1/sign-in/providers/{provider}/rules/": 9,
    "api/v1/roles/": 8,
    "api/v1/tokens/": 8,
}
# Reads without rows, or of one row.
NO_LISTS: Final = {
    # A stream that reads one image at a time, of at most IMAGES_MAX.
    "private-advisories/new/",
    "findings/export/{export}",
    "api/v1/findings/exports/{export}/",
    "",  # leads on
    "livez",
    "readyz",
    "metrics",
    "accounts/sign-in/",
    "accounts/password/change/",
    "accounts/sign-out/",
    "promotions/{promotion}/progress/",
    "promotions/break-glass/",
    "release-sets/new/",
    "promotions/rollback/",  # at most 20 earlier images
    "promotions/environments/{environment}/",
    "promotions/environments/{environment}/remove/",
    "trusted-sources/new/",
    "trusted-sources/{trusted_source}/retire/",
    "api/v1/trusted-sources/{trusted_source}/",
    "api/v1/images/{digest}/sboms/{sbom}/",
    "rebuilds/repositories/{repository}/recipe/",
    "teams/{team}/grants/{grant}/revoke/",
    "teams/{team}/robots/{robot}/retire/",
    "groups/{group}/delete/",
    "api/v1/groups/{group}/",
    "sso/{provider}/start/",
    "sso/{provider}/callback/",
    "sign-in/new/",
    "sign-in/{provider}/delete/",
    "sign-in/{provider}/rules/{claim_rule}/delete/",
    "api/v1/sign-in/policy/",
    "api/v1/sign-in/providers/{provider}/",
    "roles/",  # leads on
    "policies/try/",
    "clusters/new/",
    "api/v1/clusters/{cluster}/manifest/",
    "api/v1/clusters/{cluster}/bundle/",
    "clusters/{cluster}/manifest/",
    "clusters/{cluster}/forecast/",  # where no snapshot is, it builds one
    "api/v1/clusters/{cluster}/forecast/",
    "api/v1/clusters/{cluster}/contents/",
    "clusters/{cluster}/delete/",
    "why/{decision}/",
    "api/v1/clusters/{cluster}/",
    "api/v1/clusters/{cluster}/reports/{report}/",
    "pentests/{pentest}/",
    "retention/teams/{team}/",
    "retention/repositories/{repository}/",
    "api/v1/teams/{team}/retention/",
    "api/v1/repositories/{repository}/retention/",
    "pentests/runs/{pentest_run}/",
    "quarantines/new/",
    "due-dates/",
    "isolation/",
    "api/v1/due-dates/",
    "signing-keys/{signing_key}/public.pem",
    "signing-keys/{signing_key}/retire/",
    "api/v1/signing-keys/{signing_key}/",
    "vex/new/",
    "vex/{vex_statement}/",
    "vex/documents/{vex_document}/",
    "vex/feeds/{vex_feed}/",
    "waivers/new/",
    "external-checks/new/",
    "external-checks/{check}/",
    "external-checks/{check}/delete/",
    "api/v1/external-checks/{check}/",
    "waivers/{waiver}/",
    "people/{person}/deactivate/",
    "feeds/new/",
    "feeds/{feed}/",
    "feeds/{feed}/remove/",
    "api/v1/feeds/{feed}/",
    "registries/new/",
    "registries/{registry}/",
    "registries/{registry}/remove/",
    "api/v1/registries/{registry}/",
    "account/",
    "account/link/<str:text>/",
    "account/security/",
    "account/second-factor/",  # leads on
    "account/confirm/",
    "account/security/authenticator/",
    "account/security/authenticator/remove/",
    "account/security/passkeys/new/",
    "account/security/passkeys/{passkey}/remove/",
    "security/",
    "api/v1/security/",
    "audit/{event}/",
    "log/{log_file}",
    "audit/{event}/proof/",
    "api/v1/audit-events/{event}/proof/",
    "audit/log/",  # at most ANCHORS_MAX anchors
    "api/v1/audit-log/",
    "api/v1/audit-anchors/",  # at most ANCHORS_MAX
    "access-requests/new/",
    "access-requests/{access_request}/",
    "api/v1/access-requests/{access_request}/",
    "access/file/",  # one file, as a whole
    "api/v1/access/file/",
    "api/v1/access/file/schema/",
    "api/v1/access/effective/",  # of one principal
    "t/{team}/r/{repository_name}/-/delete/",
    "audit/sealed-export/",  # a file, in parts of 1,000 entries
    "api/v1/audit-events/sealed-export/",
    "teams/{team}/delete/",
    "compare/",
    "about/",
    "docs/api/",
    "api/v1/schema/",
    "api/v1/repositories/{repository}/",
    "api/v1/repositories/{repository}/recipe/",
    "api/v1/repositories/{repository}/builder/",
    "api/v1/teams/{team}/builder/",
    "api/v1/environments/{environment}/",
    "api/v1/policies/catalogue/",
    "api/v1/policies/{scope}/",
    "api/v1/pentest-runs/{pentest_run}/",
    "api/v1/pentest-findings/{pentest}/",
    "api/v1/quarantines/{quarantine}/",
    "api/v1/vex/statements/{vex_statement}/",
    "api/v1/vex/documents/{vex_document}/",
    "api/v1/vex/feeds/{vex_feed}/",
    "api/v1/waivers/{waiver}/",
    "api/v1/audit-events/{event}/",
    "api/v1/jobs/{job}/",
    "api/v1/notices/{notice}/",
    "api/v1/channels/{channel}/",
    "api/v1/messages/{message}/",
    "channels/new/",
    "channels/{channel}/delete/",
    "api/v1/notice-preferences/",
    "api/v1/teams/{team}/",
    "api/v1/teams/{team}/grants/{grant}/",
    "api/v1/teams/{team}/robots/{robot}/",
    "api/v1/teams/{team}/explain/",
    "api/v1/people/{person}/",
    "api/v1/roles/{role}/",
}


def address(pattern: str) -> str:
    values = {
        "team": "shop",
        "digest": dock.sha("base 0"),
        "other_digest": dock.sha("derived 0"),
        "repository": Repository.objects.get(name="shop/app-0").pk,
        "repository_name": "shop/app-0",
        "promotion": PromotionRequest.objects.earliest("pk").pk,
        "set": ReleaseSet.objects.filter(environment__slug="dev").earliest("pk").pk,
        "wave": RebuildWave.objects.earliest("pk").pk,
        "wave_job": RebuildJob.objects.earliest("pk").pk,
        "role": "viewer",
        "advisory": "CVE-common",
        "export": "findings.csv",
        "tag": "base-0",
        "package_type": "deb",
        "package_name": "common",
        "job": Job.objects.earliest("pk").pk,
        "signing_key": "key-0",
        "trusted_source": TrustedSource.objects.earliest("pk").pk,
        "person": User.objects.get(username="reader").pk,
        "scope": "team:shop:place-0",
        "channel": Channel.objects.earliest("pk").pk,
        "check": ExternalCheck.objects.earliest("pk").pk,
        "fix": f"{0:016}",
        "alert": Alert.objects.earliest("pk").pk,
        "cluster": "cluster-0",
        "pentest": PentestFinding.objects.earliest("pk").pk,
        "pentest_run": PentestRun.objects.earliest("pk").pk,
        "retention_plan": RetentionPlan.objects.earliest("pk").pk,
        "quarantine": Quarantine.objects.earliest("pk").pk,
        "vex_statement": VexStatement.objects.filter(document=None).earliest("pk").pk,
        "private_advisory": PrivateAdvisory.objects.earliest("pk").pk,
        "vex_feed": VexFeed.objects.earliest("pk").pk,
        "vex_document": VexDocument.objects.earliest("pk").pk,
        "waiver": Waiver.objects.earliest("pk").pk,
        "provider": "corp-0",
        "group": Team.objects.get(slug="shop").groups.earliest("pk").pk,
        "robot": Team.objects.get(slug="shop").robots.earliest("pk").pk,
    }
    return "/" + pattern.format(**values)


def queries_of(client: Client, where: str) -> list[str]:
    """Return the queries of a request; the request before it fills the caches that outlive requests."""
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(where)
            body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert answer.status_code == 200, (where, answer.status_code, body[:300])
    return [query["sql"] for query in queries]


@pytest.fixture(scope="module")
def counted(
    django_db_setup: None, django_db_blocker: Any, services: Services
) -> dict[str, tuple[list[str], list[str]]]:
    """The queries of every list at 1 row and at 30, which takes one database with each number of rows."""
    services.tidy()
    with sharing.quick_settings(), sharing.database(django_db_blocker), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "SEEN_EVERY", timedelta(days=1))  # the reads take minutes: no note of the use between
        world = make_world()
        add_rows(world, 0)
        clients = clients_of(world)
        one = {pattern: queries_of(clients(pattern), address(pattern)) for pattern in LISTS}
        for number in range(1, MANY):
            add_rows(world, number)
        many = {pattern: queries_of(clients(pattern), address(pattern)) for pattern in LISTS}
    return {pattern: (one[pattern], many[pattern]) for pattern in LISTS}


def clients_of(world: World) -> Callable[[str], Client]:
    """Return the function from a pattern to who reads it: by browser or by token; admins for what only they see."""
    browser, admin = Client(), Client()
    browser.force_login(world.reader, backend=BACKEND)
    admin.force_login(world.admin, backend=BACKEND)
    by_pattern = {
        "people/": admin,
        "registries/": admin,
        "feeds/": admin,
        "sign-in/": admin,
        "sign-in/{provider}/": admin,
    }
    by_pattern |= {f"api/v1/{area}/": by_token(world.admin) for area in ("people", "registries", "feeds")}
    in_sign_in = ("sign-in/providers", "sign-in/providers/{provider}/rules")
    by_pattern |= {f"api/v1/{area}/": by_token(world.admin) for area in in_sign_in}
    api = by_token(world.reader)
    return lambda pattern: by_pattern.get(pattern, api if pattern.startswith("api/") else browser)


def by_token(user: User) -> Client:
    _row, text = tokens.create_token(user, kind=ApiToken.Kind.PERSONAL, name="test")
    return Client(headers={"Authorization": f"Bearer {text}"})


@pytest.mark.parametrize("pattern", LISTS)
def test_a_list_costs_the_same_at_1_row_and_at_30(pattern: str, counted: Any) -> None:
    one, many = counted[pattern]
    assert len(many) == len(one), "\n".join(grown(one, many))
    assert len(many) <= LISTS[pattern], "\n".join(query[:300] for query in many)


def grown(one: list[str], many: list[str]) -> list[str]:
    """Return the queries that are made more often for many rows, whatever their numbers, with how much more often."""
    before, after = (Counter(re.sub(r"[0-9]+", "N", query) for query in queries) for queries in (one, many))
    return [f"{count} times more: {query.strip()[:600]}" for query, count in (after - before).most_common(5)]


def test_every_read_is_a_list_or_named_as_none() -> None:
    reads = {plain(pattern) for pattern, row in MATRIX.items() if row[2] != POST_ONLY}
    listed = {plain(pattern) for pattern in LISTS}
    assert listed.isdisjoint(NO_LISTS)
    assert listed | NO_LISTS == reads


def plain(pattern: str) -> str:
    return pattern.partition("?")[0].replace("other_digest", "digest")


@pytest.mark.django_db
def test_no_list_of_the_api_is_named_as_none() -> None:
    wrong = []
    for pattern in NO_LISTS:
        if not pattern.startswith("api/") or pattern in {"api/v1/schema/", "api/v1/audit-anchors/"}:
            continue
        found = resolve("/" + plain(pattern).replace("{role}", "x").replace("{team}", "x").format_map(Numbers()))
        view = getattr(found.func, "cls", None) or found.func.view_class
        is_list = issubclass(view, ListAPIView) or (
            issubclass(view, ListModelMixin) and getattr(found.func, "actions", {}).get("get") == "list"
        )
        wrong += [pattern] if is_list else []
    assert wrong == []


class Numbers(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "1"


@pytest.mark.parametrize(
    ("pattern", "tabs"),
    [
        ("t/{team}/r/{repository_name}/", _REPOSITORY_TABS),
        ("t/{team}/r/{repository_name}/i/{digest}/", IMAGE_TABS),
        ("teams/{team}/", TEAM_TABS),
        ("compare/{digest}...{digest}/", COMPARISON_TABS),
    ],
)
def test_every_tab_is_counted(pattern: str, tabs: Any) -> None:
    assert {listed.partition("?tab=")[2] for listed in LISTS if plain(listed) == pattern} == set(tabs)
