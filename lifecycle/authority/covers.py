"""What the live grants of a user cover, read once, as a condition for querysets and for SQL statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Q
from django.db.models.expressions import RawSQL

from accounts.models import ApiToken, User
from accounts.verbs import Verb
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import LIVE_SQL, live_grants
from lifecycle.authority.rights import makers_of, why_suspended
from lifecycle.core.context import once_a_read, remember_for_read

# (team id, pattern, pattern in LIKE syntax, environment id, verbs) of a live grant.
Held = tuple[int, str, str, int | None, list[str]]


@dataclass(frozen=True, slots=True)
class Cover:
    """Whole teams, and parts of other teams: (team id, LIKE pattern or "" for all, environment id or None for all)."""

    whole: tuple[int, ...]
    parts: tuple[tuple[int, str, int | None], ...]

    def as_q(self, *, team: str, family: str, environment: str) -> Q:
        """Return the condition for a row; the arguments name the lookups from the row to these values."""
        condition = Q(**{f"{team}__in": list(self.whole)})
        for team_id, like, environment_id in self.parts:
            part = Q(**{team: team_id})
            part &= Q(**{f"{family}__like": like}) if like else Q()
            part &= Q(**{environment: environment_id}) if environment_id is not None else Q()
            condition |= part
        return condition

    def as_sql(self, alias: str) -> tuple[str, list[Any]]:
        """Return (condition, parameters) for the row `alias` of lifecycle_repository."""
        tests, values = [f"{alias}.team_id = ANY(%s::bigint[])"], [list(self.whole)]
        parameters: list[Any] = list(values)
        for team_id, like, environment_id in self.parts:
            test = f"{alias}.team_id = %s"
            parameters.append(team_id)
            if like:
                test += f" AND {alias}.family LIKE %s"
                parameters.append(like)
            if environment_id is not None:
                test += f" AND {alias}.environment_id = %s"
                parameters.append(environment_id)
            tests.append(f"({test})")
        return f"({' OR '.join(tests)})", parameters


NOTHING: Final = Cover((), ())


def covers_of(actor: User, verb: Verb) -> list[Cover]:
    """Return the covers that must all hold for `actor` to have `verb` on a row.

    A robot is bounded by its makers: a row must be covered for each of them too. A suspended robot has nothing.
    """
    if actor.kind == User.Kind.ROBOT and why_suspended(actor):
        return [NOTHING]
    bounds = [maker for maker in makers_of(actor) if maker.kind != User.Kind.SYSTEM]
    return [_cover(_held(user), verb) for user in (actor, *bounds)]


def whole_teams(actor: User, verb: Verb) -> frozenset[int] | None:
    """Return the ids of the teams on which, as a whole, `actor` has `verb`; None for all teams. As `teams_where`."""
    if not actor.is_active or why_suspended(actor):
        return frozenset()
    found: frozenset[int] | None = None
    for user in (actor, *makers_of(actor)):
        if user.kind == User.Kind.SYSTEM or (user.is_superuser and verb in ADMIN_VERBS):
            continue
        whole = frozenset(_cover(_held(user), verb).whole)
        found = whole if found is None else found & whole
    return found


def visible_sql(actor: User, verb: Verb, alias: str) -> tuple[str, list[Any]]:
    """Return (condition, parameters) that `actor` has `verb` on the row `alias` of lifecycle_repository."""
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return "TRUE", []
    tests: list[str] = []
    parameters: list[Any] = []
    for cover in covers_of(actor, verb):
        test, values = cover.as_sql(alias)
        tests.append(test)
        parameters += values
    return " AND ".join(tests), parameters


# Repositories whose images every active account can see and pull. A vault is always private: see Repository.is_vault.
OPEN: Final = ("internal", "public")


def open_sql(actor: User, alias: str) -> tuple[str, list[Any]]:
    """Return (condition, parameters) that `actor` can see the images of the row `alias` of lifecycle_repository.

    By a grant, or because the repository is open to every account: `queries.repositories_open_to`.
    """
    condition, parameters = visible_sql(actor, Verb.IMAGE_VIEW, alias)
    if not actor.is_active or why_suspended(actor):
        return condition, parameters
    return f"({condition} OR {alias}.visibility = ANY(%s))", [*parameters, list(OPEN)]


def _held(user: User) -> list[Held]:
    """Return every live grant of a user, in one query for all verbs of a request that only reads."""
    rows = live_grants(user).values_list(
        "team_id", "repository_pattern", "repository_like", "environment_id", "role__verbs"
    )
    return once_a_read(("held", user.pk), lambda: list(rows))


# Annotation of an API token: [user id, *Held] of the live grants of its user, and of a robot's responsible user.
HELD_BY_TOKEN: Final = RawSQL(  # noqa: S611 -- a constant
    f"""(SELECT coalesce(json_agg(json_build_array(
        g.user_id, g.team_id, g.repository_pattern, g.repository_like, g.environment_id, r.verbs)), '[]')
    FROM lifecycle_heldgrant g JOIN accounts_role r ON r.id = g.role_id
    WHERE {LIVE_SQL} AND g.user_id = ANY(ARRAY(
        SELECT accounts_apitoken.user_id
        UNION ALL SELECT b.responsible_id FROM accounts_robot b WHERE b.user_id = accounts_apitoken.user_id)))""",  # noqa: S608 -- of constants
    (),
)


def remember_rights(token: ApiToken) -> None:
    """Keep what the query of a usable `token` with `held_by_token` has read, until the end of a read-only request.

    A request that changes something reads the rights in its own transaction.
    """
    rows: list[tuple[Any, ...]] = token.held_by_token  # type: ignore[attr-defined]  # the annotation HELD_BY_TOKEN
    user = token.user
    users = [user]
    if user.kind == User.Kind.ROBOT:
        responsible = user.robot.responsible
        if responsible is None or responsible.kind == User.Kind.ROBOT:
            return  # a longer chain: read when it is asked for
        users.append(responsible)
        remember_for_read(("suspended", user.pk), "")
        remember_for_read(("makers", user.pk), [responsible])
    for holder in users:
        remember_for_read(("held", holder.pk), [tuple(grant) for user_id, *grant in rows if user_id == holder.pk])


def _cover(held: list[Held], verb: Verb) -> Cover:
    grants = [grant for grant in held if verb.value in grant[4]]
    whole = {team_id for team_id, pattern, _, environment_id, _ in grants if pattern == "*" and environment_id is None}
    parts = {
        (team_id, "" if pattern == "*" else like, environment_id)
        for team_id, pattern, like, environment_id, _ in grants
        if team_id not in whole
    }
    return Cover(tuple(sorted(whole)), tuple(sorted(parts, key=str)))
