"""Reads of the sealed log that the sealer, pages, exports and checks share."""

from __future__ import annotations

from django.db import connection
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.lookups import IsNull

from lifecycle.audit.models import AuditEvent
from lifecycle.sealed_log.models import LogCheckpoint, LogOrigin, LogTile, SealedEntry
from lifecycle.tlog import tiles
from lifecycle.tlog.tiles import ENTRIES, TileName
from lifecycle.tlog.tree import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, ReadTile, Tree


def current_origin() -> LogOrigin | None:
    """Return the log that grows; None before the first sealing."""
    return LogOrigin.objects.order_by("-number").first()


def last_checkpoint(origin: LogOrigin) -> LogCheckpoint | None:
    """Return the newest checkpoint of a log; None before its first one."""
    return LogCheckpoint.objects.filter(origin=origin).order_by("-size").first()


def entries_about(event_id: int | OuterRef) -> QuerySet[SealedEntry]:
    """Return the entry about an event, or no row when the log has none: it waits, or it was recorded past the log."""
    return SealedEntry.objects.filter(event_id=event_id)


def with_seal(events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
    """Return `events` with `is_sealed`: whether the log has an entry about the event."""
    entry = Subquery(entries_about(OuterRef("pk")).values("event_id"))  # one row by key for each event shown
    return events.annotate(is_sealed=IsNull(entry, False))


def tile_reader(origin: LogOrigin) -> ReadTile:
    """Return a reader of a log's tiles; each call is one query."""

    def read(level: int, number: int) -> bytes:
        row = LogTile.objects.filter(origin=origin, level=level, number=number).values_list("hashes", flat=True).first()
        return bytes(row) if row is not None else b""

    return read


def tree_of(checkpoint: LogCheckpoint) -> Tree:
    """Return the tree that a checkpoint signs."""
    return Tree(tile_reader(checkpoint.origin), checkpoint.size)


def tile_content(origin: LogOrigin, name: TileName, size: int) -> bytes | None:
    """Return the content of a tile or an entry bundle of the tree with `size` entries; None when it reaches beyond."""
    if name.level == ENTRIES:
        first = name.number * TILE_WIDTH
        if first + name.width > size:
            return None
        rows = SealedEntry.objects.filter(origin=origin, index__gte=first, index__lt=first + name.width)
        entries = [bytes(entry) for entry in rows.order_by("index").values_list("entry", flat=True)]
        return tiles.bundle(entries) if len(entries) == name.width else None
    if name.number * TILE_WIDTH + name.width > size >> (TILE_HEIGHT * name.level):
        return None
    hashes = tile_reader(origin)(name.level, name.number)[: name.width * HASH_BYTES]
    return hashes if len(hashes) == name.width * HASH_BYTES else None


def oldest_unsealed_s() -> float | None:
    """Return the seconds since the oldest event that waits to be sealed was recorded; None when none waits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - event.at)::float8 FROM lifecycle_auditpending pending"
            " JOIN lifecycle_auditevent event ON event.id = pending.event_id ORDER BY pending.event_id LIMIT 1"
        )
        row = cursor.fetchone()
    return max(0.0, row[0]) if row is not None else None
