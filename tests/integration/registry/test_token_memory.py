"""What the token endpoint keeps in memory decides as the database would, after every kind of change."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import jwt
import psycopg2
import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiToken, Group, GroupMember, Robot, Role, Team, User
from accounts.queries import system_user
from accounts.verbs import BUILTIN_ROLES
from lifecycle.authority import changes
from lifecycle.authority.models import PermissionChange, RoleGrant
from lifecycle.environments.models import Environment
from lifecycle.oci.scopes import parse_scopes
from lifecycle.registry.models import Registry, Repository
from lifecycle.tokens import memory as memory_module
from lifecycle.tokens.holders import holder_of
from lifecycle.tokens.memory import Memory
from lifecycle.tokens.rights import FromDatabase, allowed_actions, decide, visitors_actions
from lifecycle.tokens.uses import Uses
from tests.factories.people import Person
from tests.integration.registry.test_token_endpoint import ask, call

pytestmark = pytest.mark.django_db(transaction=True)
NAMES = (
    "shop/api",
    "shop/web",
    "base/debian",
    "prod/shop/api",
    "prod/base/x",
    "live/shop/web",
    "shop",
    "none/x",
    "vault",
)
SCOPES = parse_scopes([*(f"repository:{name}:*" for name in NAMES), "registry:catalog:*"])
PATTERNS = ("*", "*", "shop/*", "shop/a*", "*/web", "base/debian")
STEPS = 25


class World:
    """Rows at random, and the texts of tokens."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.registry = Registry.objects.create(name="managed", endpoint="http://localhost:1", is_managed=True)
        self.teams = [Team.objects.create(slug=slug, name=slug) for slug in ("shop", "base")]
        self.roles = [
            Role.objects.get_or_create(slug=slug, defaults={"name": slug, "verbs": sorted(BUILTIN_ROLES[slug])})[0]
            for slug in ("viewer", "creator", "maintainer", "security", "auditor")
        ]
        self.roles.append(Role.objects.create(slug="own", name="own", verbs=["image.view"]))
        self.users = [User.objects.create(username=name) for name in ("ada", "kim", "lee")]
        for number, responsible in enumerate((self.users[0], self.users[1], system_user(), None)):
            user = User.objects.create(username=f"robot{number}", kind=User.Kind.ROBOT)
            Robot.objects.create(user=user, team=self.teams[0], name=f"r{number}", responsible=responsible)
            self.users.append(user)
        self.texts: list[str] = []
        for user in self.users:
            self.texts.append(tokens.create_token(user, kind="pat", name="t", made_by=self.users[1])[1])
        parent = tokens.find_token(self.texts[0])
        self.texts.append(tokens.create_token(self.users[0], kind="ref", name="c", parent=parent)[1])
        self.groups = [Group.objects.create(slug=slug, name=slug) for slug in ("outer", "inner")]
        GroupMember.objects.create(group=self.groups[0], member=self.groups[1])
        for _ in range(8):
            self.grant()

    def grant(self) -> None:
        pick, team = self.pick, self.pick.choice(self.teams)
        places = list(Environment.objects.filter(team=team))
        holder = pick.choice((*self.users, *self.groups))
        RoleGrant.objects.get_or_create(
            user=None if isinstance(holder, Group) else holder,
            group=holder if isinstance(holder, Group) else None,
            role=pick.choice(self.roles),
            team=team,
            repository_pattern=pick.choice(PATTERNS),
            environment=pick.choice([None, None, *places]),
        )

    def change(self) -> str:
        """Change one thing, and return what."""
        act: Callable[[], object] = self.pick.choice(
            (self.grant, self.grant, self._ungrant, self._bend_grant, self._member, self._nest, self._role,
             self._account, self._robot, self._environment, self._repository, self._repository, self._token,
             self._team, self._managed)
        )  # fmt: skip
        with transaction.atomic():
            act()
        return act.__name__

    def _any(self, rows: Any) -> Any:
        found = list(rows.order_by("pk"))
        return self.pick.choice(found) if found else None

    def _ungrant(self) -> None:
        if row := self._any(RoleGrant.objects.all()):
            row.delete()

    def _bend_grant(self) -> None:
        if row := self._any(RoleGrant.objects.all()):
            fields: dict[str, Any] = self.pick.choice((
                {"expires_at": timezone.now() - timedelta(seconds=1)},
                {"expires_at": None},
                {"expires_at": timezone.now() + timedelta(hours=1)},
                {"repository_pattern": f"shop/{self.pick.randrange(9)}*"},
            ))  # fmt: skip
            RoleGrant.objects.filter(pk=row.pk).update(**fields)

    def _member(self) -> None:
        """Put somebody into a group, or out of it."""
        row = {"group": self.pick.choice(self.groups), "user": self.pick.choice(self.users[:3])}
        if not GroupMember.objects.filter(**row).delete()[0]:
            GroupMember.objects.create(**row)

    def _nest(self) -> None:
        outer, inner = self.groups
        if not GroupMember.objects.filter(group=outer, member=inner).delete()[0]:
            GroupMember.objects.create(group=outer, member=inner)

    def _role(self) -> None:
        verbs = self.pick.sample(["image.view", "image.create", "image.delete", "image.quarantine", "audit.read"], 3)
        Role.objects.filter(slug="own").update(verbs=verbs)

    def _account(self) -> None:
        user = User.objects.get(pk=self.pick.choice(self.users).pk)
        name = self.pick.choice(("is_active", "is_superuser", "must_change_password"))
        setattr(user, name, not getattr(user, name))
        user.save()

    def _robot(self) -> None:
        who = self.pick.choice([*self.users, None, system_user()])
        Robot.objects.filter(name=f"r{self.pick.randrange(4)}").update(responsible=who)

    def _environment(self) -> None:
        team = self.pick.choice(self.teams)
        row = self._any(Environment.objects.filter(team=team, repositories=None))
        if row is None or self.pick.random() < 0.5:
            position = Environment.objects.count() + self.pick.randrange(10**6)
            prefix = self.pick.choice(("prod", "live"))
            if not Environment.objects.filter(team=team, prefix=prefix).exists():
                slug = f"e{position}"
                Environment.objects.create(team=team, slug=slug, name=slug, position=position, prefix=prefix)
        else:
            row.delete()

    def _repository(self) -> None:
        name = self.pick.choice(NAMES)
        row = Repository.objects.filter(name=name).first()
        if row is None:
            place = self._any(Environment.objects.all())
            source = self._any(Repository.objects.filter(environment=None))
            if name.startswith(("prod", "live")) and place and source:
                Repository.objects.create(registry=self.registry, team=place.team, name=name, environment=place,
                                          source=source, family=source.family)  # fmt: skip
            else:
                family = "shop/api" if name == "vault" else name
                team = self.pick.choice(self.teams)
                Repository.objects.create(registry=self.registry, team=team, name=name, family=family)
        elif self.pick.random() < 0.7:
            fields: dict[str, Any] = self.pick.choice((
                {"team": self.pick.choice(self.teams)},
                {"visibility": self.pick.choice(Repository.Visibility.values)},
                {"archived_at": self.pick.choice((None, timezone.now()))},
            ))  # fmt: skip
            Repository.objects.filter(pk=row.pk).update(**fields)
        elif not row.targets.exists():
            row.delete()

    def _token(self) -> None:
        row = self._any(ApiToken.objects.all())
        fields: dict[str, Any] = self.pick.choice((
            {"revoked_at": timezone.now()},
            {"revoked_at": None},
            {"expires_at": timezone.now() - timedelta(seconds=1)},
            {"expires_at": timezone.now() + timedelta(days=1)},
        ))  # fmt: skip
        ApiToken.objects.filter(pk=row.pk).update(**fields)

    def _team(self) -> None:
        Team.objects.filter(pk=self.teams[0].pk).update(slug=self.pick.choice(("shop", "store")))

    def _managed(self) -> None:
        Registry.objects.filter(pk=self.registry.pk).update(is_managed=self.pick.random() < 0.7)


def strict(**more: Any) -> Memory:
    """Return a memory that looks for changes at each request."""
    return Memory(look_every_s=0.0, **more)


def by_memory(memory: Memory, text: str) -> dict[tuple[str, str], frozenset[str]] | None:
    view = memory.view()
    holder = holder_of(text, view)
    return None if holder is None else {k: v for k, v in decide(holder.principal, SCOPES, view).items() if v}


def by_database(text: str) -> dict[tuple[str, str], frozenset[str]] | None:
    token = tokens.find_token(text)
    return None if token is None else {k: v for k, v in allowed_actions(token.user, SCOPES).items() if v}


@pytest.mark.parametrize("seed", range(4))
def test_memory_decides_as_the_database_after_every_change(seed: int, settings: Any) -> None:
    settings.ANONYMOUS_ACCESS = True
    world, memory, seen = World(seed), strict(), set()
    for step in range(STEPS):
        what = world.change() if step else "start"
        assert visitors_actions(SCOPES, memory.view()) == visitors_actions(SCOPES, FromDatabase()), (seed, step, what)
        for text in world.texts:
            expected = by_database(text)
            assert by_memory(memory, text) == expected, (seed, step, what)
            assert by_memory(memory, text) == expected, (seed, step, what, "kept")
            seen.add(str(expected))
    assert len(seen) > 3, "the worlds must differ, or nothing was compared"


@pytest.fixture
def anna() -> SimpleNamespace:
    """Return anna, creator of team shop, and her token; what she can do is in memory."""
    Registry.objects.create(name="managed", endpoint="http://localhost:1", is_managed=True)
    team = Team.objects.create(slug="shop", name="Shop")
    user = User.objects.create(username="anna")
    role = Role.objects.get_or_create(slug="creator", defaults={"name": "c", "verbs": sorted(BUILTIN_ROLES["creator"])})
    grant = RoleGrant.objects.create(user=user, role=role[0], team=team)
    row, text = tokens.create_token(user, kind="pat", name="t")
    found = SimpleNamespace(team=team, user=user, grant=grant, token=row, text=text, memory=strict())
    assert by_memory(found.memory, text)
    return found


def test_what_is_kept_costs_one_query(anna: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert by_memory(anna.memory, anna.text)
    anna.user.last_login = timezone.now()
    anna.user.save()  # changes no right
    tokens.note_use(anna.token, "192.0.2.1")
    with django_assert_num_queries(1):
        assert by_memory(anna.memory, anna.text)
    Repository.objects.create(registry=Registry.objects.get(), team=anna.team, name="shop/new", family="shop/new")
    with django_assert_num_queries(1):  # a push to a new repository concerns nothing else
        assert by_memory(anna.memory, anna.text)
    anna.grant.delete()
    with django_assert_num_queries(2):
        assert by_memory(anna.memory, anna.text) == {}


def test_taken_right_stops_the_next_token_and_old_ones_die_within_five_minutes(anna: Any) -> None:
    """The promise of docs/explanation/revocation.md, at the endpoint."""
    who = Person(anna.user, anna.text)
    assert ask(who, "repository:shop/api:push") == {"shop/api": ["push"]}
    _, answer, _ = call("scope=repository:shop/api:push", basic=("anna", anna.text))
    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert claims["exp"] - time.time() <= 300
    anna.grant.delete()
    assert within_a_second(lambda: ask(who, "repository:shop/api:push") == {})
    RoleGrant.objects.create(user=anna.user, role=anna.grant.role, team=anna.team)
    assert ask(who, "repository:shop/api:push") == {"shop/api": ["push"]}, "a new right works at once"
    tokens.revoke(anna.token)
    assert within_a_second(lambda: call(basic=("anna", anna.text))[0] == 401)


def within_a_second(is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        if is_so():
            return True
    return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the clock by which memories know the age of a look. It stands, however slow the machine is."""
    stands = SimpleNamespace(now=time.monotonic())
    monkeypatch.setattr(memory_module, "time", SimpleNamespace(monotonic=lambda: stands.now))
    return stands


def test_one_look_serves_requests_for_a_moment(anna: Any, clock: Any, django_assert_num_queries: Any) -> None:
    memory = Memory(look_every_s=0.3)
    assert by_memory(memory, anna.text)
    with django_assert_num_queries(0):
        assert by_memory(memory, anna.text)
    anna.grant.delete()
    clock.now += 0.29
    with django_assert_num_queries(0):
        assert by_memory(memory, anna.text)
    assert memory.view(is_fresh=True).is_fresh
    assert by_memory(memory, anna.text) == {}
    clock.now += 0.31
    with django_assert_num_queries(1):
        assert by_memory(memory, anna.text) == {}


def test_while_one_thread_looks_others_go_on_but_not_for_long(
    anna: Any, clock: Any, django_assert_num_queries: Any
) -> None:
    assert by_memory(anna.memory, anna.text)
    with anna.memory._looking, django_assert_num_queries(0):
        clock.now += memory_module.LOOK_WITHIN_S - 0.01
        assert not anna.memory.view().is_fresh
    with anna.memory._looking:
        clock.now += 0.02
        assert anna.memory.view().is_fresh


def test_without_the_database_nothing_that_is_kept_is_used(anna: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(last: str) -> changes.Look:
        raise OperationalError("away")

    who = Person(anna.user, anna.text)
    assert ask(who, "repository:shop/api:push")
    time.sleep(memory_module.LOOK_EVERY_S)
    with monkeypatch.context() as patch:
        patch.setattr(changes, "look", away)
        status, answer, headers = call("scope=repository:shop/api:push", basic=("anna", anna.text))
    assert (status, answer["error"], headers["Retry-After"]) == (503, "unavailable", "2")
    assert ask(who, "repository:shop/api:push")


def test_grant_ends_at_its_moment_without_any_change(anna: Any) -> None:
    RoleGrant.objects.update(expires_at=timezone.now() + timedelta(seconds=1))
    ends_at = RoleGrant.objects.get().expires_at
    assert ends_at is not None
    until = ends_at.timestamp()
    count = PermissionChange.objects.count()
    while (view := anna.memory.view()).now < until:
        holder = holder_of(anna.text, view)
        assert holder is not None
        assert any(decide(holder.principal, SCOPES, view).values())
    assert by_memory(anna.memory, anna.text) == {}
    assert PermissionChange.objects.count() == count


def test_token_ends_at_its_moment(anna: Any) -> None:
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(seconds=1))
    ends_at = ApiToken.objects.get().expires_at
    assert ends_at is not None
    while (view := anna.memory.view()).now < ends_at.timestamp():
        assert holder_of(anna.text, view) is not None
    assert by_memory(anna.memory, anna.text) is None


@pytest.fixture
def other() -> Iterator[Any]:
    """A second connection of the application, for transactions that stay open."""
    given = connection.get_connection_params()
    link = psycopg2.connect(**{k: v for k, v in given.items() if k not in {"cursor_factory", "context"}})
    yield link
    link.close()


def test_change_that_commits_late_is_seen(anna: Any, other: Any) -> None:
    with other.cursor() as cursor:
        cursor.execute("DELETE FROM lifecycle_rolegrant WHERE id = %s", [anna.grant.pk])
        # A later transaction is committed and seen first.
        Role.objects.filter(slug="viewer").update(verbs=["image.view", "audit.read"])
        assert by_memory(anna.memory, anna.text)
        other.commit()
    assert by_memory(anna.memory, anna.text) == {}


def test_what_was_read_before_a_change_is_not_kept_after_it(anna: Any) -> None:
    memory = strict()
    slow = memory.view()
    read = slow.grants  # what a slow thread reads now and keeps later
    with transaction.atomic():
        kept_later = FromDatabase().grants([anna.user.pk])
        anna.grant.delete()
    assert by_memory(memory, anna.text) == {}
    memory.keep(("grants", anna.user.pk), kept_later[anna.user.pk], ("g",), slow._generation)
    assert by_memory(memory, anna.text) == {}
    assert list(read([anna.user.pk])[anna.user.pk]) == []


def test_two_first_looks_keep_nothing_stale(anna: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = strict()
    real = changes.look

    def with_another_first(last: str) -> changes.Look:
        monkeypatch.setattr(changes, "look", real)
        assert by_memory(memory, anna.text)  # another thread, first too, keeps what it has read
        anna.grant.delete()
        return real(last)

    monkeypatch.setattr(changes, "look", with_another_first)
    memory.view()
    assert by_memory(memory, anna.text) == {}


def test_nothing_is_kept_in_a_transaction(anna: Any) -> None:
    with transaction.atomic():
        anna.grant.delete()
        assert by_memory(anna.memory, anna.text) == {}
        transaction.set_rollback(True)
    assert by_memory(anna.memory, anna.text)


def test_after_a_restart_of_the_database_everything_is_read_again(anna: Any, services: Any) -> None:
    assert len(anna.memory)
    services.end_connections()
    assert by_memory(anna.memory, anna.text)
    view = anna.memory.view()
    assert view._generation > 0


def test_who_has_not_looked_for_long_starts_anew(anna: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    anna.memory.view()
    assert len(anna.memory)
    anna.grant.delete()
    PermissionChange.objects.all().delete()
    monkeypatch.setattr(changes, "LOOK_WITHIN_S", -1.0)
    assert by_memory(anna.memory, anna.text) == {}


def test_memory_is_bounded(anna: Any) -> None:
    small = strict(entries_max=5)
    for number in range(40):
        small.view().places([f"shop/{number}"])
        assert len(small) <= 5
    assert len(small._needed_by) == 5


def test_old_changes_are_deleted(anna: Any) -> None:
    PermissionChange.objects.update(at=timezone.now() - changes.KEEP - timedelta(minutes=1))
    anna.grant.delete()
    assert changes.forget_old() > 0
    assert list(PermissionChange.objects.values_list("kind", "key")) == [("g", str(anna.user.pk))]


def test_list_of_repositories_is_for_who_audits_every_team(anna: Any) -> None:
    auditor = Role.objects.create(slug="inspector", name="i", verbs=["audit.read"])
    RoleGrant.objects.create(user=anna.user, role=auditor, team=anna.team)
    catalog = ("registry", "catalog")
    assert (by_memory(anna.memory, anna.text) or {})[catalog] == {"*"}
    other = Team.objects.create(slug="base", name="Base")
    assert catalog not in (by_memory(anna.memory, anna.text) or {})
    grant = RoleGrant.objects.create(user=anna.user, role=auditor, team=other, repository_pattern="base/*")
    assert catalog not in (by_memory(anna.memory, anna.text) or {})
    RoleGrant.objects.filter(pk=grant.pk).update(repository_pattern="*")
    assert catalog in (by_memory(anna.memory, anna.text) or {})


def test_last_uses_are_written_together_and_once_a_minute(anna: Any) -> None:
    uses, view = Uses(), anna.memory.view()
    holder = holder_of(anna.text, view)
    assert holder is not None
    for _ in range(5):
        uses.note(holder, "192.0.2.9", view.now)
    thread = threading.Thread(target=uses.write)  # as the timer does
    thread.start()
    thread.join()
    row = ApiToken.objects.get()
    assert row.last_used_at is not None
    assert (row.last_used_ip, row.last_used_at.timestamp()) == ("192.0.2.9", pytest.approx(view.now, abs=0.01))
    uses.note(holder, "192.0.2.10", view.now + 59)
    assert uses._waiting == {}
    uses.note(holder, "192.0.2.10", view.now + 61)
    assert list(uses._waiting) == [row.pk]
    uses._waiting.clear()
