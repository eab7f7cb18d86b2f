"""Alerts by the ids in a request: check that the actor can see them, and lock."""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.alerts.models import Alert
from lifecycle.alerts.queries import alerts_visible_to
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.authority.rights import may
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason


def alert_for(actor: User, alert_id: int, *, locked: bool = False) -> Alert:
    """Return an alert that `actor` can see, perhaps locked; raises NotFound."""
    rows = alerts_visible_to(actor).filter(pk=alert_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("Alert not found, or you don't have access.")
    return row


def why_not_manage(actor: User, alert: Alert) -> Reason | None:
    """Return why `actor` cannot acknowledge, snooze or resolve an alert.

    It needs runtime.manage on the team, or on each repository of the alert.
    """
    decision = may(actor, Verb.RUNTIME_MANAGE, team=alert.team)
    if decision:
        return None
    ids = set(alert.repository_ids)
    if ids and repositories_visible_to(actor, Verb.RUNTIME_MANAGE).filter(pk__in=ids).count() == len(ids):
        return None
    return Reason(
        f"You need runtime.manage in team {alert.team.slug}, or on all repositories of the alert. Ask an owner to grant"
        " it."
    )
