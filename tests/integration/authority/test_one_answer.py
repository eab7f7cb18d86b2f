"""Every way to ask about a right gives one answer: that of a plain model of the grants, which this file has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import product

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import Group, GroupMember, Membership, Robot, Role, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.authority import queries, rights
from lifecycle.authority.access import image_for, lock_repository, repository_for, repository_named, team_for
from lifecycle.authority.covers import visible_sql, whole_teams
from lifecycle.authority.explaining import explain
from lifecycle.authority.lists import images_page
from lifecycle.authority.models import RoleGrant
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.environments.models import Environment
from lifecycle.oci.scopes import parse_scopes
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.tokens.rights import allowed_actions
from tests.factories import dock

pytestmark = pytest.mark.django_db
VIEW, PUSH, MANAGE, AUDIT = Verb.IMAGE_VIEW, Verb.IMAGE_CREATE, Verb.TEAM_MANAGE, Verb.AUDIT_READ
VERBS = (VIEW, PUSH, MANAGE, AUDIT)
OF_ADMINS = {MANAGE, AUDIT}
ALL, SOME = [verb.value for verb in VERBS], [VIEW.value, AUDIT.value]
# Who -> their grants: (team, verbs, pattern, environment, whether it is live).
GRANTS = {
    "all": [("shop", ALL, "*", None, True)],
    "view": [("shop", SOME, "*", None, True), ("base", [PUSH.value], "base/a*", None, True)],
    "part": [("shop", ALL, "shop/a*", None, True), ("shop", SOME, "*/web", None, True)],
    "dev": [("shop", ALL, "*", "dev", True), ("base", SOME, "*", None, True)],
    "narrow": [("shop", ALL, "shop/a*", "prod", True), ("shop", [PUSH.value], "*", None, True)],
    "late": [("shop", ALL, "*", None, False), ("base", ALL, "*", None, True)],
    "none": [],
    "admin": [("base", SOME, "*", None, True)],
    "idle": [("shop", ALL, "*", None, True)],
    "idle admin": [("shop", ALL, "*", None, True)],
    "system": [],
    "of all": [("shop", ALL, "*", None, True), ("base", ALL, "*", None, True)],
    "of part": [("shop", ALL, "*", None, True)],
    "of admin": [("shop", ALL, "*", None, True), ("base", ALL, "*", None, True)],
    "of system": [("shop", SOME, "shop/*", None, True)],
    "of idle": [("shop", ALL, "*", None, True)],
    "of nobody": [("shop", ALL, "*", None, True)],
    "of view": [("shop", ALL, "*", None, True), ("base", ALL, "*", "live", True)],
    "of of all": [("shop", ALL, "shop/a*", None, True), ("base", ALL, "*", None, True)],
    "idle robot": [("shop", ALL, "*", None, True)],
}
MAKERS = {"of all": "all", "of part": "part", "of admin": "admin", "of system": "system", "of idle": "idle",
          "of nobody": None, "of view": "view", "of of all": "of all", "idle robot": "all"}  # fmt: skip
IDLE = {"idle", "idle admin", "idle robot"}
ADMINS = {"admin", "idle admin"}
PEOPLE = [name for name in GRANTS if name not in MAKERS and name != "system"]
# Repository -> (team, family, environment).
PLACES = {
    "shop/api": ("shop", "shop/api", None),
    "shop/web": ("shop", "shop/web", None),
    "base/app": ("base", "base/app", None),
    "dev/shop/api": ("shop", "shop/api", "dev"),
    "prod/shop/api": ("shop", "shop/api", "prod"),
    "prod/shop/web": ("shop", "shop/web", "prod"),
}


# --- The model ----------------------------------------------------------------------------------------------------


def fits(pattern: str, family: str | None) -> bool:
    if family is None:
        return pattern == "*"
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), family) is not None


def own(who: str, verb: Verb, team: str, family: str | None, environment: str | None) -> bool:
    """Return whether one of the grants of an active account allows it."""
    return who not in IDLE and any(
        on == team and verb.value in verbs and place in {None, environment} and fits(pattern, family) and is_live
        for on, verbs, pattern, place, is_live in GRANTS[who]
    )


def suspended(who: str | None) -> bool:
    return who in MAKERS and (MAKERS[who] in {None, *IDLE} or suspended(MAKERS[who]))


def makers(who: str) -> list[str]:
    maker = MAKERS.get(who)
    return [] if maker is None else [maker, *makers(maker)]


def has(who: str, verb: Verb, team: str, family: str | None = None, environment: str | None = None) -> bool:
    if who in IDLE or suspended(who):
        return False
    if who == "system" or (who in ADMINS and verb in OF_ADMINS):
        return True
    above = {maker for maker in makers(who) if maker == "system" or (maker in ADMINS and verb in OF_ADMINS)}
    bounds = [who, *(maker for maker in makers(who) if maker not in above)]
    return all(own(each, verb, team, family, environment) for each in bounds)


# --- The same world in the database -------------------------------------------------------------------------------


@dataclass
class World:
    users: dict[str, User]
    teams: dict[str, object]
    environments: dict[str, Environment]
    repositories: dict[str, object]
    images: dict[str, Image]


@pytest.fixture
def _reads_once():
    """Ask as one request that only reads does: the grants of each user are read once."""
    with request_context(RequestContext(), is_read=True):
        yield


def holder(user: User, number: int, way: str) -> dict[str, object]:
    """Return the holder of a grant of `user`: the user, a group with the user, or one with such a group in it."""
    if way == "direct" or user.kind != User.Kind.PERSON:
        return {"user": user}
    outer = Group.objects.create(slug=f"outer-{user.pk}-{number}", name="x")
    if number % 2:
        GroupMember.objects.create(group=outer, user=user)
    else:
        inner = Group.objects.create(slug=f"inner-{user.pk}-{number}", name="x")
        GroupMember.objects.create(group=outer, member=inner)
        GroupMember.objects.create(group=inner, user=user)
    return {"group": outer}


@pytest.fixture(params=["direct", "groups"])
def world(request) -> World:
    teams = {slug: dock.team(slug) for slug in ("shop", "base")}
    environments = {}
    for place, (slug, team) in enumerate((("dev", "shop"), ("prod", "shop"), ("live", "base"))):
        environments[slug] = Environment.objects.create(
            team=teams[team], slug=slug, name=slug, position=place, prefix=slug
        )
    repositories, images = {}, {}
    for name, (team, family, environment) in PLACES.items():
        row = dock.repository(name, teams[team])
        if environment:
            row.family, row.environment, row.source = family, environments[environment], repositories[family]
            row.save()
        repositories[name] = row
        images[name] = Image.objects.create(
            digest=dock.sha(name), kind=Image.Kind.MANIFEST, media_type="m", manifest=b"{}"
        )
        RepositoryImage.objects.create(repository=row, image=images[name])
    gone = Image.objects.create(digest=dock.sha("gone"), kind=Image.Kind.MANIFEST, media_type="m", manifest=b"{}")
    RepositoryImage.objects.create(repository=repositories["shop/api"], image=gone, removed_at=timezone.now())
    users = {"system": system_user()}
    for name in GRANTS:
        if name != "system":
            kind = User.Kind.ROBOT if name in MAKERS else User.Kind.PERSON
            users[name] = User.objects.create(username=name.replace(" ", "-"), kind=kind, is_active=name not in IDLE,
                                              is_superuser=name in ADMINS)  # fmt: skip
    for name, maker in MAKERS.items():
        Robot.objects.create(user=users[name], team=teams["shop"], name=name, created_by=users["system"],
                             responsible=users[maker] if maker else None)  # fmt: skip
    for name, grants in GRANTS.items():
        for number, (team, verbs, pattern, environment, is_live) in enumerate(grants):
            role = Role.objects.create(slug=f"{users[name].pk}-{number}", name="x", verbs=verbs)
            RoleGrant.objects.create(
                **holder(users[name], number, request.param), role=role, team=teams[team], repository_pattern=pattern,
                environment=environments[environment] if environment else None,
                expires_at=timezone.now() + timedelta(hours=1 if is_live else -1),
            )  # fmt: skip
    fresh = {name: User.objects.select_related("robot__responsible").get(pk=user.pk) for name, user in users.items()}
    return World(fresh, teams, environments, repositories, images)


@pytest.mark.usefixtures("_reads_once")
def test_one_object_is_decided_as_in_the_model(world):
    wrong = []
    for who, verb in product(GRANTS, VERBS):
        actor = world.users[who]
        asked = [((team, None, None), {"team": row}) for team, row in world.teams.items()]
        asked += [((team, family, None), {"repository": world.repositories[name]})
                  for name, (team, family, _) in PLACES.items()]  # fmt: skip
        asked += [((team, family, place), {"repository": world.repositories[name],
                                           "environment": world.environments[place]})
                  for name, (team, family, place) in PLACES.items() if place]  # fmt: skip
        asked += [((row.team.slug, None, slug), {"environment": row}) for slug, row in world.environments.items()]
        for place, objects in asked:
            decision = rights.may(actor, verb, **objects)
            if bool(decision) is not has(who, verb, *place) or bool(decision.reason) is bool(decision):
                wrong.append((who, verb, place))
    assert wrong == []
    rights.require(world.users["all"], VIEW, team=world.teams["shop"])
    with pytest.raises(NotPermitted, match=r"You need image\.view in team base"):
        rights.require(world.users["all"], VIEW, team=world.teams["base"])
    with pytest.raises(ValueError, match="needs a team"):
        rights.may(world.users["all"], VIEW)


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("idle", "This account is deactivated."),
        ("of idle", "Robot of-idle is suspended"),
        ("of part", "part is responsible for of-part and does not have team.manage here."),
        ("of system", "You need team.manage in team shop."),
        ("none", "You need team.manage in team shop. Ask an owner of the team to grant it."),
    ],
)
def test_refusal_says_why(world, who, words):
    assert words in rights.may(world.users[who], MANAGE, team=world.teams["shop"]).reason
    place = rights.may(world.users["none"], VIEW, environment=world.environments["dev"])
    assert place.reason.startswith("You need image.view in dev of team shop.")


def seen(who: str, verb: Verb) -> set[str]:
    return {name for name, place in PLACES.items() if has(who, verb, *place)}


@pytest.mark.usefixtures("_reads_once")
def test_lists_have_what_the_model_allows(world):
    for who, verb in product(GRANTS, (VIEW, PUSH)):
        actor, wanted = world.users[who], seen(who, verb)
        rows = queries.repositories_visible_to(actor, verb)
        assert set(rows.values_list("name", flat=True)) == wanted, (who, verb)
        images = set(queries.images_visible_to(actor, verb).values_list("digest", flat=True))
        assert images == {dock.sha(name) for name in wanted}, (who, verb)
        condition, values = visible_sql(actor, verb, "r")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT r.name FROM lifecycle_repository r WHERE {condition}", values)
            assert {row[0] for row in cursor.fetchall()} == wanted, (who, verb)


def test_pages_of_images_have_what_the_model_allows(world):
    for who in GRANTS:
        wanted = seen(who, VIEW)
        rows = images_page(world.users[who], limit=50)
        assert {row.places[0]["repository"] for row in rows} == wanted, who
        assert [row.id for row in rows] == sorted((row.id for row in rows), reverse=True)
    actor, rows = world.users["all"], images_page(world.users["all"], limit=50)
    assert [row.id for row in images_page(actor, limit=2)] == [row.id for row in rows[:2]]
    assert [row.id for row in images_page(actor, limit=50, below=rows[1].id)] == [row.id for row in rows[2:]]
    one = images_page(actor, limit=50, repository="shop/api")
    assert [row.digest for row in one] == [dock.sha("shop/api")]
    dock.push(world.repositories["shop/web"], world.images["shop/web"], "v1")
    dock.push(world.repositories["base/app"], world.images["base/app"], "v1")
    tagged = images_page(actor, limit=50, tag="v1")
    assert [(row.digest, row.places) for row in tagged] == [
        (dock.sha("shop/web"), [{"repository": "shop/web", "tags": ["v1"]}])]  # fmt: skip
    assert images_page(actor, limit=50, tag="v1", repository="shop/api") == []


@pytest.mark.usefixtures("_reads_once")
def test_whole_teams_are_those_of_the_model(world):
    slugs = {row.pk: slug for slug, row in world.teams.items()}
    for who, verb in product(GRANTS, (VIEW, MANAGE)):
        wanted = {team for team in world.teams if has(who, verb, team)}
        actor = world.users[who]
        assert set(queries.teams_where(actor, verb).values_list("slug", flat=True)) == wanted, (who, verb)
        whole = whole_teams(actor, verb)
        assert (set(slugs.values()) if whole is None else {slugs[pk] for pk in whole}) == wanted, (who, verb)


@pytest.mark.usefixtures("_reads_once")
def test_people_and_answers_are_those_of_the_model(world):
    for verb, (team, family, place) in product(
        (VIEW, PUSH), [*PLACES.values(), ("shop", None, None), ("base", None, "live")]
    ):
        environment = world.environments[place] if place else None
        people = queries.people_who(verb, team=world.teams[team], family=family, environment=environment)
        wanted = sorted(who.replace(" ", "-") for who in PEOPLE if own(who, verb, team, family, place))
        assert list(people.values_list("username", flat=True)) == wanted, (verb, team, family, place)
    for who in [*PEOPLE, *MAKERS]:
        for verb, team, family, place in ((VIEW, "shop", "shop/api", "dev"), (MANAGE, "base", None, None)):
            environment = world.environments[place] if place else None
            answer = explain(world.users[who].username, verb, team=world.teams[team], family=family or "",
                             environment=environment)  # fmt: skip
            assert answer.is_allowed is has(who, verb, team, family, place), (who, verb, team)
            assert bool(answer.changes) is not answer.is_allowed


def test_tokens_of_the_registry_have_what_the_model_allows(world):
    scopes = parse_scopes([f"repository:{name}:*" for name in PLACES])
    for who in set(GRANTS) - {"system"}:
        allowed = allowed_actions(world.users[who], scopes)
        for name, (team, family, place) in PLACES.items():
            wanted = {"pull"} if has(who, VIEW, team, family, place) else set()
            wanted |= {"push"} if place is None and has(who, PUSH, team, family) else set()
            assert allowed.get(("repository", name), frozenset()) == wanted, (who, name)


def test_visible_teams_and_what_is_in_them(world):
    Membership.objects.create(user=world.users["none"], team=world.teams["base"])
    for who, grants in GRANTS.items():
        actor = world.users[who]
        wanted = {team for team, *_, is_live in grants if is_live} | ({"base"} if who == "none" else set())
        if who in {"system", "admin"}:
            wanted = set(world.teams)
        if who in IDLE or suspended(who):
            wanted = set()
        assert set(queries.teams_visible_to(actor).values_list("slug", flat=True)) == wanted, who
        places = {row.slug for row in queries.environments_visible_to(actor)}
        assert places == {slug for slug, row in world.environments.items() if row.team.slug in wanted}, who
        for slug in world.teams:
            if slug in wanted:
                assert team_for(actor, slug) == world.teams[slug]
            else:
                with pytest.raises(NotFound):
                    team_for(actor, slug)
    own_teams = {row.slug for row in queries.teams_of(world.users["admin"])}
    assert own_teams == {"base"}
    assert [row.role.verbs for row in queries.grants_held_by(world.users["view"])] == [SOME, [PUSH.value]]


@pytest.mark.parametrize("who", ["all", "view", "part", "none", "idle", "of nobody"])
def test_row_of_a_request_is_found_only_with_the_right(world, who):
    actor = world.users[who]
    for name, verb in product(PLACES, (VIEW, PUSH)):
        row = world.repositories[name]
        for find, key in ((repository_for, row.pk), (repository_named, name), (lock_repository, row.pk)):
            if name not in seen(who, VIEW):
                with pytest.raises(NotFound):
                    find(actor, key, verb)
            elif name not in seen(who, verb):
                with pytest.raises(NotPermitted):
                    find(actor, key, verb)
            else:
                assert find(actor, key, verb) == row
        if name in seen(who, verb):
            assert image_for(actor, dock.sha(name), verb) == world.images[name]
        else:
            with pytest.raises(NotFound):
                image_for(actor, dock.sha(name), verb)
    for digest in (dock.sha("gone"), "sha256:x"):
        with pytest.raises(NotFound):
            image_for(actor, digest)


def test_events_are_those_of_audited_teams(world):
    made = {slug: audit.record(Action.TEAM_CREATED, actor=system_user(), subject=row, team=row)
            for slug, row in world.teams.items()}  # fmt: skip
    alone = audit.record(Action.TEAM_CREATED, actor=system_user(), subject=world.teams["shop"])
    for who in GRANTS:
        found = set(queries.events_visible_to(world.users[who]).values_list("pk", flat=True))
        wanted = {made[team].pk for team in world.teams if has(who, AUDIT, team)}
        if who == "admin":
            wanted |= {alone.pk}
        assert found & {made["shop"].pk, made["base"].pk, alone.pk} == wanted, who
        teams = set(queries.audited_teams(world.users[who]).values_list("slug", flat=True))
        assert teams == {team for team in world.teams if has(who, AUDIT, team)}, who
