"""Parsing of one OSV record: validated, reduced to the fields that we store, ranges compiled to intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from lifecycle.advisories.ranges import Interval, intervals_of
from lifecycle.advisories.severity import severity_of
from lifecycle.core.clock import stated
from lifecycle.core.errors import Malformed
from lifecycle.versions import KEY_MAX_BYTES, NAME_MAX_BYTES
from lifecycle.versions.coordinates import RELEASE_MAX_CHARS
from lifecycle.versions.ecosystems import SCHEMES, match_name, split_ecosystem

# Ids become file names and parts of URLs. The schema's own pattern is equally strict.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+~-]{0,199}")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})")
ALIASES_MAX: Final = 1000
REFERENCES_MAX: Final = 200
SUMMARY_MAX_CHARS: Final = 2000
DETAILS_MAX_CHARS: Final = 100_000
INTERVALS_MAX: Final = 50_000
_TEXT_MAX: Final = 500  # length of the columns for versions and names


class MalformedRecord(Malformed):
    """Not an OSV record, or not the record with the expected id."""

    code = "malformed_advisory"


@dataclass(frozen=True, slots=True)
class Affected:
    """Affected versions of one package in one release of one ecosystem."""

    ecosystem: str
    release: str
    name: str
    scheme: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class OsvRecord:
    """The fields of a record that we store."""

    osv_id: str
    modified: str
    published_at: datetime | None
    withdrawn_at: datetime | None
    aliases: tuple[str, ...]
    upstream: tuple[str, ...]
    related: tuple[str, ...]
    summary: str
    details: str
    severity: str
    score: float | None
    vector: str
    references: list[dict[str, str]] = field(default_factory=list)
    affected: tuple[Affected, ...] = ()


def is_id(text: str) -> bool:
    """Return whether `text` can be the id of a record: no path separators, no spaces."""
    return _ID.fullmatch(text) is not None


def parse_time(text: object) -> datetime | None:
    """Return an RFC 3339 time in UTC; None when it is invalid or out of range for Python or PostgreSQL."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return None
    try:
        parsed = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def is_same_time(left: str, right: str) -> bool:
    """Return whether two times are the same moment in any notation. Invalid times are compared as text."""
    first, second = parse_time(left), parse_time(right)
    return left == right if first is None or second is None else first == second


def parse_record(content: bytes, *, osv_id: str) -> OsvRecord:
    """Return the OSV record in `content`. Raises MalformedRecord when it is invalid or its id is not `osv_id`."""
    try:
        record = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise MalformedRecord(f"{osv_id}: not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("id") != osv_id:
        raise MalformedRecord(f"{osv_id}: the record is not an object with this id")
    modified = record.get("modified")
    if not isinstance(modified, str) or len(modified) > 40:
        raise MalformedRecord(f"{osv_id}: modified is missing or invalid")
    withdrawn = record.get("withdrawn")
    withdrawn_at = parse_time(withdrawn)
    if withdrawn and withdrawn_at is None:  # withdrawn at an invalid time
        withdrawn_at = parse_time(modified) or datetime(1970, 1, 1, tzinfo=UTC)
    word, score, vector = severity_of(record)
    return OsvRecord(
        osv_id=osv_id,
        modified=_clean(modified),
        published_at=stated(parse_time(record.get("published"))),
        withdrawn_at=withdrawn_at,
        aliases=_ids(record.get("aliases")),
        upstream=_ids(record.get("upstream")),
        related=_ids(record.get("related")),
        summary=_clean(record.get("summary"))[:SUMMARY_MAX_CHARS],
        details=_clean(record.get("details"))[:DETAILS_MAX_CHARS],
        severity=word,
        score=score,
        vector=_clean(vector),
        references=_references(record.get("references")),
        affected=_affected(record, osv_id),
    )


def _clean(text: object) -> str:
    """Return `text` without NUL, which PostgreSQL cannot store in text; "" for other types."""
    return text.replace("\x00", "") if isinstance(text, str) else ""


def _ids(value: object) -> tuple[str, ...]:
    ids = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
    return tuple(dict.fromkeys(text for item in ids[:ALIASES_MAX] if 0 < len(text := _clean(item)) <= 200))


def _references(value: object) -> list[dict[str, str]]:
    references = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    return [
        {"type": _clean(item.get("type"))[:40], "url": url}
        for item in references[:REFERENCES_MAX]
        if (url := _clean(item.get("url"))[:2000]).startswith(("https://", "http://"))
    ]


def _affected(record: Mapping[str, Any], osv_id: str) -> tuple[Affected, ...]:
    entries: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for entry in items if isinstance(items := record.get("affected"), list) else []:
        package = entry.get("package") if isinstance(entry, Mapping) else None
        if not isinstance(package, Mapping):
            continue
        ecosystem, release = split_ecosystem(_clean(package.get("ecosystem")))
        name = match_name(ecosystem, _clean(package.get("name")))
        if ecosystem not in SCHEMES or not name or len(name) > _TEXT_MAX or len(release) > RELEASE_MAX_CHARS:
            continue  # unsupported ecosystem or name: the record is stored, but this entry never matches
        entries.setdefault((ecosystem, name), {}).setdefault(release, []).append(entry)
    out: dict[Affected, None] = {}
    for (ecosystem, name), by_release in entries.items():
        scheme = SCHEMES[ecosystem]
        for release, own in by_release.items():
            # An entry without a release also applies to each release, so the fix of a release is the end of both.
            applying = own if not release else [*own, *by_release.get("", ())]
            for interval in _intervals(osv_id, scheme, name, applying):
                out[Affected(ecosystem, release, name, scheme, interval)] = None
    if len(out) > INTERVALS_MAX:
        raise MalformedRecord(f"{osv_id}: more than {INTERVALS_MAX} intervals")
    return tuple(out)


def _intervals(osv_id: str, scheme: str, name: str, entries: list[Mapping[str, Any]]) -> list[Interval]:
    try:
        intervals = intervals_of(scheme, *entries)
    except ValueError as error:
        raise MalformedRecord(f"{osv_id}: {error}") from None
    if intervals and (len(name.encode()) > NAME_MAX_BYTES or not all(map(_fits, intervals))):
        raise MalformedRecord(f"{osv_id}: a name or version is too long or contains NUL")
    return intervals


def _fits(interval: Interval) -> bool:
    """Return whether texts and keys fit their columns and indexes and contain no NUL. All real versions do."""
    texts = (interval.low_text, interval.high_text, interval.fixed_version, interval.exact_version)
    keys = (interval.low or b"", interval.high or b"")
    return all(len(text) <= _TEXT_MAX and "\x00" not in text for text in texts) and all(
        len(key) <= KEY_MAX_BYTES for key in keys
    )
