"""Explains whether a user can do something in a team: the result, each check, and who can change the grants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db.models import QuerySet

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import live_grants, over_whole_team
from lifecycle.authority.models import HeldGrant
from lifecycle.authority.queries import people_who
from lifecycle.authority.rights import grants_of, makers_of, why_suspended
from lifecycle.core import clock
from lifecycle.core.patterns import matches
from lifecycle.environments.models import Environment

_PEOPLE_MAX: Final = 20  # names in one list of an answer


@dataclass(frozen=True, slots=True)
class Step:
    """One check and its result. `is_met` is None when the check does not apply."""

    is_met: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The result for one user, and the checks that led to it, as sentences."""

    is_allowed: bool
    sentence: str
    steps: tuple[Step, ...]
    changes: tuple[str, ...]  # ways to get access; empty when access is allowed
    allowed: tuple[str, ...]  # people who have access now
    granters: tuple[str, ...]  # people who can change the grants


def explain(
    username: str, verb: Verb, *, team: Team, family: str = "", environment: Environment | None = None
) -> Answer:
    """Return whether the user named `username` can use `verb` in `team`.

    Without `family`, the question is about the whole team. Without `environment`, it is about requests without one.
    If the user has no grant in the team and is not an admin, the answer does not reveal whether the account exists.
    """
    user = User.objects.filter(username=username).first()
    grants = list(
        HeldGrant.objects.filter(user=user, team=team)
        .select_related("user", "role", "environment", "group__team", "through__team")
        .order_by("pk", "through")
        if user is not None
        else []
    )
    is_admin = user is not None and user.is_active and user.is_superuser and verb in ADMIN_VERBS
    is_allowed = is_admin or (
        user is not None
        and not why_suspended(user)
        and any(grants_of(user, verb, team_id=team.pk, family=family or None, environment=environment))
    )
    steps: list[Step] = []
    if user is not None and (grants or is_admin):
        state = "active" if user.is_active else "deactivated"
        steps.append(Step(user.is_active, f"The account is {state}."))
    if is_admin:
        steps.append(Step(True, f"{username} is an admin. Every admin has {verb}."))
    if not grants and not is_admin:
        steps.append(Step(False, f"{username} has no role in team {team}."))
    for grant in grants:
        steps += _steps_of(grant, verb, family, environment)
    if user is not None and grants and (bound := _bound(user, verb, team, family, environment)):
        steps.append(Step(False, bound))
    return Answer(
        is_allowed=is_allowed,
        sentence=f"{username} {'can' if is_allowed else 'cannot'} {_describe(verb, family, environment)}.",
        steps=tuple(steps),
        changes=() if is_allowed else tuple(_changes(grants, verb, family, environment)),
        allowed=_names(people_who(verb, team=team, family=family or "*", environment=environment)),
        granters=_granters(team),
    )


def _bound(user: User, verb: Verb, team: Team, family: str, environment: Environment | None) -> str:
    """Return why a robot has less than its grants, as one sentence; "" if it has all, and for people."""
    if suspended := why_suspended(user):
        return suspended
    for maker in makers_of(user):
        is_bounded = maker.kind != User.Kind.SYSTEM and not (maker.is_superuser and verb in ADMIN_VERBS)
        own = grants_of(maker, verb, team_id=team.pk, family=family or None, environment=environment)
        if is_bounded and not any(own):
            return f"{maker} is responsible for {user} and does not have {verb} here. A robot never has more."
    return ""


def _describe(verb: Verb, family: str, environment: Environment | None) -> str:
    return f"use {verb} on {family or 'the whole team'}" + (f" in {environment.slug}" if environment else "")


def _is_expired(grant: HeldGrant) -> bool:
    return grant.expires_at is not None and grant.expires_at <= clock.now()


def _applies_in(grant: HeldGrant, environment: Environment | None) -> bool:
    return grant.environment_id is None or (environment is not None and grant.environment_id == environment.pk)


def _steps_of(grant: HeldGrant, verb: Verb, family: str, environment: Environment | None) -> list[Step]:
    """Return the checks of one grant in order. The list ends at the first check that fails."""
    name = f"Grant {grant.pk} ({grant.role}{grant.origin and ', '}{grant.origin})"
    if verb.value not in grant.role.verbs:
        return [Step(None, f"{name} does not include {verb}.")]
    steps = [Step(True, f"{name} includes {verb}.")]
    if _is_expired(grant):
        return [*steps, Step(False, f"{name} expired on {grant.expires_at:%d %b %Y %H:%M} UTC.")]
    covers = matches(grant.repository_pattern, family or None)
    match = f"it {'matches' if covers else 'does not match'} {family or 'the whole team'}"
    steps.append(Step(covers, f"{name} covers {grant.repository_pattern}: {match}."))
    if not covers:
        return steps
    if grant.environment is not None:
        applies = _applies_in(grant, environment)
        other = environment.slug if environment else "requests without an environment"
        match = ": it matches" if applies else f", not to {other}"
        steps.append(Step(applies, f"{name} applies to {grant.environment}{match}."))
    return steps


def _changes(grants: list[HeldGrant], verb: Verb, family: str, environment: Environment | None) -> list[str]:
    changes = []
    if grants and not grants[0].user.is_active:
        changes.append("Ask an admin to reactivate the account.")
    if grants and grants[0].user.kind == User.Kind.ROBOT:
        changes.append("A user with these permissions can take over the robot on its page.")
    for grant in grants:
        if verb.value not in grant.role.verbs:
            continue
        if _is_expired(grant):
            changes.append(f"Extend grant {grant.pk}.")
        elif not matches(grant.repository_pattern, family or None):
            changes.append(f"Grant {grant.role} on {family or 'all repositories'}.")
        elif not _applies_in(grant, environment):
            changes.append(f"Grant {grant.role} in {environment.slug if environment else 'all environments'}.")
    if not changes:
        changes.append(f"Grant a role that includes {verb}.")
    return changes


def _names(people: QuerySet[User]) -> tuple[str, ...]:
    names = list(people.order_by("username").values_list("username", flat=True)[: _PEOPLE_MAX + 1])
    return (*names[:_PEOPLE_MAX], "and more") if len(names) > _PEOPLE_MAX else tuple(names)


def _granters(team: Team) -> tuple[str, ...]:
    """Return the people with `team.manage` on the whole team, who can grant roles; "an admin" when there are none."""
    grants = live_grants(verb=Verb.TEAM_MANAGE).filter(over_whole_team(), team=team)
    people = User.objects.filter(pk__in=grants.values("user"), is_active=True, kind=User.Kind.PERSON)
    return _names(people) or ("an admin",)
