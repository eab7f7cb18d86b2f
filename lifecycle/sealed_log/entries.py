"""Entries of the log: an event as canonical JSON without personal texts, and its links to earlier entries.

An entry names people by pseudonym. Names, addresses, tokens, request ids, reasons and details are salted hashes in it:
the texts stay in the audit event and can be erased there, without a change to the tree. Large details are so a digest
in the entry as well, and no entry comes near the 65,535 bytes that a bundle can hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

import orjson

from lifecycle.sealed_log.types import StoredEvent
from lifecycle.tlog.canonical import canonical

VERSION: Final = 1
HASHED: Final = ("actor_name", "token_lookup", "address", "request_id", "reason", "details")  # in the order of salts
SALT_BYTES: Final = 16
SALTS_BYTES: Final = SALT_BYTES * len(HASHED)
NO_SALT: Final = bytes(SALT_BYTES)  # the salt of an erased text
PEOPLE_IN_DETAILS: Final = ("user", "voter", "person")  # details that contain the user name of an account

Subject = tuple[str, str]  # its kind and what names it


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry about a subject: its running number, its index, and its hash."""

    count: int
    index: int
    hash: bytes


def names_in(event: StoredEvent) -> Iterator[str]:
    """Yield the user names that an event's details contain."""
    for key in PEOPLE_IN_DETAILS:
        if isinstance(name := event.details.get(key), str):
            yield name


def subjects_of(event: StoredEvent, codes: Mapping[int, str], ids: Mapping[str, int]) -> list[Subject]:
    """Return what an event is about: image, environment, request, team and people, each once.

    `codes` has the pseudonyms by account, and `ids` the accounts by user name.
    """
    found: dict[Subject, None] = {}
    if event.digest:
        found["image", event.digest] = None
    if event.environment:
        found["environment", f"{event.team_id}/{event.environment}"] = None
    if event.subject_kind == "promotionrequest" and event.subject_id is not None:
        found["request", str(event.subject_id)] = None
    if event.team_id is not None:
        found["team", str(event.team_id)] = None
    people = [event.actor_id, event.subject_id if event.subject_kind == "user" else None]
    people += [ids.get(name) for name in names_in(event)]
    for person in people:
        if person is not None and person in codes:
            found["person", codes[person]] = None
    return list(found)


def text_hash(name: str, value: Any, salt: bytes) -> str:
    """Return the salted hash of one text of an event, in hex: SHA-256 over salt, name, a zero byte, canonical JSON."""
    return hashlib.sha256(salt + name.encode() + b"\0" + canonical(value)).hexdigest()


def text_hashes(event: StoredEvent, salts: bytes) -> dict[str, str]:
    """Return the salted hashes of all personal texts of an event."""
    return {
        name: text_hash(name, getattr(event, name), salts[i * SALT_BYTES : (i + 1) * SALT_BYTES])
        for i, name in enumerate(HASHED)
    }


def open_part(event: StoredEvent, codes: Mapping[int, str]) -> dict[str, Any]:
    """Return what an entry says openly about an event."""
    subject_id: int | str | None = event.subject_id
    if event.subject_kind == "user" and event.subject_id is not None:
        subject_id = codes.get(event.subject_id)
    return {
        "event": event.id,
        "at": event.at.astimezone(UTC).isoformat(),
        "action": event.action,
        "outcome": event.outcome,
        "actor": codes.get(event.actor_id) if event.actor_id is not None else None,
        "team": event.team_id,
        "subject": {"kind": event.subject_kind, "id": subject_id},
        "digest": event.digest,
        "repository": event.repository,
        "environment": event.environment,
    }


def event_entry(
    event: StoredEvent, codes: Mapping[int, str], salts: bytes, links: Sequence[tuple[Subject, Head | None]]
) -> bytes:
    """Return the entry of an event. `links` has each subject with its entry before, None for the first."""
    return _bytes(
        {
            "v": VERSION,
            "type": "event",
            **open_part(event, codes),
            "hashed": text_hashes(event, salts),
            "links": [
                {
                    "kind": kind,
                    "id": key,
                    "n": head.count + 1 if head is not None else 1,
                    "previous": head.hash.hex() if head is not None else None,
                }
                for (kind, key), head in links
            ],
        }
    )


def start_entry(*, origin: str, at: str, why: str, backlog: int, previous: dict[str, Any] | None) -> bytes:
    """Return the first entry of a log. `backlog` is the number of events that were recorded before.

    `previous` names the log that it follows, if any: its origin, the size and root that others have seen, and the size
    that the database had.
    """
    return _bytes(
        {
            "v": VERSION, "type": "start", "origin": origin, "at": at, "why": why, "backlog": backlog,
            "previous": previous,
        }
    )  # fmt: skip


def missing_entry(event_id: int) -> bytes:
    """Return the entry of an event that was gone when its turn came: the gap stays visible."""
    return _bytes({"v": VERSION, "type": "missing", "event": event_id})


def _bytes(value: dict[str, Any]) -> bytes:
    # Keys are ASCII and numbers are whole, so this is canonical JSON (a test compares), and ten times faster.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
