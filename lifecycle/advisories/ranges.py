"""OSV `affected` entries compiled to disjoint intervals of versions (osv-schema, "Evaluation")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

PROBLEM_MAX_CHARS: Final = 300

Position = Any  # bytes, or an object with Maven's order; both support < and ==


@dataclass(frozen=True, slots=True)
class Interval:
    """Affected versions between two bounds, a single version (`low` = `high`), or versions that cannot be judged.

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
    problem: str = ""  # why it is unknown whether these versions are affected


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


_EVERY_VERSION: Final = _Span(None, True, None, False)


def intervals_of(scheme: str, *entries: Mapping[str, Any]) -> list[Interval]:
    """Return the versions that any of these `affected` entries affects, from `ranges` and `versions`.

    Intervals that touch or overlap are joined, so the fix that ends an interval is never affected itself. Versions that
    an unreadable range may affect are separate intervals, with their `problem`. The result does not depend on the order
    of entries and ranges. Raises ValueError for too many versions.
    """
    spans: list[_Span] = []
    unknown: list[Interval] = []
    listed: list[Any] = []
    for entry in entries:
        listed += _list(entry.get("versions"))
        for item in _list(entry.get("ranges")):
            if isinstance(item, Mapping) and item.get("type") == "GIT":  # commits are not versions
                continue
            affected, uncertain, problem = _read_range(scheme, item)
            spans += affected
            unknown += [_interval(scheme, span, problem) for span in uncertain]
    spans = _union(spans)
    points, exact = _points(scheme, listed, spans)
    if points:
        spans = _union([*spans, *points])
    return list(dict.fromkeys([*unknown, *(_interval(scheme, span) for span in spans), *exact]))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_range(scheme: str, item: object) -> tuple[list[_Span], list[_Span], str]:
    """Return (affected spans, spans that may be affected, why that is unknown) of one range.

    An unreadable event may be at any version. If it ends a range, the versions outside of the readable spans stay
    unaffected. If it begins one, the versions inside of them stay affected. All other versions are unknown.
    """
    raw = item.get("events") if isinstance(item, Mapping) else None
    if not isinstance(raw, list) or not all(isinstance(event, Mapping) for event in raw):
        return [], [_EVERY_VERSION], _problem("its events are not a list of objects")
    if len(raw) > EVENTS_MAX:
        return [], [_EVERY_VERSION], _problem(f"more than {EVENTS_MAX} events")
    events: list[_Event] = []
    unreadable: dict[str, str] = {}
    for kind, value in ((kind, value) for event in raw for kind, value in event.items() if kind in _KINDS):
        try:
            events.append(_event(scheme, kind, value))
        except ValueError as error:
            unreadable.setdefault(kind, f"{kind} {value}: {error}")
    if not unreadable:
        return _spans(events), [], ""
    problem = _problem("; ".join(unreadable.values()))
    if "limit" in unreadable:
        events = [event for event in events if event.kind != "limit"]
    limits = [event for event in events if event.kind == "limit"]
    if "introduced" not in unreadable:
        return [], _spans(events), problem
    everything = _below_limit([_EVERY_VERSION], limits)
    return (_spans(events) if unreadable.keys() == {"introduced"} else []), everything, problem


def _problem(text: str) -> str:
    printable = "".join(character for character in text if character.isprintable())
    return f"an affected range cannot be read: {printable}"[:PROBLEM_MAX_CHARS]


def _position(scheme: str, text: str, *, is_last_affected: bool = False) -> Position:
    if scheme == versions.MAVEN:
        versions.check(scheme, text)
        return _maven_position(text)
    return versions.bound_key(scheme, text, is_last_affected=is_last_affected)


def _compare_maven(left: str, right: str) -> int:
    return versions.compare(versions.MAVEN, left, right)


_maven_position = cmp_to_key(_compare_maven)


def _event(scheme: str, kind: str, value: object) -> _Event:
    """Return the event with its position. Raises ValueError when it cannot be read."""
    if not isinstance(value, str):
        raise ValueError("not a string")
    if (kind == "introduced" and value == _BEGINNING) or (kind == "limit" and value == _NO_LIMIT):
        return _Event(kind, value, None)
    return _Event(kind, value, _position(scheme, value, is_last_affected=kind == "last_affected"))


def _spans(events: Sequence[_Event]) -> list[_Span]:
    """Walk the events in version order and return the affected spans."""
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


def _union(spans: Sequence[_Span]) -> list[_Span]:
    """Return disjoint spans of the same versions, in order; spans that touch become one."""
    from_beginning = [span for span in spans if span.low is None or span.low.at is None]
    others = [span for span in spans if span.low is not None and span.low.at is not None]
    others.sort(key=lambda span: (span.low.at, not span.low_inclusive))  # type: ignore[union-attr]  # filtered above
    joined: list[_Span] = []
    for span in (*from_beginning, *others):
        if joined and _touch(joined[-1], span):
            joined[-1] = _join(joined[-1], span)
        else:
            joined.append(span)
    return joined


def _touch(lower: _Span, upper: _Span) -> bool:
    """Return whether no version is between the two spans; `lower` begins first."""
    if lower.high is None or upper.low is None or upper.low.at is None:
        return True
    end, start = lower.high.at, upper.low.at
    return bool(start < end or (start == end and (lower.high_inclusive or upper.low_inclusive)))


def _join(lower: _Span, upper: _Span) -> _Span:
    """Return the span from the beginning of `lower` to the end that is further."""
    ends_further = max(lower, upper, key=cmp_to_key(_compare_ends))
    return _Span(lower.low, lower.low_inclusive, ends_further.high, ends_further.high_inclusive)


def _compare_ends(left: _Span, right: _Span) -> int:
    """Compare where two spans end. Of two equal ends, one with a fix is preferred, then one by its text."""
    if left.high is None or right.high is None:
        return (left.high is None) - (right.high is None)
    if left.high.at != right.high.at:
        return -1 if left.high.at < right.high.at else 1  # type: ignore[operator]  # both are positions of one scheme
    first = (left.high_inclusive, left.high.kind == "fixed", left.high.text)
    second = (right.high_inclusive, right.high.kind == "fixed", right.high.text)
    return (first > second) - (first < second)


def _interval(scheme: str, span: _Span, problem: str = "") -> Interval:
    has_keys = scheme != versions.MAVEN
    low, high = span.low, span.high
    return Interval(
        low=low.at if has_keys and low is not None else None,
        low_inclusive=span.low_inclusive,
        high=high.at if has_keys and high is not None else None,
        high_inclusive=span.high_inclusive,
        low_text=low.text if low is not None and low.at is not None else "",
        high_text=high.text if high is not None else "",
        fixed_version=high.text if high is not None and high.kind == "fixed" and not problem else "",
        is_unevaluated=bool(problem),
        problem=problem,
    )


def _points(scheme: str, listed: list[Any], spans: list[_Span]) -> tuple[list[_Span], list[Interval]]:
    """Return the listed versions that no range contains, and the invalid ones, which are compared as text.

    Raises ValueError for too many versions.
    """
    if len(listed) > VERSIONS_MAX or len(listed) * len(spans) > _COMPARISONS_MAX:
        raise ValueError("too many versions")
    points: list[_Span] = []
    exact: list[Interval] = []
    for text in listed:
        if not isinstance(text, str) or not text:
            continue
        try:
            at = _position(scheme, text) if scheme == versions.MAVEN else versions.version_key(scheme, text)
        except ValueError:
            exact.append(Interval(low_text=text, high_text=text, exact_version=text))
            continue
        if not any(span.holds(at) for span in spans):
            event = _Event("listed", text, at)
            points.append(_Span(event, True, event, True))
    return points, exact
