"""Reads of the audit trail."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.lookups import IsNull

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent, AuditPending
from lifecycle.audit.types import EventFilter
from lifecycle.core.errors import NotFound


def events_visible_to(actor: User) -> QuerySet[AuditEvent]:
    """Return the events of the teams over which `actor` holds audit.read; all of them for an admin."""
    from lifecycle.authority.queries import teams_where  # noqa: PLC0415 -- the trail stands below the grants

    if actor.is_active and actor.is_superuser:
        return AuditEvent.objects.all()
    return AuditEvent.objects.filter(team__in=teams_where(actor, Verb.AUDIT_READ))


def audited_teams(actor: User) -> QuerySet[Team]:
    """Return the teams whose trail `actor` may read."""
    from lifecycle.authority.queries import teams_where  # noqa: PLC0415 -- as above

    return teams_where(actor, Verb.AUDIT_READ)


def filtered(events: QuerySet[AuditEvent], wanted: EventFilter) -> QuerySet[AuditEvent]:
    """Return those of `events` that the filter asks for; order and page them by -id."""
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
    """Return `events` with their team and `is_pending`: whether the sealer has yet to take them."""
    # A row asked for by its key, for each event shown: of an EXISTS the planner makes a hash of all that is pending.
    pending = Subquery(AuditPending.objects.filter(event_id=OuterRef("pk")).values("event_id"))
    return events.select_related("team").defer("canonical").annotate(is_pending=IsNull(pending, False))


def event_for(actor: User, event_id: int) -> AuditEvent:
    """Return one event if `actor` may read it; raises NotFound for absent and hidden alike."""
    event = for_list(events_visible_to(actor)).filter(pk=event_id).first()
    if event is None:
        raise NotFound("There is no such event, or you may not read it.")
    return event
