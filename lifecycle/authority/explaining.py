"""'Why can't I?': the answer of `access`, with the chain of checks that led to it, and who can change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db.models import QuerySet

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import live_grants, over_whole_team
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import people_who
from lifecycle.authority.rights import grants_of
from lifecycle.core import clock
from lifecycle.core.patterns import matches
from lifecycle.environments.models import Environment

_PEOPLE_MAX: Final = 20  # names in a list of who may


@dataclass(frozen=True, slots=True)
class Step:
    """One check and how it went; `is_met` is None for what does not apply."""

    is_met: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the person may, and the way to that answer, in sentences."""

    is_allowed: bool
    sentence: str
    steps: tuple[Step, ...]
    changes: tuple[str, ...]  # what would make it a yes; empty when it is one
    allowed: tuple[str, ...]  # people who may do it now
    granters: tuple[str, ...]  # people who may change the grants


def explain(
    username: str, verb: Verb, *, team: Team, family: str = "", environment: Environment | None = None
) -> Answer:
    """Answer whether a person, by name, may do `verb` in `team`, over a family and in an environment where given.

    For whom the team has no grant, and who is no admin, the answer is the same whether there is such an account or not.
    """
    user = User.objects.filter(username=username).first()
    grants = list(
        RoleGrant.objects.filter(user=user, team=team).select_related("user", "role", "environment").order_by("pk")
        if user is not None
        else []
    )
    what = _what(verb, family, environment)
    is_admin = user is not None and user.is_active and user.is_superuser and verb in ADMIN_VERBS
    is_allowed = is_admin or (
        user is not None and any(grants_of(user, verb, team_id=team.pk, family=family or None, environment=environment))
    )
    steps: list[Step] = []
    if user is not None and (grants or is_admin):
        steps.append(Step(user.is_active, "The account is active." if user.is_active else "The account is not active."))
    if is_admin:
        steps.append(Step(True, f"{username} is an admin, and {verb} is what every admin holds."))
    if not grants and not is_admin:
        steps.append(Step(False, f"{username} holds no role in team {team}."))
    for grant in grants:
        steps += _steps_of(grant, verb, family, environment)
    return Answer(
        is_allowed=is_allowed,
        sentence=f"{username} {'may' if is_allowed else 'may not'} {what}.",
        steps=tuple(steps),
        changes=() if is_allowed else tuple(_changes(grants, verb, family, environment)),
        allowed=_names(people_who(verb, team=team, family=family or "*", environment=environment)),
        granters=_granters(team),
    )


def _what(verb: Verb, family: str, environment: Environment | None) -> str:
    where = f" over {family}" if family else " over the whole team"
    return f"do {verb}{where}" + (f" in {environment.slug}" if environment else "")


def _is_over(grant: RoleGrant) -> bool:
    return grant.expires_at is not None and grant.expires_at <= clock.now()


def _is_in_place(grant: RoleGrant, environment: Environment | None) -> bool:
    return grant.environment_id is None or (environment is not None and grant.environment_id == environment.pk)


def _steps_of(grant: RoleGrant, verb: Verb, family: str, environment: Environment | None) -> list[Step]:
    """Return the checks of one grant in order, up to the first that fails."""
    name = f"Grant {grant.pk} ({grant.role})"
    if verb.value not in grant.role.verbs:
        return [Step(None, f"{name} does not carry {verb}.")]
    steps = [Step(True, f"{name} carries {verb}.")]
    if _is_over(grant):
        return [*steps, Step(False, f"{name} ended on {grant.expires_at:%d %b %Y %H:%M} UTC.")]
    covers = matches(grant.repository_pattern, family or None)
    subject = family or "the team as a whole"
    steps.append(Step(covers, f"{name} covers {grant.repository_pattern}, {'so' if covers else 'not'} {subject}."))
    if not covers:
        return steps
    if grant.environment is not None:
        here = _is_in_place(grant, environment)
        where = environment.slug if environment else "what lies outside of environments"
        steps.append(Step(here, f"{name} counts in {grant.environment}, {'as asked' if here else f'not in {where}'}."))
    return steps


def _changes(grants: list[RoleGrant], verb: Verb, family: str, environment: Environment | None) -> list[str]:
    found = []
    if grants and not grants[0].user.is_active:
        found.append("An admin lets the account in again.")
    for grant in grants:
        if verb.value not in grant.role.verbs:
            continue
        if _is_over(grant):
            found.append(f"Give grant {grant.pk} a later end.")
        elif not matches(grant.repository_pattern, family or None):
            found.append(f"Give {grant.role} over {family or 'all repositories'} as well.")
        elif not _is_in_place(grant, environment):
            found.append(f"Give {grant.role} {f'in {environment.slug}' if environment else 'for all of the team'} too.")
    if not found:
        found.append(f"Give a role that carries {verb}.")
    return found


def _names(people: QuerySet[User]) -> tuple[str, ...]:
    names = list(people.order_by("username").values_list("username", flat=True)[: _PEOPLE_MAX + 1])
    return (*names[:_PEOPLE_MAX], "and more") if len(names) > _PEOPLE_MAX else tuple(names)


def _granters(team: Team) -> tuple[str, ...]:
    """Return who may give roles in the team: who manages the whole of it, else the admins."""
    held = live_grants(verb=Verb.TEAM_MANAGE).filter(over_whole_team(), team=team)
    people = User.objects.filter(pk__in=held.values("user"), is_active=True, kind=User.Kind.PERSON)
    return _names(people) or ("an admin",)
