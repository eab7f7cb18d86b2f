"""Which of the actions a registry client asks for its user holds, by the grants in the database now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.access import matches
from lifecycle.authority.models import RoleGrant
from lifecycle.promotion.models import Environment
from lifecycle.registry.models import Repository
from lifecycle.registry.tokens.scopes import Scope

# design.md 4: pull = view, push = create, delete = delete.
_VERB_OF: Final[Mapping[str, Verb]] = {
    "pull": Verb.IMAGE_VIEW,
    "push": Verb.IMAGE_CREATE,
    "delete": Verb.IMAGE_DELETE,
}


def held_by(user: User, wanted: Sequence[Scope]) -> dict[tuple[str, str], frozenset[str]]:
    """Return, for each resource in `wanted`, the actions `user` may do there; at most four queries for any number.

    A repository that does not exist yet is judged by its name: the first part is the team's slug. Below the target
    prefix of an environment, whoever sees the family may pull, and nobody may push or delete: an approved promotion
    is the only way in (design.md 5). An inactive user holds nothing.
    """
    if not user.is_active:
        return {}
    held: dict[tuple[str, str], frozenset[str]] = {}
    for scope in wanted:
        if scope.kind == "registry" and user.is_superuser:
            held[(scope.kind, scope.name)] = frozenset({"*"})
    names = {scope.name for scope in wanted if scope.kind == "repository"}
    if names:
        for name, actions in _held_on(user, names).items():
            held[("repository", name)] = actions
    return held


def _held_on(user: User, names: set[str]) -> dict[str, frozenset[str]]:
    rows = {
        row.name: row
        for row in Repository.objects.filter(registry__is_managed=True, name__in=names).only(
            "name", "family", "team_id", "environment_id"
        )
    }
    first_parts = {part for name in names for part in name.split("/")[:2]}
    environments = list(Environment.objects.filter(prefix__in=first_parts).select_related("team"))
    grants = list(RoleGrant.objects.filter(RoleGrant.live(), user=user).select_related("role", "team").order_by("pk"))
    held: dict[str, frozenset[str]] = {}
    for name in names:
        prefix, _, rest = name.partition("/")
        reserved = [environment for environment in environments if environment.prefix == prefix]
        row = rows.get(name)
        if row is not None:
            actions = _actions(grants, row.team_id, row.family, row.environment_id)
        elif reserved:
            slug = rest.partition("/")[0]
            here = [environment for environment in reserved if environment.team.slug == slug]
            actions = _actions(grants, here[0].team_id, rest, here[0].pk) if here else frozenset()
        else:
            actions = _actions(grants, prefix, name, None)
        if reserved or (row is not None and row.environment_id is not None):
            actions &= {"pull"}
        held[name] = actions
    return held


def _actions(grants: Iterable[RoleGrant], team: int | str, family: str, environment_id: int | None) -> frozenset[str]:
    verbs: set[str] = set()
    for grant in grants:
        of_team = grant.team_id == team or _slug(grant.team) == team
        in_place = grant.environment_id is None or grant.environment_id == environment_id
        if of_team and in_place and matches(grant.repository_pattern, family):
            verbs.update(grant.role.verbs)
    return frozenset(action for action, verb in _VERB_OF.items() if verb.value in verbs)


def _slug(team: Team) -> str:
    return team.slug
