"""OSV `affected` entries compiled to disjoint intervals of versions (osv-schema, "Evaluation")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import groupby
from typing import Any, Final

from lifecycle import versions

# The schema does not define ties; osv.dev breaks them in this order. Limits are handled separately.
_TIE_ORDER: Final = {"introduced": 0, "last_affected": 1, "fixed": 2}
_KINDS: Final = frozenset(_TIE_ORDER) | {"limit"}
_BEGINNING: Final = "0"  # means the beginning in every ecosystem; not a version
_NO_LIMIT: Final = "*"
EVENTS_MAX: Final = 10_000  # per range; the largest real range has a few hundred
VERSIONS_MAX: Final = 100_000
_COMPARISONS_MAX: Final = 10_000_000  # listed versions times ranges; takes seconds. The largest real entry needs 5,248

Position = Any  # bytes, or an object with Maven's order; both support < and ==


@dataclass(frozen=True, slots=True)
class Interval:
    """Affected versions between two bounds, a single version (`low` = `high`), or a range that could not be parsed.

    A bound of None means no bound. `fixed_version` is the version of the `fixed` event at its end, else "".
    `exact_version` is an entry of `versions` that is invalid in its scheme; it is compared as text.
    """

    low: bytes | None = None
    low_inclusive: bool = True
    high: bytes | None = None
    high_inclusive: bool = False
    low_text: str = ""
    high_text: str = ""
    fixed_version: str = ""
    exact_version: str = ""
    is_unevaluated: bool = False


@dataclass(frozen=True, slots=True)
class _Event:
    kind: str
    text: str
    at: Position | None  # None: before all versions, or no limit


@dataclass(frozen=True, slots=True)
class _Span:
    """An interval of positions, before it is converted to an Interval."""

    low: _Event | None
    low_inclusive: bool
    high: _Event | None
    high_inclusive: bool

    def holds(self, at: Position) -> bool:
        low = None if self.low is None else self.low.at
        if low is not None and (at < low or (at == low and not self.low_inclusive)):
            return False
        if self.high is None:
            return True
        high = self.high.at
        return high is not None and (at < high or (at == high and self.high_inclusive))


def intervals_of(scheme: str, entry: Mapping[str, Any]) -> list[Interval]:
    """Return the affected versions of one `affected` entry, from `ranges` and `versions`; [] when it has neither.

    Raises ValueError for too many versions.
    """
    spans: list[_Span] = []
    out: list[Interval] = []
    for item in _list(entry.get("ranges")):
        if not isinstance(item, Mapping) or item.get("type") == "GIT":  # commits are not versions
            continue
        events = [event for event in _list(item.get("events")) if isinstance(event, Mapping)]
        try:
            spans += _spans(scheme, events)
        except ValueError:
            out.append(Interval(low_text=_as_text(events), is_unevaluated=True))
    out += [_interval(scheme, span) for span in spans]
    out += _points(scheme, _list(entry.get("versions")), spans)
    return list(dict.fromkeys(out))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _as_text(events: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{kind} {value}" for event in events for kind, value in event.items())[:500]


def _position(scheme: str, text: str, *, is_last_affected: bool = False) -> Position:
    if scheme == versions.MAVEN:
        versions.check(scheme, text)
        return _maven_position(text)
    return versions.bound_key(scheme, text, is_last_affected=is_last_affected)


def _compare_maven(left: str, right: str) -> int:
    return versions.compare(versions.MAVEN, left, right)


_maven_position = cmp_to_key(_compare_maven)


def _events(scheme: str, events: Sequence[Mapping[str, Any]]) -> Iterator[_Event]:
    """Yield the events with their positions. Raises ValueError for an event that does not parse."""
    if len(events) > EVENTS_MAX:
        raise ValueError("too many events")
    for event in events:
        for kind, value in event.items():
            if kind not in _KINDS:
                continue
            if not isinstance(value, str):
                raise ValueError("an event value is not a string")
            if (kind == "introduced" and value == _BEGINNING) or (kind == "limit" and value == _NO_LIMIT):
                yield _Event(kind, value, None)
            else:
                yield _Event(kind, value, _position(scheme, value, is_last_affected=kind == "last_affected"))


def _spans(scheme: str, raw: Sequence[Mapping[str, Any]]) -> list[_Span]:
    """Walk the events in version order and return the affected spans. Raises ValueError."""
    events = list(_events(scheme, raw))
    limits = [event for event in events if event.kind == "limit"]
    first = [event for event in events if event.kind != "limit" and event.at is None]
    ordered = sorted(
        (event for event in events if event.kind != "limit" and event.at is not None),
        key=lambda event: _TIE_ORDER[event.kind],
    )
    ordered.sort(key=lambda event: event.at)  # type: ignore[arg-type, return-value]  # stable; bytes or Maven positions
    spans: list[_Span] = []
    low: _Event | None = first[0] if first else None
    low_inclusive = True
    affected = bool(first)
    for _, group in groupby(ordered, key=lambda event: event.at):
        events_here = list(group)
        at_it = after_it = affected
        for event in events_here:
            # A version equal to `last_affected` is still affected; later versions are not.
            at_it = {"introduced": True, "fixed": False, "last_affected": at_it}[event.kind]
            after_it = event.kind == "introduced"
        if affected and not at_it:
            ending = next((event for event in events_here if event.kind == "fixed"), events_here[-1])
            spans.append(_Span(low, low_inclusive, ending, False))
            low = None
        elif not affected and at_it:
            low, low_inclusive = events_here[0], True
        if at_it and not after_it:
            ending = next((event for event in events_here if event.kind == "last_affected"), events_here[-1])
            spans.append(_Span(low, low_inclusive, ending, True))
            low = None
        elif not at_it and after_it:
            low, low_inclusive = events_here[0], False
        affected = after_it
    if affected:
        spans.append(_Span(low, low_inclusive, None, False))
    return _below_limit(spans, limits)


def _below_limit(spans: list[_Span], limits: list[_Event]) -> list[_Span]:
    """Cut the spans at the largest limit: a version must be below at least one limit (`*` is infinity)."""
    positions: list[Any] = [limit.at for limit in limits if limit.at is not None]
    if not limits or len(positions) < len(limits):
        return spans
    end: Any = max(positions)
    largest = next(limit for limit in limits if limit.at == end)
    out = []
    for span in spans:
        low: Any = None if span.low is None else span.low.at
        high: Any = None if span.high is None else span.high.at
        if low is not None and not low < end:
            continue
        beyond = high is None or end < high or (span.high_inclusive and end == high)
        out.append(_Span(span.low, span.low_inclusive, largest, False) if beyond else span)
    return out


def _interval(scheme: str, span: _Span) -> Interval:
    has_keys = scheme != versions.MAVEN
    low, high = span.low, span.high
    return Interval(
        low=low.at if has_keys and low is not None else None,
        low_inclusive=span.low_inclusive,
        high=high.at if has_keys and high is not None else None,
        high_inclusive=span.high_inclusive,
        low_text=low.text if low is not None and low.at is not None else "",
        high_text=high.text if high is not None else "",
        fixed_version=high.text if high is not None and high.kind == "fixed" else "",
    )


def _points(scheme: str, listed: list[Any], spans: list[_Span]) -> Iterable[Interval]:
    """Yield the listed versions that no range contains. Invalid versions are kept and compared as text.

    Raises ValueError for too many versions.
    """
    if len(listed) > VERSIONS_MAX or len(listed) * len(spans) > _COMPARISONS_MAX:
        raise ValueError("too many versions")
    for text in listed:
        if not isinstance(text, str) or not text:
            continue
        try:
            at = _position(scheme, text) if scheme == versions.MAVEN else versions.version_key(scheme, text)
        except ValueError:
            yield Interval(low_text=text, high_text=text, exact_version=text)
            continue
        if any(span.holds(at) for span in spans):
            continue
        key = None if scheme == versions.MAVEN else at
        yield Interval(key, True, key, True, text, text)
