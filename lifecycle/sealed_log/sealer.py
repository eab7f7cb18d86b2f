"""Sealing: pending events become entries of the log, with a checkpoint signed in the same transaction.

Only the sealer runs this: one process at a time, as the owner of the tables, and the only one with the signing key.
Commit first, publish after: a checkpoint that anybody outside has seen is always in the database, unless that was
restored from a backup. Then the log must not grow under its name, because it would sign two histories: a new log begins
whose first entry names the old one.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from psycopg2.extras import execute_values

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_log import LogStarted
from lifecycle.registry.constants import ANCHOR_PREFIX
from lifecycle.sealed_log import entries
from lifecycle.sealed_log.entries import Head, Subject
from lifecycle.sealed_log.models import Anchor, LogCheckpoint, LogOrigin, SubjectHead
from lifecycle.sealed_log.queries import current_origin, last_checkpoint, tile_reader
from lifecycle.sealed_log.types import Seen, StoredEvent
from lifecycle.tlog.notes import Checkpoint, VerifierKey
from lifecycle.tlog.tiles import ENTRY_MAX_BYTES
from lifecycle.tlog.tree import Tree, grown, hash_of_entry, reader_of

log = structlog.get_logger(__name__)

BATCH: Final = 10_000  # events in one transaction
_LOCK: Final = 7_012
_NUMBER: Final = re.compile(r".*/audit(?:/([0-9]{1,9}))?")
_COLUMNS: Final = (
    "id, at, action, outcome, actor_id, actor_name, token_lookup, host(address), request_id, team_id, subject_kind,"
    " subject_id, digest, repository, environment, reason, details"
)
_TAKE: Final = """
DELETE FROM lifecycle_auditpending WHERE event_id IN (
    SELECT event_id FROM lifecycle_auditpending ORDER BY event_id LIMIT %s
) RETURNING event_id
"""
Step = Callable[[str], None]  # is told each step; tests end the process there


class LogBroken(RuntimeError):
    """The stored log does not lead to its last checkpoint. Nothing is signed until somebody has looked at it."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one run of the sealer did: how many events it sealed, and the head of the log now."""

    events: int
    checkpoint: LogCheckpoint | None


@dataclass(frozen=True, slots=True)
class _New:
    """One new entry; `event_id` is None for the first entry of a log."""

    event_id: int | None
    entry: bytes
    hash: bytes

    def row(self, origin: LogOrigin, index: int) -> str:
        """Return the entry as a line for COPY."""
        event = str(self.event_id) if self.event_id is not None else r"\N"
        return f"{origin.pk}\t{index}\t{event}\t\\\\x{self.hash.hex()}\t\\\\x{self.entry.hex()}\n"


def number_of(origin: str) -> int:
    """Return the number of a log from its name: 1 for `host/audit`, 2 for `host/audit/2`; 0 for another name."""
    found = _NUMBER.fullmatch(origin)
    return int(found[1] or 1) if found is not None else 0


def seal(
    key: Ed25519PrivateKey, *, seen: Sequence[Seen] = (), limit: int = BATCH, step: Step = lambda name: None
) -> Sealed:
    """Seal up to `limit` pending events, sign the new head, and return it. Nothing happens while another sealer works.

    `seen` are heads that were found outside of the database. Begins a log when there is none, when `key` is another
    one, or when the database lacks what was seen. Raises LogBroken.
    """
    with transaction.atomic():
        if not _is_alone():
            return Sealed(0, None)
        step("locked")
        origin, first = _origin(key, seen)
        events, lost = _take(limit)
        step("taken")
        if first is None and not events and not lost:
            return Sealed(0, None)
        before = last_checkpoint(origin)
        size = before.size if before is not None else 0
        new = [first] if first is not None else []
        new += _entries(origin, size + len(new), events, lost)
        step("entries")
        checkpoint = _append(origin, before, new, key, step)
    step("committed")
    return Sealed(len(events), checkpoint)


def _is_alone() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        is_taken: bool = cursor.fetchone()[0]
    return is_taken


def _origin(key: Ed25519PrivateKey, seen: Sequence[Seen]) -> tuple[LogOrigin, _New | None]:
    """Return the log to add to, and its first entry when it begins now."""
    origin = current_origin()
    if origin is None and not seen:
        return _begin(key, LogOrigin.Why.STARTED, None, number=1)
    unknown = [head for head in seen if not _is_known(head)]
    number = max([origin.number if origin is not None else 0, *(number_of(head.origin) for head in seen)]) + 1
    if unknown:
        head = max(unknown, key=lambda head: (number_of(head.origin), head.size))
        log.error("audit_log_restored", origin=head.origin, seen_size=head.size, place=head.place)
        return _begin(key, LogOrigin.Why.RESTORED, head, number=number)
    if origin is None:
        raise LogBroken("A checkpoint is known, but no log.")  # cannot happen: what is known has an origin
    if str(VerifierKey(origin.name, key.public_key())) != origin.key:
        before = last_checkpoint(origin)
        head_now = Seen(origin.name, before.size, bytes(before.root), "database") if before is not None else None
        return _begin(key, LogOrigin.Why.KEY_CHANGED, head_now, number=number)
    return origin, None


def _is_known(head: Seen) -> bool:
    """Return whether the database has a checkpoint that others have seen, or a log that began because it lacks it.

    A log that began after a restore answers only for what the database lacked then, and for the very head it names.
    """
    stored = LogCheckpoint.objects.filter(origin__name=head.origin, size=head.size).values_list("root", flat=True)
    if any(bytes(root) == head.root for root in stored):
        return True
    lacked = Q(previous_size__gt=head.size, restored_size__lt=head.size)
    named = Q(previous_size=head.size, previous_root=head.root)
    return LogOrigin.objects.filter(lacked | named, previous=head.origin).exists()


def _begin(key: Ed25519PrivateKey, why: LogOrigin.Why, head: Seen | None, *, number: int) -> tuple[LogOrigin, _New]:
    name = f"{urlsplit(settings.PUBLIC_URL).netloc}/audit" + (f"/{number}" if number > 1 else "")
    now = _now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM lifecycle_auditpending")
        (backlog,) = cursor.fetchone()
    restored_size = None
    if head is not None:
        kept = LogCheckpoint.objects.filter(origin__name=head.origin).order_by("-size").first()
        restored_size = kept.size if kept is not None else 0
    origin = LogOrigin.objects.create(
        number=number,
        name=name,
        key=str(VerifierKey(name, key.public_key())),
        why=why,
        previous=head.origin if head is not None else "",
        previous_size=head.size if head is not None else None,
        previous_root=head.root if head is not None else None,
        restored_size=restored_size,
        created_at=now,
    )
    if not Anchor.objects.exists():  # there is always one, until an admin chooses better ones
        Anchor.objects.create(name="managed-registry", kind=Anchor.Kind.OCI, target=f"{ANCHOR_PREFIX}/checkpoints")
    previous = (
        {"origin": head.origin, "size": head.size, "root": head.root.hex(), "restored_size": restored_size}
        if head is not None
        else None
    )
    details = LogStarted(origin=name, why=why.value, previous=head.origin if head is not None else "", backlog=backlog)
    audit.record(Action.AUDIT_LOG_STARTED, actor=system_user(), subject=origin, details=details)
    entry = entries.start_entry(
        origin=name, at=now.astimezone(UTC).isoformat(), why=why.value, backlog=backlog, previous=previous
    )
    return origin, _New(None, entry, hash_of_entry(entry))


def _take(limit: int) -> tuple[list[StoredEvent], list[int]]:
    """Return pending events by id, no longer pending, and the ids of those whose event is gone."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [limit])
        ids = sorted(row[0] for row in cursor.fetchall())
        if not ids:
            return [], []
        cursor.execute(f"SELECT {_COLUMNS} FROM lifecycle_auditevent WHERE id = ANY(%s) ORDER BY id", [ids])  # noqa: S608 -- our own columns
        events = [StoredEvent(*(*row[:-1], orjson.loads(row[-1]))) for row in cursor.fetchall()]
    return events, sorted(set(ids) - {event.id for event in events})


def _entries(origin: LogOrigin, index: int, events: Sequence[StoredEvent], lost: Sequence[int]) -> list[_New]:
    """Return the entries of events, the first one at `index`, and store salts and the heads of their subjects."""
    ids = _accounts(name for event in events for name in entries.names_in(event))
    codes = _codes(events, ids)
    about = [entries.subjects_of(event, codes, ids) for event in events]
    heads = _heads(origin, {subject for subjects in about for subject in subjects})
    changed: dict[Subject, Head] = {}
    salts = os.urandom(entries.SALTS_BYTES * len(events))
    new: list[_New] = []
    rows = []
    for position, (event, subjects) in enumerate(zip(events, about, strict=True)):
        salt = salts[position * entries.SALTS_BYTES : (position + 1) * entries.SALTS_BYTES]
        entry = entries.event_entry(event, codes, salt, [(subject, heads.get(subject)) for subject in subjects])
        if len(entry) > ENTRY_MAX_BYTES:  # all long texts are digests in it
            raise LogBroken(f"The entry of event {event.id} has {len(entry)} bytes.")
        value = hash_of_entry(entry)
        for subject in subjects:
            before = heads.get(subject)
            heads[subject] = changed[subject] = Head(before.count + 1 if before else 1, index + position, value)
        new.append(_New(event.id, entry, value))
        rows.append(f"{event.id}\t\\\\x{salt.hex()}\n")
    new += [_New(None, entry, hash_of_entry(entry)) for entry in map(entries.missing_entry, lost)]
    _copy("lifecycle_eventsalt (event_id, salts)", rows)
    _store_heads(origin, changed)
    return new


def _accounts(names: Iterable[str]) -> dict[str, int]:
    found = User.objects.filter(username__in=set(names)).values_list("username", "pk")
    return dict(found)


def _codes(events: Sequence[StoredEvent], ids: dict[str, int]) -> dict[int, str]:
    """Return the pseudonyms of all accounts in `events` by account, new ones for those that had none."""
    wanted = {event.actor_id for event in events if event.actor_id is not None} | set(ids.values())
    about = {event.subject_id for event in events if event.subject_kind == "user" and event.subject_id is not None}
    wanted |= set(User.objects.filter(pk__in=about).values_list("pk", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("SELECT user_id, code FROM lifecycle_pseudonym WHERE user_id = ANY(%s)", [sorted(wanted)])
        codes: dict[int, str] = dict(cursor.fetchall())
        new = [(user, f"person-{secrets.token_hex(8)}") for user in sorted(wanted - codes.keys())]
        if new:
            statement = "INSERT INTO lifecycle_pseudonym (user_id, code, created_at) VALUES %s"
            execute_values(cursor.cursor, statement, new, template="(%s, %s, now())")
    return codes | dict(new)


def _heads(origin: LogOrigin, subjects: set[Subject]) -> dict[Subject, Head]:
    if not subjects:
        return {}
    kinds, keys = zip(*sorted(subjects), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT kind, key, count, index, hash FROM lifecycle_subjecthead WHERE origin_id = %s"
            " AND (kind, key) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
            [origin.pk, list(kinds), list(keys)],
        )
        return {(kind, key): Head(count, index, bytes(value)) for kind, key, count, index, value in cursor.fetchall()}


def _store_heads(origin: LogOrigin, heads: dict[Subject, Head]) -> None:
    rows = [
        SubjectHead(origin=origin, kind=kind, key=key, count=head.count, index=head.index, hash=head.hash)
        for (kind, key), head in sorted(heads.items())
    ]
    SubjectHead.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=("origin", "kind", "key"),
        update_fields=("count", "index", "hash"),
        batch_size=1000,
    )


def _append(
    origin: LogOrigin, before: LogCheckpoint | None, new: Sequence[_New], key: Ed25519PrivateKey, step: Step
) -> LogCheckpoint:
    """Add entries to the log, and sign its new head. Raises LogBroken when the stored tree is not the signed one."""
    size = before.size if before is not None else 0
    read = tile_reader(origin)
    if before is not None and Tree(read, size).root() != bytes(before.root):
        raise LogBroken(f"The stored tree of {origin} does not have the root that was signed at size {size}.")
    _copy(
        "lifecycle_sealedentry (origin_id, index, event_id, hash, entry)",
        [item.row(origin, size + i) for i, item in enumerate(new)],
    )
    changed = grown(read, size, [item.hash for item in new])
    with connection.cursor() as cursor:
        execute_values(
            cursor.cursor,
            "INSERT INTO lifecycle_logtile (origin_id, level, number, hashes) VALUES %s"
            " ON CONFLICT (origin_id, level, number) DO UPDATE SET hashes = excluded.hashes",
            [(origin.pk, level, number, hashes) for (level, number), hashes in changed.items()],
        )
    step("tiles")
    stored = reader_of(changed)
    new_size = size + len(new)
    head = Checkpoint(origin.name, new_size, Tree(lambda *place: stored(*place) or read(*place), new_size).root())
    checkpoint = LogCheckpoint.objects.create(
        origin=origin, size=head.size, root=head.root, note=head.signed(key), at=_now()
    )
    step("checkpoint")
    return checkpoint


def _copy(columns: str, rows: Sequence[str]) -> None:
    if rows:
        with connection.cursor() as cursor:
            cursor.cursor.copy_expert(f"COPY {columns} FROM STDIN", StringIO("".join(rows)))


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        row: tuple[Any, ...] = cursor.fetchone()
    moment: datetime = row[0]
    return moment
