"""Access requests: a person asks for a role, and an owner grants it for some days or declines."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.models import Role, Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import AccessAsked
from lifecycle.authority.grants import live_grants
from lifecycle.authority.models import AccessRequest
from lifecycle.authority.queries import access_requests_visible_to, environments_visible_to, teams_askable_by
from lifecycle.authority.rights import may
from lifecycle.authority.services.teams import grant_role, lock_team, why_not_for_people
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if

State = AccessRequest.State
DAYS: Final = 30
DAYS_MAX: Final = 366
TEXT_MAX: Final = 1000
_OPEN_MAX: Final = 20  # of one person: more is noise for the owners


@transaction.atomic
def ask_for_access(
    team_slug: str,
    *,
    actor: User,
    role: str,
    reason: str,
    repository_pattern: str = "*",
    environment: str = "",
    verb: str = "",
    days: int = DAYS,
) -> AccessRequest:
    """Ask the owners of a team for a role, on some of its repositories, perhaps in one environment, for some days.

    A person can ask a team that they see, or that has a repository open to them. Asking twice for the same returns the
    first request. Raises NotFound, NotPermitted for accounts of machines, Malformed, or Conflict for a role that the
    person has there.
    """
    refuse_if(why_not_ask(actor))
    team = teams_askable_by(actor).filter(slug=team_slug).first()
    if team is None:
        raise NotFound("Team not found, or you don't have access.")
    chosen = Role.objects.filter(slug=role).first()
    if chosen is None:
        raise NotFound(f"Role {role[:60]} not found.")
    # Not all who can ask a team see its environments: one that is hidden looks like one that does not exist.
    places = environments_visible_to(actor).filter(team=team, slug=environment, archived_at=None)
    place = places.first() if environment else None
    if environment and place is None:
        raise NotFound("Environment not found, or you don't have access. Leave it empty to ask for all.")
    text = _text(reason, "Say what you need the role for", least=1)
    refuse_if(why_not_for_people(chosen))
    if verb and verb not in chosen.verbs:
        raise Malformed(f"Role {chosen} does not include {verb[:40]}. Choose another role.")
    row = AccessRequest(
        team=team, requester=actor, role=chosen, repository_pattern=repository_pattern, environment=place, verb=verb,
        days=_days(days), reason=text,
    )  # fmt: skip
    try:
        row.clean_fields(exclude=("team", "requester", "role", "environment", "decided_by"))
    except ValidationError:
        raise Malformed(
            f"{repository_pattern[:80]} is not a valid repository pattern. Use shop/api, shop/* or *."
        ) from None
    same = {"role": chosen, "repository_pattern": repository_pattern, "environment": place}
    if live_grants(actor).filter(team=team, expires_at=None, **same).exists():
        raise Conflict(f"You already have the role {chosen} there.")
    if (
        asked := AccessRequest.objects.filter(requester=actor, team=team, state=State.OPEN, **same).first()
    ) is not None:
        return asked
    if AccessRequest.objects.filter(requester=actor, state=State.OPEN).count() >= _OPEN_MAX:
        raise Conflict(f"You have {_OPEN_MAX} open access requests. Withdraw one first.")
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        return AccessRequest.objects.get(requester=actor, team=team, state=State.OPEN, **same)
    _record(Action.ACCESS_REQUESTED, row, actor, reason=row.reason)
    return row


def why_not_ask(actor: User) -> Reason | None:
    """Return why `actor` cannot ask for access."""
    return None if actor.is_person else Reason("Only people can ask for access. Ask the owner of the robot.")


def why_not_decide(actor: User, row: AccessRequest) -> Reason | None:
    """Return why `actor` cannot grant or decline the request now."""
    if row.state != State.OPEN:
        return Reason(f"{row} was already {row.state} by {row.decided_by}.", Conflict)
    if not actor.is_person:
        return Reason("Only people decide about access.")
    if row.requester_id == actor.pk:
        return Reason("You cannot decide about your own request.")
    decision = may(actor, Verb.TEAM_MANAGE, team=row.team)
    return None if decision else Reason(decision.reason)


def why_not_withdraw(actor: User, row: AccessRequest) -> Reason | None:
    """Return why `actor` cannot take the request back."""
    if row.requester_id != actor.pk:
        return Reason(f"Only {row.requester} can take it back.")
    return None if row.state == State.OPEN else Reason(f"{row} was already {row.state}.", Conflict)


@transaction.atomic
def grant_access(request_id: int, *, actor: User, days: int | None = None, comment: str = "") -> AccessRequest:
    """Grant the role that was asked for, for `days` (as asked for by default).

    Raises NotFound, NotPermitted (also for a role with verbs that `actor` does not have), Malformed, or Conflict.
    """
    row = _lock(request_id, actor)
    refuse_if(why_not_decide(actor, row))
    team = lock_team(actor, row.team_id)
    if not row.requester.is_active:
        raise Conflict(f"{row.requester} is deactivated.")
    row.days = _days(row.days if days is None else days)
    row.expires_at = clock.now() + timedelta(days=row.days)
    lasting = live_grants(row.requester).filter(
        team=team, role=row.role, repository_pattern=row.repository_pattern, environment=row.environment_id
    )
    if lasting.filter(expires_at=None).exists():
        raise Conflict(f"{row.requester} already has the role {row.role} there, without an end.")
    grant_role(
        team, row.requester, actor=actor, role=row.role.slug, repository_pattern=row.repository_pattern,
        environment=row.environment.slug if row.environment is not None else "", expires_at=row.expires_at,
    )  # fmt: skip
    _decide(row, State.GRANTED, actor, comment)
    _record(Action.ACCESS_GRANTED, row, actor, reason=row.decision)
    return row


@transaction.atomic
def decline_access(request_id: int, *, actor: User, comment: str) -> AccessRequest:
    """Decline a request, with a reason for the person. Raises NotFound, NotPermitted, Malformed, Conflict."""
    row = _lock(request_id, actor)
    refuse_if(why_not_decide(actor, row))
    _decide(row, State.DECLINED, actor, _text(comment, "Say why", least=1))
    _record(Action.ACCESS_DECLINED, row, actor, reason=row.decision)
    return row


@transaction.atomic
def withdraw_access_request(request_id: int, *, actor: User) -> AccessRequest:
    """Take back one's own request. Raises NotFound, NotPermitted, Conflict."""
    row = _lock(request_id, actor)
    refuse_if(why_not_withdraw(actor, row))
    _decide(row, State.WITHDRAWN, actor, "")
    _record(Action.ACCESS_WITHDRAWN, row, actor)
    return row


def _lock(request_id: int, actor: User) -> AccessRequest:
    visible = access_requests_visible_to(actor).filter(pk=request_id).exists()
    rows = AccessRequest.objects.select_related("team", "requester", "role", "environment", "decided_by")
    row = rows.select_for_update(of=("self",)).filter(pk=request_id).first() if visible else None
    if row is None:
        raise NotFound("Access request not found, or you don't have access.")
    return row


def _decide(row: AccessRequest, state: State, actor: User, comment: str) -> None:
    row.state, row.decided_by, row.decided_at = state, actor, clock.now()
    row.decision = _text(comment, "Comment", least=0)
    row.save(update_fields=["state", "decided_by", "decided_at", "decision", "days", "expires_at"])


def _record(action: Action, row: AccessRequest, actor: User, *, reason: str = "") -> None:
    details = AccessAsked(
        user=row.requester.username, role=row.role.slug, repositories=row.repository_pattern, days=row.days,
        verb=row.verb,
    )  # fmt: skip
    audit.record(
        action, actor=actor, subject=row, team=row.team, environment=row.environment, reason=reason, details=details
    )


def _days(days: int) -> int:
    if not 1 <= days <= DAYS_MAX:
        raise Malformed(f"Choose 1 to {DAYS_MAX} days.")
    return days


def _text(text: str, what: str, *, least: int) -> str:
    cleaned = text.strip()
    if not least <= len(cleaned) <= TEXT_MAX or "\0" in cleaned:
        raise Malformed(f"{what}, in at most {TEXT_MAX} characters.")
    return cleaned


def owners_of(team: Team) -> list[str]:
    """Return the names of the people who can grant a role in the team, at most 20."""
    grants = live_grants(verb=Verb.TEAM_MANAGE).filter(team=team, repository_pattern="*", environment=None)
    people = User.objects.filter(pk__in=grants.values("user"), is_active=True, kind=User.Kind.PERSON)
    return list(people.order_by("username").values_list("username", flat=True)[:20])
