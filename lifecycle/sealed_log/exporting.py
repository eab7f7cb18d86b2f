"""A signed export of events: a zip file with entries, proofs and texts, which `gravingdock-verify` checks offline."""

from __future__ import annotations

import base64
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import IO, Any, Final, TypeVar

import orjson
from django.conf import settings
from django.db import transaction
from django.db.models import Max, Min, Q, QuerySet

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import AuditExported
from lifecycle.audit.models import AuditEvent
from lifecycle.audit.queries import filtered
from lifecycle.audit.types import EventFilter
from lifecycle.authority.covers import whole_teams
from lifecycle.authority.queries import audited_teams, events_visible_to
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, MalformedDigest, NotFound
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import Digest
from lifecycle.sealed_log.access import why_not_read_log
from lifecycle.sealed_log.entries import HASHED, open_part
from lifecycle.sealed_log.models import EventSalt, LogCheckpoint, LogOrigin, Pseudonym, SealedEntry
from lifecycle.sealed_log.queries import entries_about, last_checkpoint, tile_content, tree_of
from lifecycle.sealed_log.types import StoredEvent
from lifecycle.tlog.notes import proof_text
from lifecycle.tlog.tiles import names_between
from lifecycle.tlog.tree import Tree, TreeBroken

FORMAT: Final = "gravingdock-audit-export/1"
EXPORT_MAX: Final = 50_000  # entries in one file over the web; `manage.py export_audit_log` has no limit
MEDIA_TYPE: Final = "application/zip"
FILE_NAME: Final = "audit-log.zip"
_IN_MEMORY_BYTES: Final = 8 * 1024 * 1024
_CHUNK: Final = 1_000
_Row = TypeVar("_Row")
_FIRST_OF_LATER: Final = Q(index=0, origin__number__gt=1)  # each tells what its log follows
_NO_SUBJECT: Final = "There is no such subject, or you don't have access."
_REQUEST: Final = re.compile(r"PR-([0-9]{1,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export: days in UTC, or one subject; all without both. `since_size`: of a checkpoint that was kept.

    A subject is an image's digest, PR-13, "team shop", "person kim" or "environment shop/production".
    """

    since: date | None = None
    until: date | None = None
    subject: str = ""
    since_size: int | None = None

    def as_json(self) -> dict[str, str]:
        """Return the fields that are set, for the audit event."""
        given = {"since": self.since, "until": self.until, "subject": self.subject, "since_size": self.since_size}
        return {name: str(value) for name, value in given.items() if value}


@dataclass(slots=True)
class _Selection:
    """The entries to export, and what the file can claim about them."""

    entries: QuerySet[SealedEntry]
    about: dict[str, Any] = field(default_factory=dict)
    is_whole: bool = False


def export(actor: User, wanted: Wanted, *, limit: int | None = EXPORT_MAX) -> IO[bytes]:
    """Record an export by `actor` and return its file, open at its beginning.

    It contains what is sealed of the events that `actor` can read; all of them for the system user, in whose name a
    command on the server runs. Raises NotPermitted, Malformed for an unknown subject, and Conflict when there is more
    than `limit`.
    """
    is_system = actor.kind == User.Kind.SYSTEM
    if not is_system:
        refuse_if(why_not_read_log(actor))
    visible = AuditEvent.objects.all() if is_system else events_visible_to(actor)
    has_all = is_system or whole_teams(actor, Verb.AUDIT_READ) is None
    heads = _heads()  # once: the log grows meanwhile
    selection = _selection(actor, visible, wanted, heads, has_all=has_all)
    if limit is not None and selection.entries[: limit + 1].count() > limit:
        raise Conflict(
            f"These are more than {limit:,} entries. Choose fewer days, or run `manage.py export_audit_log`."
        )
    with transaction.atomic():
        details = AuditExported(format="sealed", filter=wanted.as_json())
        audit.record(Action.AUDIT_EXPORTED, actor=actor, details=details)
    stream = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=settings.SCRATCH or None)  # noqa: SIM115 -- the caller reads it
    with transaction.atomic(), zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _write(archive, selection, heads, wanted, actor)
    stream.seek(0)
    return stream


def proof_of(event: AuditEvent) -> str:
    """Return the proof that an event is in the log, which names its entry: https://c2sp.org/tlog-proof.

    Raises Conflict when the event is not sealed yet.
    """
    entry = entries_about(event.pk).select_related("origin").first()
    checkpoint = last_checkpoint(entry.origin) if entry is not None else None
    if entry is None or checkpoint is None:
        raise Conflict("This event is not sealed yet. Try again in a few seconds.")
    return proof_text(entry.index, tree_of(checkpoint).inclusion(entry.index), checkpoint.note)


def _heads() -> dict[int, LogCheckpoint]:
    """Return the last checkpoint of each log by the id of its origin, the oldest log first."""
    found = ((origin.pk, last_checkpoint(origin)) for origin in LogOrigin.objects.order_by("number"))
    return {pk: head for pk, head in found if head is not None}


def _selection(
    actor: User, visible: QuerySet[AuditEvent], wanted: Wanted, heads: Mapping[int, LogCheckpoint], *, has_all: bool
) -> _Selection:
    entries = SealedEntry.objects.order_by("origin__number", "index")
    events = filtered(visible, EventFilter(since=wanted.since, until=wanted.until))
    if wanted.subject:
        teams = Team.objects.all() if has_all else audited_teams(actor)
        subject, condition, is_team = _subject(wanted.subject, teams)
        if subject["kind"] == "person" and not has_all and not visible.filter(condition).exists():
            raise NotFound(_NO_SUBJECT)  # the reader sees nothing of them, so they are as absent
        about: dict[str, Any] = {"subject": subject}
        if wanted.since is None and (has_all or is_team):
            about["is_from_start"] = True
        return _Selection(_with_starts(entries, events.filter(condition)), about)
    if not has_all:
        return _Selection(_with_starts(entries, events))
    if wanted.since is None and wanted.until is None:
        return _Selection(entries, {"range": _all_ranges(heads)}, is_whole=True)
    spans = (
        SealedEntry.objects.filter(event_id__in=events.values("pk"))
        .values_list("origin")
        .annotate(first=Min("index"), last=Max("index"))
        .order_by("origin")
    )
    found = {origin: (first, last) for origin, first, last in spans}
    condition, ranges = _FIRST_OF_LATER, {}
    for pk, head in heads.items():
        first, last = found.get(pk) or _between(visible, wanted, head)
        first, last = (
            min(max(first - 1, 0), head.size - 1),
            min(last + 1, head.size - 1),
        )  # with neighbours, which are of other days
        condition |= Q(origin=pk, index__gte=first, index__lte=last)
        ranges[str(head.origin.number)] = [first, last]
    return _Selection(entries.filter(condition), {"range": ranges})


def _between(visible: QuerySet[AuditEvent], wanted: Wanted, head: LogCheckpoint) -> tuple[int, int]:
    """Return (first, last) of no entry, first = last + 1: where the days would be in a log without an event of them."""
    if wanted.since is None:
        return 1, 0
    before = visible.filter(at__lt=datetime.combine(wanted.since, time(), UTC))
    rows = SealedEntry.objects.filter(origin=head.origin, index__lt=head.size, event_id__in=before.values("pk"))
    last: int | None = rows.aggregate(last=Max("index"))["last"]
    return (last + 1, last) if last is not None else (1, 0)


def _with_starts(entries: QuerySet[SealedEntry], events: QuerySet[AuditEvent]) -> QuerySet[SealedEntry]:
    """Return the entries of `events`, and the first entry of each log after the first, which tells of a restore."""
    return entries.filter(Q(event_id__in=events.values("pk")) | _FIRST_OF_LATER)


def _all_ranges(heads: Mapping[int, LogCheckpoint]) -> dict[str, list[int]]:
    return {str(head.origin.number): [0, head.size - 1] for head in heads.values()}


def _subject(text: str, teams: QuerySet[Team]) -> tuple[dict[str, str], Q, bool]:
    """Return (the subject as entries name it, the condition for its events, whether it is a team), among `teams`."""
    kind, _, name = text.strip().partition(" ")
    if found := _REQUEST.fullmatch(text.strip()):
        condition = Q(subject_kind="promotionrequest", subject_id=int(found[1]))
        return {"kind": "request", "id": found[1]}, condition, False
    if kind == "team":
        team = teams.filter(slug=name.strip()).first()
        return {"kind": "team", "id": str(_found(team).pk)}, Q(team=team), True
    if kind == "person":
        user = User.objects.filter(username=name.strip()).first()
        code = Pseudonym.objects.filter(user=_found(user)).values_list("code", flat=True).first() or ""
        about = Q(actor=user) | Q(subject_kind="user", subject_id=_found(user).pk)
        for key in ("user", "voter", "person"):
            about |= Q(**{f"details__{key}": _found(user).username})
        return {"kind": "person", "id": code}, about, False
    if kind == "environment":
        slug, _, environment = name.strip().partition("/")
        team = _found(teams.filter(slug=slug).first())
        about = Q(team=team, environment=environment)
        return {"kind": "environment", "id": f"{team.pk}/{environment}"}, about, False
    try:
        digest = Digest.parse(text.strip()).text
    except MalformedDigest:
        raise Malformed(
            "Unknown subject. Use a digest (sha256:...), PR-13, team shop, person kim or environment shop/production.",
            field="subject",
        ) from None
    return {"kind": "image", "id": digest}, Q(digest=digest), False


def _found(row: _Row | None) -> _Row:
    if row is None:
        raise NotFound(_NO_SUBJECT)
    return row


def _write(
    archive: zipfile.ZipFile,
    selection: _Selection,
    heads: Mapping[int, LogCheckpoint],
    wanted: Wanted,
    actor: User,
) -> None:
    document = {
        "format": FORMAT,
        "made_at": clock.now().isoformat(),
        "made_by": actor.username,
        "filter": wanted.as_json(),
        "origins": [
            {"number": head.origin.number, "key": head.origin.key, "checkpoint": head.note} for head in heads.values()
        ],
        **selection.about,
    }
    archive.writestr("export.json", orjson.dumps(document, option=orjson.OPT_INDENT_2))
    with archive.open("entries.jsonl", "w") as stream:
        for line in _lines(selection.entries, heads):
            stream.write(line + b"\n")
    archive.writestr("consistency.jsonl", b"".join(_consistency(heads.values(), wanted.since_size)))
    if selection.is_whole:
        for head in heads.values():
            _write_log(archive, head)


def _lines(rows: QuerySet[SealedEntry], heads: Mapping[int, LogCheckpoint]) -> Iterator[bytes]:
    trees: dict[int, Tree] = {pk: tree_of(head) for pk, head in heads.items()}
    codes = dict(Pseudonym.objects.exclude(user=None).values_list("user_id", "code"))
    chunk: list[SealedEntry] = []
    for row in rows.iterator(chunk_size=_CHUNK):
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield from _lines_of(chunk, trees, heads, codes)
            chunk = []
    yield from _lines_of(chunk, trees, heads, codes)


def _lines_of(
    chunk: Sequence[SealedEntry],
    trees: Mapping[int, Tree],
    heads: Mapping[int, LogCheckpoint],
    codes: Mapping[int, str],
) -> Iterator[bytes]:
    ids = [row.event_id for row in chunk if row.event_id is not None]
    events = {event.pk: row_of(event, codes) for event in AuditEvent.objects.filter(pk__in=ids)}
    salts = dict(EventSalt.objects.filter(pk__in=ids).values_list("pk", "salts"))
    for row in chunk:
        if _is_newer(row, heads):
            continue
        yield orjson.dumps(
            {
                "origin": heads[row.origin_id].origin.number,
                "index": row.index,
                "entry": bytes(row.entry).decode(errors="replace"),
                "proof": _base64(_proof(trees[row.origin_id], row.index)),
                "event": events.get(row.event_id) if row.event_id is not None else None,
                "salts": bytes(salts.get(row.event_id or 0, b"")).hex(),
            }
        )


def _is_newer(row: SealedEntry, heads: Mapping[int, LogCheckpoint]) -> bool:
    """Return whether an entry was sealed while the file is written. One that no checkpoint covers is a forgery."""
    if row.origin_id in heads and row.index < heads[row.origin_id].size:
        return False
    now = last_checkpoint(row.origin)
    return row.origin_id not in heads or (now is not None and row.index < now.size)


def _proof(tree: Tree, index: int) -> list[bytes]:
    """Return the proof of an entry; none where the stored log is damaged, as the reader of the export will see."""
    try:
        return tree.inclusion(index)
    except (IndexError, TreeBroken):
        return []


def row_of(event: AuditEvent, codes: Mapping[int, str]) -> dict[str, Any]:
    """Return what the database says about an event, by the names of an entry."""
    stored = stored_of(event)
    return {**open_part(stored, codes), **{name: getattr(stored, name) for name in HASHED}}


def stored_of(event: AuditEvent) -> StoredEvent:
    """Return the row as the sealer reads it."""
    return StoredEvent(
        id=event.pk, at=event.at, action=event.action, outcome=event.outcome, actor_id=event.actor_id,
        actor_name=event.actor_name, token_lookup=event.token_lookup, address=event.address,
        request_id=event.request_id, team_id=event.team_id, subject_kind=event.subject_kind,
        subject_id=event.subject_id, digest=event.digest, repository=event.repository,
        environment=event.environment, reason=event.reason, details=event.details,
    )  # fmt: skip


def _consistency(heads: Any, since_size: int | None) -> Iterator[bytes]:
    for head in heads:
        if since_size is not None and 0 < since_size < head.size:
            proof = _base64(tree_of(head).consistency(since_size))
            yield orjson.dumps({"origin": head.origin.number, "size": since_size, "proof": proof}) + b"\n"


def _write_log(archive: zipfile.ZipFile, head: LogCheckpoint) -> None:
    """Add the files of a whole log, as any tool for tiles reads them."""
    place = f"log/{head.origin.number}"
    for name in names_between(0, head.size):
        if (content := tile_content(head.origin, name, head.size)) is not None:
            archive.writestr(f"{place}/tile/{name}", content)
    archive.writestr(f"{place}/key", f"{head.origin.key}\n")
    archive.writestr(f"{place}/checkpoint", head.note)


def _base64(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(value).decode() for value in hashes]
