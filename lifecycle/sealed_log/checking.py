"""The whole log derived again from its entries, and compared with what was signed and with the events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.db import connection

from lifecycle.audit.models import AuditEvent
from lifecycle.sealed_log.entries import HASHED, NO_SALT, SALT_BYTES, open_part, text_hash
from lifecycle.sealed_log.exporting import stored_of
from lifecycle.sealed_log.models import EventSalt, LogCheckpoint, LogOrigin, Pseudonym, SealedEntry
from lifecycle.sealed_log.queries import last_checkpoint
from lifecycle.sealed_log.sealer import number_of
from lifecycle.tlog.notes import Checkpoint, NoteRefused, VerifierKey
from lifecycle.tlog.tree import Growing, hash_of_entry

_CHUNK: Final = 2_000
_UNSEALED: Final = """
SELECT event.id FROM lifecycle_auditevent event
WHERE NOT EXISTS (SELECT FROM lifecycle_sealedentry entry WHERE entry.event_id = event.id)
  AND NOT EXISTS (SELECT FROM lifecycle_auditpending pending WHERE pending.event_id = event.id)
ORDER BY event.id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong first: with which log, and with which entry of it; None when it is about the whole log."""

    origin: str
    index: int | None
    text: str

    def __str__(self) -> str:
        place = self.origin if self.index is None else f"{self.origin}, entry {self.index}"
        return f"{place}: {self.text}" if self.origin else self.text


def check_log(*, alive: Callable[[int], None] = lambda count: None) -> tuple[int, Finding | None]:
    """Return (number of entries that were checked, what is wrong first). `alive` is told the number now and then."""
    codes = dict(Pseudonym.objects.exclude(user=None).values_list("user_id", "code"))
    count = 0
    sizes: dict[int, tuple[str, int]] = {}
    starts: list[dict[str, Any]] = []
    for origin in LogOrigin.objects.order_by("number"):
        if (head := last_checkpoint(origin)) is None:
            return count, Finding(origin.name, None, "The log has no checkpoint.")  # it began with one
        check = _Check(origin, head, codes)
        found = check.run(partial(_told, alive, count))
        count += head.size
        if found is not None:
            return count, found
        sizes[origin.number] = origin.name, head.size
        starts.append(check.start)
    if (found := _followed(sizes, starts)) is not None:
        return count, found
    with connection.cursor() as cursor:
        cursor.execute(_UNSEALED)
        row = cursor.fetchone()
    return count, Finding("", None, f"Event {row[0]} is in no log.") if row is not None else None


def _followed(sizes: Mapping[int, tuple[str, int]], starts: Sequence[Mapping[str, Any]]) -> Finding | None:
    """Return what is missing of the logs that later ones follow. `sizes` has (name, entries) by number.

    The first entry of a log says how much of the log before the database had then: so much must be here now.
    """
    have = dict(sizes.values())
    lost = set()  # logs of which the database had nothing when the next one began
    for start in starts:
        if (before := start.get("previous")) is None:
            continue
        if before["restored_size"] == 0:
            lost.add(number_of(before["origin"]))
        if have.get(before["origin"], 0) < before["restored_size"]:
            text = f"It follows {before['restored_size']} entries of {before['origin']}, which are not here any more."
            return Finding(start["origin"], 0, text)
    for number in range(1, max(sizes, default=0)):
        if number not in sizes and number not in lost:
            return Finding(f"log {number}", None, "The log is missing.")
    return None


def _told(alive: Callable[[int], None], before: int, done: int) -> None:
    alive(before + done)


class _Check:
    """The check of one log up to its last checkpoint."""

    def __init__(self, origin: LogOrigin, head: LogCheckpoint, codes: Mapping[int, str]) -> None:
        self.origin = origin
        self.head = head
        self.codes = codes
        self.tree = Growing()
        self.start: dict[str, Any] = {}  # the first entry, once it was read
        self.subjects: dict[tuple[str, str], tuple[int, str]] = {}
        checkpoints = LogCheckpoint.objects.filter(origin=origin).values_list("size", "root")
        self.roots = {size: bytes(root) for size, root in checkpoints.iterator(chunk_size=_CHUNK)}

    def run(self, alive: Callable[[int], None]) -> Finding | None:
        if found := self._signature():
            return found
        rows = SealedEntry.objects.filter(origin=self.origin, index__lt=self.head.size).order_by("index")
        chunk: list[SealedEntry] = []
        for row in rows.iterator(chunk_size=_CHUNK):
            chunk.append(row)
            if len(chunk) == _CHUNK:
                if found := self._chunk(chunk):
                    return found
                alive(self.tree.size)
                chunk = []
        if found := self._chunk(chunk):
            return found
        if self.tree.size < self.head.size:
            return self._bad(self.tree.size, "The entry is missing.")
        return None

    def _bad(self, index: int | None, text: str) -> Finding:
        return Finding(self.origin.name, index, text)

    def _signature(self) -> Finding | None:
        try:
            text = VerifierKey.parse(self.origin.key).text_of(self.head.note)
            signed = Checkpoint.parse(text)
        except NoteRefused as error:
            return self._bad(None, f"The last checkpoint cannot be trusted. {error}")
        if signed != Checkpoint(self.origin.name, self.head.size, bytes(self.head.root)):
            return self._bad(None, "The last checkpoint is not the one that was signed.")
        return None

    def _chunk(self, chunk: Sequence[SealedEntry]) -> Finding | None:
        ids = [row.event_id for row in chunk if row.event_id is not None]
        events = {event.pk: event for event in AuditEvent.objects.filter(pk__in=ids)}
        salts = dict(EventSalt.objects.filter(pk__in=ids).values_list("pk", "salts"))
        for row in chunk:
            if row.index != self.tree.size:
                return self._bad(self.tree.size, "The entry is missing.")
            entry = bytes(row.entry)
            leaf = hash_of_entry(entry)
            if leaf != bytes(row.hash):
                return self._bad(row.index, "The entry was changed.")
            self.tree.add(leaf)
            root = self.roots.get(self.tree.size)
            if root is not None and root != self.tree.root():
                return self._bad(row.index, "The entries up to this one do not lead to the root that was signed.")
            value = json.loads(entry)
            if value["type"] == "start":
                self.start = value
            if value["type"] == "event":
                salt = bytes(salts.get(row.event_id or 0, b""))
                problem = self._event(value, events.get(row.event_id or 0), salt) or self._links(value, leaf)
                if problem:
                    return self._bad(row.index, problem)
        return None

    def _event(self, value: dict[str, Any], event: AuditEvent | None, salts: bytes) -> str:
        if event is None or event.pk != value["event"]:
            return f"Event {value['event']} is no longer in the database."
        stored = stored_of(event)
        now = open_part(stored, self.codes)
        changed = [name for name in now if now[name] != value[name]]
        unsalted = []
        for position, name in enumerate(HASHED):
            salt = salts[position * SALT_BYTES : (position + 1) * SALT_BYTES]
            if len(salt) != SALT_BYTES or salt == NO_SALT:
                unsalted.append(name)  # nothing erases salts yet, so somebody hides a change
            elif text_hash(name, getattr(stored, name), salt) != value["hashed"][name]:
                changed.append(name)
        if changed:
            return f"Event {event.pk} was changed in the database: {', '.join(changed)}."
        if unsalted:
            return f"The salts of event {event.pk} are gone, so its texts cannot be checked: {', '.join(unsalted)}."
        return ""

    def _links(self, value: dict[str, Any], leaf: bytes) -> str:
        for link in value["links"]:
            place = (link["kind"], link["id"])
            count, previous = self.subjects.get(place, (0, None))
            if (link["n"], link["previous"]) != (count + 1, previous):
                return f"It does not follow number {count} of {link['kind']} {link['id']}."
            self.subjects[place] = (link["n"], leaf.hex())
        return ""
