"""A list costs the same queries at 1 row and at 30, and no more than its ceiling.

Every GET of MATRIX (the authorisation matrix, which has every route) is a list here, or is named as none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest
from django.db import connection, transaction
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from rest_framework.generics import ListAPIView
from rest_framework.mixins import ListModelMixin

from accounts import tokens
from accounts.models import ApiToken, Team, User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.authority import services
from lifecycle.authority.services.environments import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.pages.authority.views.teams import _TABS as TEAM_TABS
from lifecycle.pages.comparison.views import _TABS as COMPARISON_TABS
from lifecycle.pages.registry.views import _IMAGE_TABS, _REPOSITORY_TABS
from lifecycle.promotion.models import PromotionRequest, Vote
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import IndexEntry, Metadata, Repository
from tests.factories import dock
from tests.integration.test_authorization_matrix import MATRIX, POST_ONLY

MANY: Final = 30
BACKEND: Final = "allauth.account.auth_backends.AuthenticationBackend"
# Address pattern of MATRIX, with a query where there are tabs -> the most queries of a request.
LISTS: Final[dict[str, int]] = {
    "images/": 12,
    "inbox/": 45,
    "inbox/lists/": 45,
    "promotions/": 12,
    "promotions/environments/": 15,
    "promotions/new/?repository={repository}&digest={digest}": 30,
    "promotions/{promotion}/": 32,
    "promotions/{promotion}/detail/": 28,
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
    "t/{team}/r/{repository_name}/i/{digest}/export/{export}": 15,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=lineage": 29,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=packages": 29,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=findings": 29,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=promotions": 35,
    "t/{team}/r/{repository_name}/i/{digest}/?tab=history": 28,
    "lineage/": 12,
    "lineage/{digest}/": 22,
    "compare/{digest}...{other_digest}/?tab=findings": 16,
    "compare/{digest}...{other_digest}/?tab=packages": 16,
    "compare/{digest}...{other_digest}/?tab=layers": 16,
    "compare/{digest}...{other_digest}/?tab=configuration": 16,
    "rebuilds/": 12,
    "rebuilds/new/": 15,
    "rebuilds/{wave}/": 16,
    "rebuilds/{wave}/cancel/": 16,
    "rebuilds/{wave}/jobs/{wave_job}/log/": 15,
    "rebuilds/{wave}/jobs/{wave_job}/log.txt": 12,
    "jobs/": 15,
    "jobs/{job}/": 15,
    "jobs/{job}/log.txt": 12,
    "audit/": 15,
    "audit/export/": 15,
    "search/?q=app": 20,
    "search/?q=common": 20,
    "advisories/{advisory}/": 20,
    "packages/{package_type}/{package_name}/": 15,
    "api/v1/search/?q=app": 15,
    "teams/": 12,
    "teams/{team}/?tab=members": 18,
    "teams/{team}/?tab=robots": 18,
    "teams/{team}/?tab=environments": 20,
    "teams/{team}/?tab=builder": 20,
    "teams/{team}/?tab=why": 20,
    "teams/{team}/?tab=settings": 20,
    "teams/{team}/robots/{robot}/": 20,
    "roles/{role}/": 12,
    "people/": 12,
    "people/{person}/": 15,
    "account/tokens/": 12,
    "api/v1/me/": 5,
    "api/v1/images/": 10,
    "api/v1/images/{digest}/": 10,
    "api/v1/images/{digest}/findings/": 10,
    "api/v1/images/{digest}/packages/": 10,
    "api/v1/images/{digest}/compare/?to={other_digest}": 15,
    "api/v1/images/{digest}/lineage/": 15,
    "api/v1/repositories/": 8,
    "api/v1/repositories/{repository}/metadata/": 8,
    "api/v1/repositories/{repository}/watches/": 8,
    "api/v1/rebuild-waves/": 8,
    "api/v1/rebuild-waves/{wave}/": 15,
    "api/v1/rebuild-waves/{wave}/jobs/{wave_job}/log/": 10,
    "api/v1/environments/": 8,
    "api/v1/promotions/": 8,
    "api/v1/promotions/{promotion}/": 15,
    "api/v1/audit-events/": 8,
    "api/v1/jobs/": 8,
    "api/v1/jobs/{job}/log/": 8,
    "api/v1/teams/": 8,
    "api/v1/teams/{team}/grants/": 8,
    "api/v1/teams/{team}/robots/": 8,
    "api/v1/teams/{team}/robots/{robot}/tokens/": 8,
    "api/v1/teams/{team}/environments/": 8,
    "api/v1/roles/": 8,
    "api/v1/tokens/": 8,
}
# Reads without rows, or of one row.
NO_LISTS: Final = {
    "",  # leads on
    "livez",
    "readyz",
    "metrics",
    "accounts/sign-in/",
    "accounts/password/change/",
    "accounts/sign-out/",
    "promotions/{promotion}/progress/",
    "rebuilds/repositories/{repository}/recipe/",
    "teams/{team}/grants/{grant}/revoke/",
    "teams/{team}/robots/{robot}/retire/",
    "roles/",  # leads on
    "people/{person}/deactivate/",
    "account/",
    "account/link/<str:text>/",
    "audit/{event}/",
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
    "api/v1/audit-events/{event}/",
    "api/v1/jobs/{job}/",
    "api/v1/teams/{team}/",
    "api/v1/teams/{team}/grants/{grant}/",
    "api/v1/teams/{team}/robots/{robot}/",
    "api/v1/teams/{team}/explain/",
    "api/v1/roles/{role}/",
}


@dataclass(frozen=True)
class World:
    """What the rows of all lists hang on."""

    team: Team
    reader: User  # owns every team
    asker: User
    admin: User
    environments: list[Environment]


def make_world() -> World:
    team = dock.team("shop")
    slugs = ("dev", "staging", "live")
    return World(
        team,
        dock.user("reader", "owner", of=team),
        dock.user("asker", "owner", of=team),
        User.objects.create(username="admin", is_superuser=True),
        [create_environment(team, actor=system_user(), slug=slug, name=slug, prefix=slug) for slug in slugs],
    )


def add_rows(world: World, number: int) -> None:
    """Add one row to every list."""
    add_images(world, number)
    add_promotions(world, number)
    add_rebuilds(world, number)
    add_administration(world, number)


def add_images(world: World, number: int) -> None:
    """Add a repository and its images; packages, findings, tags and derived images of the first."""
    first = dock.repository("shop/app-0")
    where = dock.repository(f"shop/app-{number}")
    base, derived = dock.image(f"base {number}", layers=1), dock.image(f"derived {number}", layers=2)
    dock.push(where, base, "1.0", world.asker)
    dock.push(where, derived, "2.0", world.asker)
    dock.push(first, derived, f"more-{number}", world.asker)
    dock.derive(base, derived)
    subject, other = dock.sha("base 0"), dock.sha("derived 0")
    images = {image.digest: image for image in (dock.Image.objects.filter(digest__in=[subject, other]))}
    dock.push(first, images[subject], f"base-{number}", world.asker)
    if number:
        dock.derive(images[subject], derived)
    Metadata.objects.create(repository=first, key=f"key-{number}", value="x", changed_by=world.asker)
    common = dock.package("common", "1.0")
    dock.carry(derived, 0, common)
    if not number:
        dock.advisory("CVE-common", "high", common, fixed="1.1")
    for image, packages in ((images[subject], "package"), (images[other], "library")):
        package = dock.package(f"{packages}-{number}", "1.0")
        dock.carry(image, 0, package)
        dock.advisory(f"CVE-{packages}-{number}", "high", package, fixed="1.1")
    both = dock.Image.objects.filter(digest=dock.sha("both")).first() or dock.index("both")
    dock.push(first, both, "both", world.asker)
    IndexEntry.objects.create(index=both, child=derived, position=number, platform=f"linux/{number}")


def add_promotions(world: World, number: int) -> None:
    """Add a request in every state that a list shows, a vote, a slot and an environment."""
    first, where = dock.repository("shop/app-0"), dock.repository(f"shop/app-{number}")
    derived = dock.Image.objects.get(digest=dock.sha(f"derived {number}"))
    subject = dock.Image.objects.get(digest=dock.sha("base 0"))
    dev, staging, live = world.environments
    now = clock.now()
    given: dict[str, Any] = {
        "tag": "2.0", "requested_by": world.asker, "reason": "release", "approve_by": now + timedelta(days=7)
    }  # fmt: skip
    place = create_environment(
        world.team, actor=system_user(), slug=f"place-{number}", name="Place", prefix=f"place-{number}"
    )
    Slot.objects.create(repository=where, environment=dev, image=derived, tag="2.0", since=now)
    for environment in (live, place):  # each request for a place finds its image in the environment before
        Slot.objects.get_or_create(repository=first, environment=environment, defaults={"image": subject, "since": now})
    PromotionRequest.objects.create(image=derived, repository=where, environment=staging, **given)
    PromotionRequest.objects.create(image=subject, repository=first, environment=place, **given)
    voter = dock.user(f"voter-{number}", "approver", of=world.team)
    shown = PromotionRequest.objects.filter(repository=first, environment=staging).earliest("pk")
    Vote.objects.create(request=shown, voter=voter, value="approve", digest=shown.image.digest)
    PromotionRequest.objects.create(image=derived, repository=where, environment=live, state="ready", **given)
    ended: dict[str, Any] = given | {"finished_at": now, "executed_by": world.reader}
    PromotionRequest.objects.create(
        image=derived, repository=where, environment=live, state="failed", failure="why", **ended
    )
    rejected = PromotionRequest.objects.create(
        image=derived, repository=where, environment=live, state="rejected", **ended
    )
    Vote.objects.create(request=rejected, voter=world.reader, value="reject", digest=derived.digest)


def add_rebuilds(world: World, number: int) -> None:
    """Add a wave to confirm, an image of the first wave, log lines, a recipe and a watch."""
    first, where = dock.repository("shop/app-0"), dock.repository(f"shop/app-{number}")
    derived = dock.Image.objects.get(digest=dock.sha(f"derived {number}"))
    recipe = Recipe.objects.create(
        repository=first, revision=number + 1, containerfile="FROM scratch", author=world.asker, tag="2.0"
    )
    UpstreamWatch.objects.create(repository=first, tag=f"more-{number}", created_by=world.asker)
    base = dock.Image.objects.get(digest=dock.sha("base 0"))
    wave = RebuildWave.objects.create(repository=first, new_base=base, planned_by=world.reader)
    shown = RebuildWave.objects.earliest("pk")
    made = RebuildJob.objects.create(
        wave=shown, repository=where, level=1, old_image=derived, recipe=recipe, tag="2.0", would_fix=["CVE-1"]
    )
    if wave != shown:
        RebuildJob.objects.create(wave=wave, repository=where, level=1, old_image=derived, recipe=recipe, tag="2.0")
        made.parents.add(RebuildJob.objects.filter(wave=shown).earliest("pk"))
    run, _ = Job.objects.get_or_create(
        kind="rebuild", subject_id=RebuildJob.objects.earliest("pk").pk, defaults={"actor": world.reader}
    )
    JobLogLine.objects.create(job=run, text=f"STEP {number}")


def add_administration(world: World, number: int) -> None:
    """Add a team, a member, a robot, a grant and a token of the first robot, a role, a token, a job and an event."""
    admin, team = world.admin, world.team
    dock.user("reader", "owner", of=dock.team(f"team-{number}"))
    dock.user(f"member-{number}", "viewer", of=team)
    services.create_robot(team.pk, actor=admin, name=f"robot-{number}")
    robot = team.robots.earliest("pk")
    team.robots.exclude(pk=robot.pk).update(responsible=world.reader)
    services.create_robot_token(robot.pk, actor=admin, name=f"token-{number}")
    services.grant_robot(robot.pk, actor=admin, role="viewer", repository_pattern=f"shop/{number}")
    services.create_role(actor=admin, slug=f"role-{number}", name="", verbs=["image.view"])
    services.create_api_token(world.reader, actor=world.reader, name=f"token-{number}")
    repository = Repository.objects.get(name=f"shop/app-{number}")
    image = dock.Image.objects.get(digest=dock.sha(f"derived {number}"))
    Job.objects.create(kind="scan", subject_id=image.pk, actor=world.reader, state="failed", finished_at=clock.now())
    audit.record(Action.PROMOTION_READY, actor=world.asker, team=team, repository=repository, reason="event")


def address(pattern: str) -> str:
    values = {
        "team": "shop",
        "digest": dock.sha("base 0"),
        "other_digest": dock.sha("derived 0"),
        "repository": Repository.objects.get(name="shop/app-0").pk,
        "repository_name": "shop/app-0",
        "promotion": PromotionRequest.objects.earliest("pk").pk,
        "wave": RebuildWave.objects.earliest("pk").pk,
        "wave_job": RebuildJob.objects.earliest("pk").pk,
        "role": "viewer",
        "advisory": "CVE-common",
        "export": "findings.csv",
        "tag": "base-0",
        "package_type": "deb",
        "package_name": "common",
        "job": Job.objects.earliest("pk").pk,
        "person": User.objects.get(username="reader").pk,
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
def counted(django_db_setup: None, django_db_blocker: Any) -> dict[str, tuple[list[str], list[str]]]:
    """The queries of every list at 1 row and at 30, which takes one database with each number of rows."""
    quick = {
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
        "STORAGES": {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
    }
    with override_settings(**quick), django_db_blocker.unblock(), transaction.atomic():
        world = make_world()
        add_rows(world, 0)
        clients = clients_of(world)
        one = {pattern: queries_of(clients(pattern), address(pattern)) for pattern in LISTS}
        for number in range(1, MANY):
            add_rows(world, number)
        many = {pattern: queries_of(clients(pattern), address(pattern)) for pattern in LISTS}
        transaction.set_rollback(True)
    return {pattern: (one[pattern], many[pattern]) for pattern in LISTS}


def clients_of(world: World) -> Callable[[str], Client]:
    """Return the function from a pattern to who reads it: by browser or by token; only an admin sees people."""
    browser, admin = Client(), Client()
    browser.force_login(world.reader, backend=BACKEND)
    admin.force_login(world.admin, backend=BACKEND)
    _row, text = tokens.create_token(world.reader, kind=ApiToken.Kind.PERSONAL, name="test")
    api = Client(headers={"Authorization": f"Bearer {text}"})
    return lambda pattern: admin if pattern == "people/" else api if pattern.startswith("api/") else browser


@pytest.mark.parametrize("pattern", LISTS)
def test_a_list_costs_the_same_at_1_row_and_at_30(pattern: str, counted: Any) -> None:
    one, many = counted[pattern]
    assert len(many) == len(one), "\n".join(query[:300] for query in sorted(set(many) - set(one)))
    assert len(many) <= LISTS[pattern]


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
        if not pattern.startswith("api/") or pattern == "api/v1/schema/":
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
        ("t/{team}/r/{repository_name}/i/{digest}/", _IMAGE_TABS),
        ("teams/{team}/", TEAM_TABS),
        ("compare/{digest}...{digest}/", COMPARISON_TABS),
    ],
)
def test_every_tab_is_counted(pattern: str, tabs: Any) -> None:
    assert {listed.partition("?tab=")[2] for listed in LISTS if plain(listed) == pattern} == set(tabs)
