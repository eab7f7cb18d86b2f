"""The registry actions that a user is allowed, according to the grants in the database now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from django.db import connection

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.grants import LIVE_SQL
from lifecycle.authority.rights import makers_of, why_suspended
from lifecycle.core.patterns import matches
from lifecycle.oci.scopes import Scope

_VERB_OF: Final[Mapping[str, Verb]] = {
    "pull": Verb.IMAGE_VIEW,
    "push": Verb.IMAGE_CREATE,
    "delete": Verb.IMAGE_DELETE,
}

# A repository with withdrawn images: nobody pushes or deletes there but we.
_VERB_OF_VAULT: Final[Mapping[str, Verb]] = {"pull": Verb.IMAGE_QUARANTINE}


def allowed_actions(user: User, requested: Sequence[Scope]) -> dict[tuple[str, str], frozenset[str]]:
    """Return the allowed actions of `user` on each resource in `requested`, by (kind, name). Uses one query for all.

    The team of a repository that does not exist yet is the first part of its name. Below the target prefix of an
    environment, users who can see the family can pull. No one can push or delete there, because only approved
    promotions add images. Withdrawn images are pulled with image.quarantine. An inactive user is allowed nothing.
    """
    if not user.is_active or why_suspended(user):
        return {}
    allowed: dict[tuple[str, str], frozenset[str]] = {}
    for scope in requested:
        if scope.kind == "registry" and user.is_superuser:
            allowed[(scope.kind, scope.name)] = frozenset({"*"})
    names = {scope.name for scope in requested if scope.kind == "repository"}
    if names:
        for name, actions in _allowed_on(user, names).items():
            allowed[("repository", name)] = actions
    return allowed


# One query returns all data for the check, because every pull and push waits for it. Three ORM queries took longer than
# the signature and everything else together.
_FACTS: Final = f"""
SELECT
    (SELECT coalesce(jsonb_agg(jsonb_build_array(r.name, r.family, r.team_id, r.environment_id)), '[]')
     FROM lifecycle_repository r JOIN lifecycle_registry registry ON registry.id = r.registry_id
     WHERE registry.is_managed AND r.name = ANY(%(names)s)),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(e.prefix, team.slug, e.team_id, e.id)), '[]')
     FROM lifecycle_environment e JOIN accounts_team team ON team.id = e.team_id
     WHERE e.prefix = ANY(%(prefixes)s)),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(
                g.team_id, team.slug, g.repository_pattern, g.environment_id, to_jsonb(role.verbs), g.user_id)), '[]')
     FROM lifecycle_rolegrant g
     JOIN accounts_role role ON role.id = g.role_id
     JOIN accounts_team team ON team.id = g.team_id
     WHERE g.user_id = ANY(%(users)s) AND {LIVE_SQL})
"""  # noqa: S608 -- the only inserted text is a constant


class _Grant(NamedTuple):
    """One live grant of the user."""

    team_id: int
    team: str
    pattern: str
    environment_id: int | None  # None: not limited to one environment
    verbs: list[str]
    user_id: int


def _allowed_on(user: User, names: set[str]) -> dict[str, frozenset[str]]:
    # A robot is allowed what its makers are allowed too. The system user is allowed everything, so it bounds nothing.
    users = [user.pk, *(maker.pk for maker in makers_of(user) if maker.kind != User.Kind.SYSTEM)]
    prefixes = {part for name in names for part in name.split("/")[:2]}
    with connection.cursor() as cursor:
        cursor.execute(_FACTS, {"names": sorted(names), "prefixes": sorted(prefixes), "users": users})
        (repositories, environments, grant_rows) = map(_rows, cursor.fetchone() or ("[]", "[]", "[]"))
    rows = {name: (family, team_id, environment_id) for name, family, team_id, environment_id in repositories}
    grants = {pk: [grant for grant in map(_Grant._make, grant_rows) if grant.user_id == pk] for pk in users}
    allowed: dict[str, frozenset[str]] = {}
    for name in names:
        prefix, _, rest = name.partition("/")
        reserved = [row for row in environments if row[0] == prefix]
        in_environment = bool(reserved)
        if name in rows:
            family, team_id, environment_id = rows[name]
            is_vault = environment_id is None and family != name  # as Repository.is_vault
            verbs = _VERB_OF_VAULT if is_vault else _VERB_OF
            actions = _common(grants, team_id, family, environment_id, verbs)
            in_environment = in_environment or environment_id is not None
        elif reserved:
            slug = rest.partition("/")[0]
            matching = [(team_id, pk) for _, team, team_id, pk in reserved if team == slug]
            actions = _common(grants, matching[0][0], rest, matching[0][1]) if matching else frozenset()
        else:
            actions = _common(grants, prefix, name, None)
        allowed[name] = actions & {"pull"} if in_environment else actions
    return allowed


def _rows(value: Any) -> list[list[Any]]:
    # psycopg2 parses jsonb itself, unless Django has disabled that for its JSON fields.
    rows: list[list[Any]] = json.loads(value) if isinstance(value, str) else value
    return rows


def _common(
    grants: Mapping[int, list[_Grant]],
    team: int | str,
    family: str,
    environment_id: int | None,
    verb_of: Mapping[str, Verb] = _VERB_OF,
) -> frozenset[str]:
    """Return the actions that every one of the users has."""
    each = [_actions(own, team, family, environment_id, verb_of) for own in grants.values()]
    return frozenset.intersection(*each)


def _actions(
    grants: Iterable[_Grant], team: int | str, family: str, environment_id: int | None, verb_of: Mapping[str, Verb]
) -> frozenset[str]:
    verbs: set[str] = set()
    for grant in grants:
        applies = grant.environment_id is None or grant.environment_id == environment_id
        if team in {grant.team_id, grant.team} and applies and matches(grant.pattern, family):
            verbs.update(grant.verbs)
    return frozenset(action for action, verb in verb_of.items() if verb.value in verbs)
