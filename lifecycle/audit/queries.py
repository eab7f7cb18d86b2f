"""Queries of the audit log."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.lookups import IsNull

from lifecycle.audit.models import AuditEvent, AuditPending
from lifecycle.audit.types import EventFilter


def filtered(events: QuerySet[AuditEvent], wanted: EventFilter) -> QuerySet[AuditEvent]:
    """Return the `events` that match the filter; order and page them by -id."""
    if wanted.action:
        events = events.filter(action__startswith=wanted.action)
    if wanted.actor:
        events = events.filter(actor_name=wanted.actor)
    if wanted.team:
        events = events.filter(team__slug=wanted.team)
    if wanted.subject:
        is_digest = wanted.subject.startswith(("sha256:", "sha512:"))
        events = events.filter(digest=wanted.subject) if is_digest else events.filter(repository=wanted.subject)
    if wanted.outcome:
        events = events.filter(outcome=wanted.outcome)
    if wanted.since is not None:
        events = events.filter(at__gte=_start(wanted.since))
    if wanted.until is not None:
        events = events.filter(at__lt=_start(wanted.until) + timedelta(days=1))
    return events


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def for_list(events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
    """Return `events` with their team and `is_pending`: whether the event is not sealed yet."""
    # This looks up one row by key for each event shown. For EXISTS, the planner builds a hash of all pending rows.
    pending = Subquery(AuditPending.objects.filter(event_id=OuterRef("pk")).values("event_id"))
    return events.select_related("team").defer("canonical").annotate(is_pending=IsNull(pending, False))
