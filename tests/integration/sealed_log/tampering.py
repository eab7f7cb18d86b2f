"""What somebody who owns the database can do to a log of 11 entries, and the entry at which it shows."""

from __future__ import annotations

from accounts.models import User
from lifecycle.sealed_log.models import SealedEntry
from tests.services import Services

TAMPERING = {
    "edit an event": ("UPDATE lifecycle_auditevent SET action = 'x' WHERE id = {event}", 5),
    "edit a reason": ("UPDATE lifecycle_auditevent SET reason = 'because' WHERE id = {event}", 5),
    "edit an address": ("UPDATE lifecycle_auditevent SET address = '192.0.2.1' WHERE id = {event}", 5),
    "edit details": ("UPDATE lifecycle_auditevent SET details = '{{}}' WHERE id = {event}", 5),
    "hide an edit by zeros": ("UPDATE lifecycle_auditevent SET reason = 'because' WHERE id = {event};"
                              " UPDATE lifecycle_eventsalt SET salts = decode(repeat('00', 96), 'hex')"
                              " WHERE event_id = {event}", 5),
    "hide an edit by a lost row": ("UPDATE lifecycle_auditevent SET details = '{{}}' WHERE id = {event}; DELETE FROM"
                                   " lifecycle_eventsalt WHERE event_id = {event}", 5),
    "blame another": ("UPDATE lifecycle_auditevent SET actor_id = {other} WHERE id = {event}", 5),
    "delete an event": ("DELETE FROM lifecycle_auditevent WHERE id = {event}", 5),
    "edit an entry": ("UPDATE lifecycle_sealedentry SET entry = replace(encode(entry, 'escape'), 'refused', 'started')"
                      "::bytea WHERE index = 5", 5),
    "delete an entry": ("DELETE FROM lifecycle_sealedentry WHERE index = 5", 5),
    "swap two entries": ("UPDATE lifecycle_sealedentry a SET entry = b.entry, event_id = NULL FROM"
                         " lifecycle_sealedentry b WHERE a.index IN (5, 7) AND b.index = 12 - a.index", 5),
    "insert an entry": ("INSERT INTO lifecycle_sealedentry (origin_id, index, event_id, hash, entry) SELECT origin_id,"
                        " 11, NULL, hash, entry FROM lifecycle_sealedentry WHERE index = 5", 11),
    "cut the tail": ("DELETE FROM lifecycle_sealedentry WHERE index >= 8; DELETE FROM lifecycle_logcheckpoint"
                     " WHERE size > 8; UPDATE lifecycle_logtile SET hashes = substr(hashes, 1, 8 * 32)", 8),
    "edit a tile": ("UPDATE lifecycle_logtile SET hashes = set_byte(hashes, 5 * 32, 1)", None),
}  # fmt: skip


def tamper(how: str, services: Services) -> int | None:
    """Do it, past all triggers; return the index at which it shows, None where only the whole shows it."""
    statement, index = TAMPERING[how]
    event = SealedEntry.objects.get(index=5).event_id
    other = User.objects.create(username="other").pk
    services._as_superuser(
        f"SET session_replication_role = replica; {statement.format(event=event, other=other)};"
        " SET session_replication_role = DEFAULT"
    )
    return index


def forget_log(number: int, services: Services) -> None:
    """Remove a whole log, with the events in it and all that names it."""
    of_log = f"(SELECT id FROM lifecycle_logorigin WHERE number = {number})"
    tables = ("logcheckpoint", "logtile", "subjecthead", "sealedentry")
    events = f"(SELECT event_id FROM lifecycle_sealedentry WHERE origin_id = {of_log})"
    services._as_superuser(
        "SET session_replication_role = replica;"
        f" DELETE FROM lifecycle_auditevent WHERE id IN {events};"
        f" DELETE FROM lifecycle_eventsalt WHERE event_id IN {events};"
        + "".join(f" DELETE FROM lifecycle_{table} WHERE origin_id = {of_log};" for table in tables)
        + f" DELETE FROM lifecycle_logorigin WHERE number = {number}; SET session_replication_role = DEFAULT"
    )
