"""What people do about alerts. Each function checks, locks, changes and audits in one transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction

from accounts.models import User
from lifecycle.alerts.access import alert_for, why_not_manage
from lifecycle.alerts.models import Alert
from lifecycle.alerts.types import kind_called
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import AlertDetails
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition, Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import move_row
from lifecycle.notices.telling import settle

State = Alert.State
SNOOZE_DAYS_MAX: Final = 90
REASON_MAX: Final = 2000  # characters


def why_not_acknowledge(actor: User, alert: Alert) -> Reason | None:
    """Return why `actor` cannot acknowledge an alert."""
    return _why_not(actor, alert, State.ACKNOWLEDGED)


def why_not_snooze(actor: User, alert: Alert) -> Reason | None:
    """Return why `actor` cannot snooze an alert."""
    return _why_not(actor, alert, State.SNOOZED)


def why_not_resolve(actor: User, alert: Alert) -> Reason | None:
    """Return why `actor` cannot resolve an alert."""
    kind = kind_called(alert.kind)
    if alert.is_live and kind is not None and kind.why_not_resolved:
        return Reason(kind.why_not_resolved, IllegalTransition)
    return _why_not(actor, alert, State.RESOLVED)


def _why_not(actor: User, alert: Alert, state: str) -> Reason | None:
    if reason := why_not_manage(actor, alert):
        return reason
    if state in alert.NEXT.get(alert.state, frozenset()):
        return None
    return Reason(f"{alert} is already {alert.state}.", IllegalTransition)


@transaction.atomic
def acknowledge(alert_id: int, *, actor: User, reason: str = "") -> Alert:
    """Say that somebody works on it: the team is not reminded any more.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    alert = alert_for(actor, alert_id, locked=True)
    refuse_if(why_not_acknowledge(actor, alert))
    _move(alert, State.ACKNOWLEDGED, actor, _checked(reason, is_required=False), snoozed_until=None)
    _record(Action.ALERT_ACKNOWLEDGED, alert, actor)
    return alert


@transaction.atomic
def snooze(alert_id: int, *, actor: User, until: datetime, reason: str = "") -> Alert:
    """Put an alert off until a time, at most 90 days ahead. Then it is open again, and the team is told.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    alert = alert_for(actor, alert_id, locked=True)
    refuse_if(why_not_snooze(actor, alert))
    now = clock.now()
    if not now < until <= now + timedelta(days=SNOOZE_DAYS_MAX):
        raise Malformed(f"Choose a time in the next {SNOOZE_DAYS_MAX} days.", field="until")
    _move(alert, State.SNOOZED, actor, _checked(reason, is_required=False), snoozed_until=until)
    _record(Action.ALERT_SNOOZED, alert, actor)
    return alert


@transaction.atomic
def resolve(alert_id: int, *, actor: User, reason: str) -> Alert:
    """Close an alert with a reason. If its cause is still there a day later, a new alert names this one.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    alert = alert_for(actor, alert_id, locked=True)
    refuse_if(why_not_resolve(actor, alert))
    _move(
        alert, State.RESOLVED, actor, _checked(reason), snoozed_until=None, resolved_by=actor, resolved_at=clock.now()
    )
    _record(Action.ALERT_RESOLVED, alert, actor)
    return alert


def _checked(reason: str, *, is_required: bool = True) -> str:
    reason = reason.strip()
    if is_required and not reason:
        raise Malformed("Enter a reason: why is nothing left to do?", field="reason")
    if len(reason) > REASON_MAX or "\0" in reason:
        raise Malformed(f"A reason has at most {REASON_MAX} characters.", field="reason")
    return reason


def _move(alert: Alert, state: str, actor: User, reason: str, **changes: Any) -> None:
    """Move a locked alert to `state`. Raises IllegalTransition."""
    move_row(alert, state, acted_by=actor, acted_at=clock.now(), reason=reason, **changes)
    if not Alert.objects.filter(team=alert.team, kind=alert.kind, state=State.OPEN).exists():
        kind = kind_called(alert.kind)
        settle(f"alerts-{alert.team.slug}", [kind.topic] if kind is not None else [])


def _record(action: Action, alert: Alert, actor: User) -> None:
    until = alert.snoozed_until.isoformat() if alert.snoozed_until is not None else ""
    details = AlertDetails(
        kind=alert.kind, vulnerability=alert.vulnerability, digest=alert.digest or "", until=until
    )  # fmt: skip
    audit.record(action, actor=actor, subject=alert, team=alert.team, reason=alert.reason, details=details)
