"""Queries of the audit log."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.lookups import IsNull

from lifecycle.audit.models import AuditEvent, AuditPending
from lifecycle.audit.subjects import about
from lifecycle.audit.types import EventFilter


def filtered(events: QuerySet[AuditEvent], event_filter: EventFilter) -> QuerySet[AuditEvent]:
    """Return the `events` that match the filter; order and page them by -id."""
    if event_filter.action:
        events = events.filter(action__startswith=event_filter.action)
    if event_filter.actor:
        events = events.filter(actor_name=event_filter.actor)
    if event_filter.team:
        events = events.filter(team__slug=event_filter.team)
    if event_filter.subject:
        events = events.filter(about(event_filter.subject))
    if event_filter.outcome:
        events = events.filter(outcome=event_filter.outcome)
    if event_filter.since is not None:
        events = events.filter(at__gte=_start(event_filter.since))
    if event_filter.until is not None:
        events = events.filter(at__lt=_start(event_filter.until) + timedelta(days=1))
    return events


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def for_list(events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
    """Return `events` with their team and `is_pending`: whether the event is not sealed yet."""
    # This looks up one row by key for each event shown. For EXISTS, the planner builds a hash of all pending rows.
    pending = Subquery(AuditPending.objects.filter(event_id=OuterRef("pk")).values("event_id"))
    return events.select_related("team").defer("canonical").annotate(is_pending=IsNull(pending, False))
