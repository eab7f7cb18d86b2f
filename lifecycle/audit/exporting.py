"""Export of the audit log as a file: CSV for spreadsheets, JSON lines for other tools."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
from django.db import transaction
from django.db.models import QuerySet

from accounts.models import User
from lifecycle.audit import services
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import AuditExported
from lifecycle.audit.models import AuditEvent
from lifecycle.audit.queries import filtered, for_list
from lifecycle.audit.types import EventFilter
from lifecycle.core.cells import cell
from lifecycle.core.errors import Malformed

FORMATS: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}
_FIELDS: Final = (
    "id",
    "at",
    "action",
    "outcome",
    "actor",
    "token",
    "address",
    "request_id",
    "team",
    "subject_kind",
    "subject_id",
    "digest",
    "repository",
    "environment",
    "reason",
    "details",
)


def export(
    events: QuerySet[AuditEvent], event_filter: EventFilter, kind: str, *, actor: User, limit: int
) -> Iterator[str]:
    """Record an export by `actor` and return the lines of the file: at most `limit` events, newest first.

    `events` are the events that `actor` can read. Raises Malformed when `kind` is not in FORMATS.
    """
    if kind not in FORMATS:
        raise Malformed("Unknown export format. Use csv or jsonl.")
    with transaction.atomic():
        services.record(
            Action.AUDIT_EXPORTED, actor=actor, details=AuditExported(format=kind, filter=event_filter.as_json())
        )
    rows = filtered(for_list(events), event_filter).order_by("-pk")
    return lines_of(rows[:limit].iterator(chunk_size=500), kind)


def lines_of(events: Iterable[AuditEvent], kind: str) -> Iterator[str]:
    """Yield the lines of a file of `kind` (a key of FORMATS)."""
    if kind == "csv":
        yield _csv_line(_FIELDS)
    for event in events:
        row = _row(event)
        if kind == "csv":
            yield _csv_line([cell(row[name]) for name in _FIELDS])
        else:
            yield orjson.dumps(row).decode() + "\n"


def _row(event: AuditEvent) -> dict[str, Any]:
    return {
        "id": event.pk,
        "at": event.at.isoformat(),
        "action": event.action,
        "outcome": event.outcome,
        "actor": event.actor_name,
        "token": event.token_lookup,
        "address": event.address,
        "request_id": event.request_id,
        "team": event.team.slug if event.team else None,
        "subject_kind": event.subject_kind,
        "subject_id": event.subject_id,
        "digest": event.digest,
        "repository": event.repository,
        "environment": event.environment,
        "reason": event.reason,
        "details": event.details,
    }


def _csv_line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)  # RFC 4180
    return buffer.getvalue()
