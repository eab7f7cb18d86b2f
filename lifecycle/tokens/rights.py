"""The registry actions that an account is allowed, decided from facts.

`allowed_actions` reads the facts in the database at each call. The token endpoint decides by the same function from
what it keeps in memory (`memory.py`); a test compares the two over random changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from django.conf import settings
from django.db import connection

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.covers import OPEN
from lifecycle.authority.grants import LIVE_SQL
from lifecycle.authority.rights import makers_of, why_suspended
from lifecycle.core.patterns import matches
from lifecycle.environments.models import Environment
from lifecycle.oci.scopes import Scope
from lifecycle.registry.models import Repository

_VERB_OF: Final[Mapping[str, str]] = {
    "pull": Verb.IMAGE_VIEW.value,
    "push": Verb.IMAGE_CREATE.value,
    "delete": Verb.IMAGE_DELETE.value,
}

# A repository with withdrawn images: nobody pushes or deletes there but we.
_VERB_OF_VAULT: Final[Mapping[str, str]] = {"pull": Verb.IMAGE_QUARANTINE.value}
_NOTHING: Final[frozenset[str]] = frozenset()
_ONLY_PULL: Final = frozenset({"pull"})


class Grant(NamedTuple):
    """One grant of an account."""

    team_id: int
    team: str
    pattern: str
    environment_id: int | None  # None: not limited to one environment
    verbs: frozenset[str]
    ends_at: float | None  # seconds since 1970, by the database's clock


class Place(NamedTuple):
    """What a repository is, as far as rights go."""

    family: str
    team_id: int
    environment_id: int | None
    visibility: str  # private, internal or public
    is_archived: bool


class Target(NamedTuple):
    """An environment, for repositories below its prefix that do not exist yet."""

    team: str
    team_id: int
    environment_id: int


class Facts(Protocol):
    """What decisions are made from."""

    now: float  # seconds since 1970, by the database's clock

    def grants(self, user_ids: Sequence[int]) -> Mapping[int, Sequence[Grant]]:
        """Return the grants of each account that started; some may have ended."""

    def places(self, names: Collection[str]) -> Mapping[str, Place]:
        """Return the repositories of the managed registry that exist, by name."""

    def targets(self) -> Mapping[str, Sequence[Target]]:
        """Return the environments by prefix."""

    def team_ids(self) -> frozenset[int]:
        """Return the ids of all teams."""


class Principal(NamedTuple):
    """An account that may act now."""

    user_ids: tuple[int, ...]  # itself and, of a robot, those that bound it
    is_admin: bool


def principal_of(user: User) -> Principal | None:
    """Return what bounds `user`, from the database; None for an account that is inactive or suspended."""
    if not user.is_active or why_suspended(user):
        return None
    # The system user is allowed everything, so it bounds nothing.
    makers = [maker.pk for maker in makers_of(user) if maker.kind != User.Kind.SYSTEM]
    return Principal((user.pk, *makers), user.is_superuser)


def allowed_actions(user: User, requested: Sequence[Scope]) -> dict[tuple[str, str], frozenset[str]]:
    """Return the allowed actions of `user` on each resource in `requested`, by (kind, name), by the database now.

    An inactive or suspended user is allowed nothing.
    """
    principal = principal_of(user)
    return {} if principal is None else decide(principal, requested, FromDatabase())


def decide(principal: Principal, requested: Sequence[Scope], facts: Facts) -> dict[tuple[str, str], frozenset[str]]:
    """Return the allowed actions on each resource in `requested`, by (kind, name).

    The team of a repository that does not exist yet is the first part of its name. Below the target prefix of an
    environment, users who can see the family can pull. No one can push or delete there, because only approved
    promotions add images. Withdrawn images are pulled with image.quarantine. The list of all repositories is for
    admins, and for who has audit.read on every team. A robot is allowed what its makers are allowed too. Every account
    pulls from internal and public repositories, also without a grant, and nobody pushes to archived ones.
    """
    names = [scope.name for scope in requested if scope.kind == "repository"]
    held: list[list[Grant]] | None = None
    allowed: dict[tuple[str, str], frozenset[str]] = {}
    if names or not principal.is_admin:
        by_user = facts.grants(principal.user_ids)
        held = [
            [grant for grant in by_user.get(pk, ()) if grant.ends_at is None or grant.ends_at > facts.now]
            for pk in principal.user_ids
        ]
        if not all(held):  # one of them has no grant at all
            held = None
    for scope in requested:
        if scope.kind == "registry" and (principal.is_admin or (held and _audits_all(held, facts.team_ids()))):
            allowed[(scope.kind, scope.name)] = frozenset({"*"})
    if names:
        places = facts.places(names)
        targets = facts.targets() if held else {}
        for name in names:
            place = places.get(name)
            actions = _on(name, held, place, targets) if held else _NOTHING
            allowed[("repository", name)] = _opened(actions, name, place)
    return allowed


def visitors_actions(requested: Sequence[Scope], facts: Facts) -> dict[tuple[str, str], frozenset[str]]:
    """Return what is allowed without an account: to pull public repositories, where ANONYMOUS_ACCESS is on."""
    names = [scope.name for scope in requested if scope.kind == "repository"]
    if not settings.ANONYMOUS_ACCESS or not names:
        return {}
    return {
        ("repository", name): _ONLY_PULL
        for name, place in facts.places(names).items()
        if place.visibility == Repository.Visibility.PUBLIC and not _is_vault(name, place)
    }


def _opened(actions: frozenset[str], name: str, place: Place | None) -> frozenset[str]:
    """Return the actions on a repository, with what its visibility adds, and without what its archive takes."""
    if place is None:
        return actions
    if place.visibility in OPEN and not _is_vault(name, place):
        actions |= _ONLY_PULL
    return actions - {"push"} if place.is_archived else actions


def _is_vault(name: str, place: Place) -> bool:
    return place.environment_id is None and place.family != name  # as Repository.is_vault


def _on(
    name: str, held: list[list[Grant]], place: Place | None, targets: Mapping[str, Sequence[Target]]
) -> frozenset[str]:
    prefix, _, rest = name.partition("/")
    reserved = targets.get(prefix)
    if place is not None:
        verbs = _VERB_OF_VAULT if _is_vault(name, place) else _VERB_OF
        actions = _common(held, place.team_id, place.family, place.environment_id, verbs)
        return actions & _ONLY_PULL if reserved or place.environment_id is not None else actions
    if reserved:
        slug = rest.partition("/")[0]
        target = next((row for row in reserved if row.team == slug), None)
        return _common(held, target.team_id, rest, target.environment_id, _VERB_OF) & _ONLY_PULL if target else _NOTHING
    return _common(held, prefix, name, None, _VERB_OF)


def _common(
    held: list[list[Grant]], team: int | str, family: str, environment_id: int | None, verb_of: Mapping[str, str]
) -> frozenset[str]:
    """Return the actions that every one of the accounts has."""
    each = [_actions(own, team, family, environment_id, verb_of) for own in held]
    return each[0] if len(each) == 1 else frozenset.intersection(*each)


def _actions(
    grants: Iterable[Grant], team: int | str, family: str, environment_id: int | None, verb_of: Mapping[str, str]
) -> frozenset[str]:
    verbs: set[str] = set()
    for grant in grants:
        applies = grant.environment_id is None or grant.environment_id == environment_id
        if applies and team in {grant.team_id, grant.team} and matches(grant.pattern, family):
            verbs |= grant.verbs
    return frozenset([action for action, verb in verb_of.items() if verb in verbs])


def _audits_all(held: list[list[Grant]], team_ids: frozenset[int]) -> bool:
    """Return whether every one of the accounts has audit.read on every team as a whole."""
    return bool(team_ids) and all(
        team_ids
        <= {
            grant.team_id
            for grant in own
            if grant.pattern == "*" and grant.environment_id is None and Verb.AUDIT_READ.value in grant.verbs
        }
        for own in held
    )


_GRANTS: Final = f"""
SELECT g.user_id, g.team_id, team.slug, g.repository_pattern, g.environment_id, role.verbs,
    extract(epoch from g.expires_at)::float8
FROM lifecycle_heldgrant g
JOIN accounts_role role ON role.id = g.role_id
JOIN accounts_team team ON team.id = g.team_id
WHERE g.user_id = ANY(%s) AND {LIVE_SQL}
"""  # noqa: S608 -- the only inserted text is a constant


class FromDatabase:
    """Facts as the database has them, read when they are asked for."""

    def __init__(self) -> None:
        """Read the database's clock when a grant is judged: the query of the grants has done so."""
        self.now = 0.0

    def grants(self, user_ids: Sequence[int]) -> dict[int, list[Grant]]:
        """Return the live grants of each account."""
        found: dict[int, list[Grant]] = {pk: [] for pk in user_ids}
        with connection.cursor() as cursor:
            cursor.execute(_GRANTS, [list(user_ids)])
            for user_id, team_id, team, pattern, environment_id, verbs, ends_at in cursor.fetchall():
                found[user_id].append(Grant(team_id, team, pattern, environment_id, frozenset(verbs), ends_at))
        return found

    def places(self, names: Collection[str]) -> dict[str, Place]:
        """Return the repositories of the managed registry that exist, by name."""
        rows = Repository.objects.filter(registry__is_managed=True, name__in=list(names))
        found = rows.values_list("name", "family", "team_id", "environment_id", "visibility", "archived_at")
        return {
            name: Place(family, team_id, environment_id, visibility, archived_at is not None)
            for name, family, team_id, environment_id, visibility, archived_at in found
        }

    def targets(self) -> dict[str, list[Target]]:
        """Return the environments by prefix."""
        found: dict[str, list[Target]] = {}
        rows = Environment.objects.order_by("pk").values_list("prefix", "team__slug", "team_id", "pk")
        for prefix, team, team_id, environment_id in rows:
            found.setdefault(prefix, []).append(Target(team, team_id, environment_id))
        return found

    def team_ids(self) -> frozenset[int]:
        """Return the ids of all teams."""
        return frozenset(Team.objects.values_list("pk", flat=True))
