"""Reads of the audit trail."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent


def events_visible_to(actor: User) -> QuerySet[AuditEvent]:
    """Return the events of the teams over which `actor` holds audit.read; all of them for an admin."""
    from lifecycle.authority.queries import teams_where  # noqa: PLC0415 -- the trail stands below the grants

    if actor.is_active and actor.is_superuser:
        return AuditEvent.objects.all()
    return AuditEvent.objects.filter(team__in=teams_where(actor, Verb.AUDIT_READ))
