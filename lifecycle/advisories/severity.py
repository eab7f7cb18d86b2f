"""The severity of an advisory as one word, from its CVSS v4, v3 or v2 vector, else from its vendor's rating."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from cvss import CVSS2, CVSS3, CVSS4
from cvss.exceptions import CVSSError

from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM, NONE, SEVERITIES, UNKNOWN

# GHSA, Debian urgency, Ubuntu priority, Red Hat. "unimportant" and "negligible" are the lowest ratings of vendors.
_VENDOR_WORDS: Final = {
    "critical": CRITICAL,
    "high": HIGH,
    "important": HIGH,
    "medium": MEDIUM,
    "moderate": MEDIUM,
    "low": LOW,
    "minor": LOW,
    "negligible": LOW,
    "unimportant": LOW,
    "none": NONE,
}
_CVSS_TYPES: Final = ("CVSS_V4", "CVSS_V3", "CVSS_V2")
_VECTOR_MAX_CHARS: Final = 200
# Fields of RubyGems and RustSec with a score or a vector, for the CVSS version that applies to a bare score.
_CVSS_FIELDS: Final = {"cvss_v4": "CVSS_V4", "cvss_v3": "CVSS_V3", "cvss": "CVSS_V3", "cvss_v2": "CVSS_V2"}
_SCORE: Final = re.compile(r"\d{1,2}(?:\.\d{1,2})?", re.ASCII)
_VECTOR_STARTS: Final = {"CVSS:4.": "CVSS_V4", "CVSS:3.": "CVSS_V3", "AV:": "CVSS_V2"}
# AlmaLinux, Rocky Linux and Red Hat begin the summary of a security advisory with their rating: "Important: kernel".
_RATED_ID: Final = re.compile(r"[A-Z]{1,4}SA-\d{4}:\S+")


def word_of_score(score: float, kind: str = "CVSS_V3") -> str:
    """Return the severity of a base score, by the rating table of CVSS v3 and v4; CVSS v2 has no critical."""
    if score >= 9.0 and kind != "CVSS_V2":
        return CRITICAL
    if score >= 7.0:
        return HIGH
    if score >= 4.0:
        return MEDIUM
    return LOW if score > 0 else NONE


@lru_cache(maxsize=65536)
def base_score(kind: str, vector: str) -> float | None:
    """Return the base score of `vector`, 0 to 10, or None when it is malformed."""
    try:
        if kind == "CVSS_V4":
            return float(CVSS4(vector).base_score)
        if kind == "CVSS_V3":
            return float(CVSS3(vector).scores()[0])
        return float(CVSS2(vector).scores()[0])
    except (CVSSError, ValueError, KeyError, ArithmeticError):
        return None


def severity_of(record: Mapping[str, Any]) -> tuple[str, float | None, str]:
    """Return (severity, score or None, vector or "") from the data in one OSV record."""
    affected = [entry for entry in _list(record.get("affected")) if isinstance(entry, Mapping)]
    stated = _list(record.get("severity")) or [item for entry in affected for item in _list(entry.get("severity"))]
    stated = [item for item in stated if isinstance(item, Mapping)]
    given = [*_given_scores(record, affected)]
    for kind in _CVSS_TYPES:
        scored = [
            (score, vector.strip())
            for item in stated
            if item.get("type") == kind and isinstance(vector := item.get("score"), str)
            if (score := base_score(kind, vector.strip())) is not None
        ] or [(score, vector) for of, score, vector in given if of == kind]
        if scored:
            score, vector = max(scored)
            return word_of_score(score, kind), score, vector[:_VECTOR_MAX_CHARS]
    return _worst(_vendor_words(record, stated, affected)), None, ""


def _given_scores(record: Mapping[str, Any], affected: list[Mapping[str, Any]]) -> Iterator[tuple[str, float, str]]:
    """Yield (kind, base score, vector or "") of CVSS scores that a database keeps in fields of its own."""
    for specific in _specifics(record, affected):
        for field, kind in _CVSS_FIELDS.items():
            value = specific.get(field)
            text = str(value).strip() if isinstance(value, str | int | float) else ""
            of = next((of for start, of in _VECTOR_STARTS.items() if text.startswith(start)), None)
            vector_score = base_score(of, text) if of else None
            if of and vector_score is not None:
                yield of, vector_score, text
            elif _SCORE.fullmatch(text) and (score := float(text)) <= 10:
                yield kind, score, ""


def _specifics(record: Mapping[str, Any], affected: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for part in (record, *affected):
        for name in ("database_specific", "ecosystem_specific"):
            specific = part.get(name)
            if isinstance(specific, Mapping):
                yield specific


def _vendor_words(record: Mapping[str, Any], stated: list[Any], affected: list[Mapping[str, Any]]) -> Iterable[object]:
    yield from (item.get("score") for item in stated if item.get("type") not in _CVSS_TYPES)
    for specific in _specifics(record, affected):
        yield from (specific.get(key) for key in ("severity", "urgency", "priority", "impact"))
    osv_id, summary = record.get("id"), record.get("summary")
    if isinstance(osv_id, str) and isinstance(summary, str) and _RATED_ID.fullmatch(osv_id):
        yield summary.partition(":")[0]


def _worst(words: Iterable[object]) -> str:
    known = {
        _VENDOR_WORDS[text]
        for word in words
        if isinstance(word, str) and (text := word.strip(" *").lower()) in _VENDOR_WORDS
    }
    return next((word for word in SEVERITIES if word in known), UNKNOWN)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
