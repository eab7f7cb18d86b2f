"""Comparing an access file with what is there, and applying it.

Each change goes through the one service of its action, with its checks and its audit event, in one transaction for the
whole file. The plan is made again inside that transaction, from the state whose version the caller names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction

from accounts.models import Role, Team, User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import AccessFileApplied
from lifecycle.authority import services as authority
from lifecycle.authority.access import team_for
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import teams_visible_to
from lifecycle.authority.rights import is_above_grants
from lifecycle.core.errors import LifecycleError, NotFound, StaleVersion
from lifecycle.declared.document import BadFile
from lifecycle.declared.state import (
    environment_state,
    etag_of,
    grant_state,
    grants_of_team,
    live_robots,
    roles,
)
from lifecycle.environments.models import Environment
from lifecycle.promotion.environments import change_environment, remove_environment

ADD: Final = "add"
CHANGE: Final = "change"
REMOVE: Final = "remove"
# The order in which changes are applied: what others need first, and what others keep last.
_ORDER: Final = (
    "role", "team", "environment", "path", "robot", "grant", "-grant", "-robot", "-environment", "-role",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the file and what is there."""

    act: str  # add, change or remove
    kind: str  # role, team, environment, path, robot or grant
    team: str  # short name; "" for a role
    what: str  # in words: "kim as approver of * in production"
    before: Any  # as the file would have it; None for what is added
    after: Any  # None for what is removed
    run: Callable[[User], object]

    @property
    def rank(self) -> int:
        """Its place in the order of changes."""
        return _ORDER.index(f"-{self.kind}" if self.act == REMOVE else self.kind)


@dataclass(frozen=True, slots=True)
class Plan:
    """The differences, in the order in which they are applied, and the version of what was compared."""

    changes: tuple[Change, ...]
    etag: str

    @property
    def removals(self) -> int:
        """How many changes remove something: they need a word of their own."""
        return sum(change.act == REMOVE for change in self.changes)


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done, and what was kept because removing was not asked for."""

    done: tuple[Change, ...]
    kept: tuple[Change, ...]
    etag: str


def compare(document: Mapping[str, Any], *, actor: User) -> Plan:
    """Return what applying the file would do. Changes nothing.

    Raises BadFile for a name that the file itself cannot have, or NotFound for a team that `actor` cannot see: only an
    admin makes teams.
    """
    changes: list[Change] = []
    if "roles" in document:
        changes += _roles(document["roles"])
    for team in document.get("teams", ()):
        changes += _team(team, actor)
    return Plan(tuple(sorted(changes, key=lambda change: change.rank)), etag_of(dict(document)))


@transaction.atomic
def apply(document: Mapping[str, Any], *, actor: User, etag: str, with_removals: bool = False) -> Applied:
    """Make what is there as the file says, all or nothing; without `with_removals`, nothing is removed.

    `etag` is the version that was compared: StaleVersion if something changed since. Each change needs its own right.
    Raises NotFound, NotPermitted, Malformed or Conflict of the change that failed, with its words before the message.
    """
    _lock(document)
    plan = compare(document, actor=actor)
    if etag != plan.etag:
        raise StaleVersion("Something changed since the file was compared. Compare it again.")
    done, kept = [], []
    for change in plan.changes:
        if change.act == REMOVE and not with_removals:
            kept.append(change)
            continue
        try:
            change.run(actor)
        except LifecycleError as error:
            error.message = f"{change.what}: {error.message}"
            error.args = (error.message,)
            raise
        done.append(change)
    if done:
        details = AccessFileApplied(changes=len(done), removals=sum(change.act == REMOVE for change in done))
        audit.record(Action.ACCESS_FILE_APPLIED, actor=actor, details=details)
    return Applied(tuple(done), tuple(kept), etag_of(dict(document)))


def _lock(document: Mapping[str, Any]) -> None:
    """Let nothing that the file names change until the end of the transaction. A count would lock no row."""
    teams = Team.objects.filter(slug__in=[team["name"] for team in document.get("teams", ())])
    list(teams.select_for_update().order_by("pk").values_list("pk"))
    if "roles" in document:  # what holds a role is not kept from being read or granted meanwhile
        list(Role.objects.select_for_update(no_key=True).order_by("pk").values_list("pk"))


def _roles(wanted: Sequence[Mapping[str, Any]]) -> list[Change]:
    present = {row["name"]: row for row in roles()}
    builtin = set(Role.objects.filter(is_builtin=True).values_list("slug", flat=True))
    changes = []
    for row in wanted:
        if row["name"] in builtin:
            raise BadFile(f"roles: {row['name']} is built in, and never in a file.")
        title, verbs = row.get("title", ""), sorted(set(row["verbs"]))
        before = present.pop(row["name"], None)
        after = {"name": row["name"], "title": title or (before or row).get("title", row["name"]), "verbs": verbs}
        if before is None:
            changes.append(Change(ADD, "role", "", f"role {row['name']}", None, after, _adds_role(after)))
        elif before != after:
            changes.append(Change(CHANGE, "role", "", f"role {row['name']}", before, after, _changes_role(after)))
    changes += [
        Change(REMOVE, "role", "", f"role {name}", row, None, _removes_role(name)) for name, row in present.items()
    ]
    return changes


def _adds_role(row: Mapping[str, Any]) -> Callable[[User], object]:
    return lambda actor: authority.create_role(actor=actor, slug=row["name"], name=row["title"], verbs=row["verbs"])


def _changes_role(row: Mapping[str, Any]) -> Callable[[User], object]:
    return lambda actor: authority.change_role(row["name"], actor=actor, name=row["title"], verbs=row["verbs"])


def _removes_role(name: str) -> Callable[[User], object]:
    return lambda actor: authority.delete_role(name, actor=actor)


def _team(wanted: Mapping[str, Any], actor: User) -> list[Change]:
    name = wanted["name"]
    team = teams_visible_to(actor).filter(slug=name).first()
    if team is None and not is_above_grants(actor):
        raise NotFound(f"Team {name} not found, or you don't have access. Only admins create teams.")
    changes = []
    title = wanted.get("title")
    if team is None:
        after = {"name": name, "title": title or name}
        changes.append(Change(ADD, "team", name, f"team {name}", None, after, _adds_team(name, title or name)))
    elif title is not None and title != team.name:
        before, after = {"title": team.name}, {"title": title}
        changes.append(Change(CHANGE, "team", name, f"team {name}", before, after, _renames_team(name, title)))
    if "environments" in wanted:
        changes += _environments(name, team, wanted["environments"])
    if "robots" in wanted:
        changes += _robots(name, team, wanted["robots"])
    if "grants" in wanted:
        changes += _grants(name, team, wanted["grants"])
    return changes


def _adds_team(slug: str, name: str) -> Callable[[User], object]:
    def run(actor: User) -> None:
        authority.create_team(actor=actor, slug=slug, name=name)

    return run


def _renames_team(slug: str, name: str) -> Callable[[User], object]:
    return lambda actor: authority.rename_team(team_for(actor, slug).pk, actor=actor, name=name)


def _environments(slug: str, team: Team | None, wanted: Sequence[Mapping[str, Any]]) -> list[Change]:
    rows = list(Environment.objects.filter(team=team).order_by("position")) if team is not None else []
    present = {row.slug: row for row in rows}
    changes = []
    for row in wanted:
        found = present.get(row["name"])
        what = f"environment {slug}/{row['name']}"
        if found is None:
            changes.append(Change(ADD, "environment", slug, what, None, dict(row), _adds_environment(slug, row)))
            continue
        before = environment_state(found)
        after = before | {"archived": before.get("archived", False)} | dict(row)
        if after != before | {"archived": before.get("archived", False)}:
            changes.append(Change(CHANGE, "environment", slug, what, before, after, _changes_environment(slug, row)))
    names = [row["name"] for row in wanted]
    kept = [row.slug for row in rows if row.slug not in set(names)]
    path = [row.slug for row in rows if row.slug in set(names)]
    if [*path, *(name for name in names if name not in present)] != names:  # new ones are added at the end
        now = [row.slug for row in rows]
        changes.append(
            Change(CHANGE, "path", slug, f"promotion path of {slug}", now, [*names, *kept], _orders_path(slug, names))
        )
    changes += [
        Change(REMOVE, "environment", slug, f"environment {slug}/{name}", environment_state(present[name]), None,
               _removes_environment(slug, name))
        for name in kept
    ]  # fmt: skip
    return changes


def _environment(actor: User, team: str, name: str) -> Environment:
    row = Environment.objects.filter(team=team_for(actor, team), slug=name).first()
    if row is None:
        raise NotFound(f"Team {team} has no environment {name}.")
    return row


def _adds_environment(team: str, row: Mapping[str, Any]) -> Callable[[User], object]:
    def run(actor: User) -> None:
        made = authority.create_environment(
            team_for(actor, team), actor=actor, slug=row["name"], name=row.get("title", row["name"]),
            prefix=row["prefix"], is_production=row.get("production"),
        )  # fmt: skip
        if row.get("archived"):
            change_environment(made.pk, actor=actor, is_archived=True)

    return run


def _changes_environment(team: str, row: Mapping[str, Any]) -> Callable[[User], object]:
    fields = {"title": "name", "prefix": "prefix", "production": "is_production", "archived": "is_archived"}
    values = {fields[name]: value for name, value in row.items() if name in fields}
    return lambda actor: change_environment(_environment(actor, team, row["name"]).pk, actor=actor, **values)


def _orders_path(team: str, names: Sequence[str]) -> Callable[[User], object]:
    def run(actor: User) -> None:
        for position, name in enumerate(names):
            change_environment(_environment(actor, team, name).pk, actor=actor, position=position)

    return run


def _removes_environment(team: str, name: str) -> Callable[[User], object]:
    return lambda actor: remove_environment(_environment(actor, team, name).pk, actor=actor)


def _robots(slug: str, team: Team | None, wanted: Sequence[Mapping[str, Any]]) -> list[Change]:
    present = {row.name: row.pk for row in live_robots(team)} if team is not None else {}
    changes = []
    for row in wanted:
        if present.pop(row["name"], None) is None:
            what = f"robot {slug}+{row['name']}"
            changes.append(Change(ADD, "robot", slug, what, None, dict(row), _adds_robot(slug, row["name"])))
    changes += [
        Change(REMOVE, "robot", slug, f"robot {slug}+{name}", {"name": name}, None, _removes_robot(pk))
        for name, pk in present.items()
    ]
    return changes


def _adds_robot(team: str, name: str) -> Callable[[User], object]:
    return lambda actor: authority.create_robot(team_for(actor, team).pk, actor=actor, name=name)


def _removes_robot(pk: int) -> Callable[[User], object]:
    return lambda actor: authority.retire_robot(pk, actor=actor)


_Key = tuple[str, str, str, str]  # holder, role, pattern, environment


def _key(row: Mapping[str, Any]) -> _Key:
    holder = f"robot {row['robot']}" if "robot" in row else row["user"]
    return holder, row["role"], row.get("repositories", "*"), row.get("environment", "")


def _words(key: _Key) -> str:
    holder, role, pattern, environment = key
    return f"{holder} as {role} of {pattern}" + (f" in {environment}" if environment else "")


def _grants(slug: str, team: Team | None, wanted: Sequence[Mapping[str, Any]]) -> list[Change]:
    rows = grants_of_team(team) if team is not None else []
    present = {_key(grant_state(row)): row for row in rows}
    changes, seen = [], set()
    for row in wanted:
        key = _key(row)
        if key in seen:
            raise BadFile(f"teams: the grant {_words(key)} of team {slug} is there twice.")
        seen.add(key)
        found, until = present.pop(key, None), row.get("until")
        what = f"{slug}: {_words(key)}"
        after = {name: value for name, value in row.items() if name != "until"}
        after |= {"until": until.strftime("%Y-%m-%dT%H:%M:%SZ")} if until is not None else {}
        if found is None:
            changes.append(Change(ADD, "grant", slug, what, None, after, _grants_role(slug, row)))
        elif grant_state(found).get("until") != after.get("until"):
            changes.append(Change(CHANGE, "grant", slug, what, grant_state(found), after, _grants_role(slug, row)))
    changes += [
        Change(REMOVE, "grant", slug, f"{slug}: {_words(key)}", grant_state(row), None, _revokes(row))
        for key, row in present.items()
    ]
    return changes


def _grants_role(team: str, row: Mapping[str, Any]) -> Callable[[User], object]:
    def run(actor: User) -> None:
        row_of = team_for(actor, team)
        scope = {
            "role": row["role"],
            "repository_pattern": row.get("repositories", "*"),
            "environment": row.get("environment", ""),
            "expires_at": row.get("until"),
        }
        if "robot" in row:
            robot = live_robots(row_of).filter(name=row["robot"]).first()
            if robot is None:
                raise NotFound(f"Team {team} has no robot {row['robot']}.")
            authority.grant_robot(robot.pk, actor=actor, **scope)
        else:
            authority.add_member(row_of.pk, actor=actor, username=row["user"], **scope)

    return run


def _revokes(row: RoleGrant) -> Callable[[User], object]:
    return lambda actor: authority.revoke_grant(row.pk, actor=actor)
