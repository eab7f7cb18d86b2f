"""Rule sets: the modes of each rule at each enforcement point, and how sets of several levels are combined."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.policy.catalogue import CEL, ISOLATION, KINDS, Kind
from lifecycle.policy.isolation import modes_of
from lifecycle.policy.parameters import Values

RULES_MAX: Final = 100  # per rule set
KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}\Z")
_FIELDS: Final = frozenset({"key", "kind", "parameters", "modes", "title", "waivable", "max_waiver_days"})
WAIVER_DAYS_MAX: Final = 365


class Point(StrEnum):
    """Where rules are enforced."""

    INGEST = "ingest"
    REQUEST = "request"
    EXECUTION = "execution"
    ADMISSION = "admission"


class Mode(StrEnum):
    """What a rule does at a point, from least to most."""

    OFF = "off"
    OBSERVE = "observe"  # judged and stored; requesters do not see it
    WARN = "warn"  # shown, does not stop
    ENFORCE = "enforce"


MODES: Final = tuple(Mode)
DECIDES: Final = frozenset({Mode.WARN, Mode.ENFORCE})
# A new rule: it is judged at every point and stops nothing.
START_MODES: Final[Mapping[Point, Mode]] = dict.fromkeys(Point, Mode.OBSERVE)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a set. `origin` names the set that it is from, for people."""

    key: str
    kind: str
    parameters: Values = field(default_factory=dict)
    modes: Mapping[Point, Mode] = field(default_factory=lambda: dict(START_MODES))
    title: str = ""
    is_waivable: bool = True
    max_waiver_days: int = 90
    origin: str = ""

    @property
    def kind_of(self) -> Kind:
        return KINDS[self.kind]

    @property
    def words(self) -> str:
        return self.title or self.kind_of.title

    def mode(self, point: Point) -> Mode:
        return self.modes.get(point, Mode.OFF)

    @property
    def decides(self) -> bool:
        return any(mode in DECIDES for mode in self.modes.values())

    def as_json(self) -> dict[str, Any]:
        """Return it as a PolicyRevision and a policy file have it."""
        return {
            "key": self.key,
            "kind": self.kind,
            "title": self.title,
            "parameters": {name: list(v) if isinstance(v, tuple) else v for name, v in self.parameters.items()},
            "modes": {point.value: self.mode(point).value for point in Point},
            "waivable": self.is_waivable,
            "max_waiver_days": self.max_waiver_days,
        }


def rule_of(record: Any, *, origin: str = "") -> Rule:
    """Return the rule of one JSON object. Raises Malformed with a sentence."""
    if not isinstance(record, Mapping):
        raise Malformed("Each rule is an object with key, kind, parameters and modes.")
    if extra := sorted(set(record) - _FIELDS):
        raise Malformed(f"Unknown field of a rule: {extra[0]}. Known: {', '.join(sorted(_FIELDS))}.")
    key, kind = record.get("key"), record.get("kind")
    if not isinstance(key, str) or not KEY.match(key):
        raise Malformed("A rule needs a key of at most 60 lower-case letters, digits, - and _.")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Malformed(f"{key}: unknown kind of rule. Choose one of {', '.join(KINDS)}.")
    title, days = record.get("title") or "", record.get("max_waiver_days", 90)
    if not isinstance(title, str) or len(title) > 120:
        raise Malformed(f"{key}: the title is a text of at most 120 characters.")
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= WAIVER_DAYS_MAX:
        raise Malformed(f"{key}: max_waiver_days is a whole number from 1 to {WAIVER_DAYS_MAX}.")
    waivable, parameters = record.get("waivable", True), record.get("parameters") or {}
    if not isinstance(waivable, bool) or not isinstance(parameters, Mapping):
        raise Malformed(f"{key}: waivable is true or false, and parameters are an object.")
    try:
        values = KINDS[kind].clean(parameters)
    except Malformed as error:
        raise Malformed(f"{key}: {error.message}") from None
    rule = Rule(key, kind, values, _modes_of(key, record.get("modes")), title, waivable, days, origin)
    if rule.kind_of.waits_for and rule.decides:
        raise Malformed(
            f"{key} cannot warn or enforce: it waits for {rule.kind_of.waits_for}, which Gravingdock does not have yet."
        )
    return rule


def _modes_of(key: str, record: Any) -> dict[Point, Mode]:
    if record is None:
        return dict(START_MODES)
    if not isinstance(record, Mapping):
        raise Malformed(f"{key}: modes are an object, such as {{request: observe}}.")
    try:
        given = {Point(point): Mode(mode) for point, mode in record.items()}
    except ValueError:
        points, modes = ", ".join(Point), ", ".join(Mode)
        raise Malformed(f"{key}: the points are {points}; the modes are {modes}.") from None
    return dict.fromkeys(Point, Mode.OBSERVE) | given


def rules_of(records: Any, *, origin: str = "") -> tuple[Rule, ...]:
    """Return the rules of a rule set. Raises Malformed: for a wrong rule, a repeated key, or too many rules."""
    if not isinstance(records, (list, tuple)) or len(records) > RULES_MAX:
        raise Malformed(f"Rules are a list of at most {RULES_MAX}.")
    found = tuple(rule_of(record, origin=origin) for record in records)
    keys = [rule.key for rule in found]
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise Malformed(f"The key {repeated[0]} is used twice.")
    return found


def is_as_strict(rule: Rule, other: Rule) -> bool:
    """Return whether `rule` stops, at each point and as firmly, everything that `other` stops."""
    if rule.kind != other.kind:
        return False
    if any(MODES.index(rule.mode(point)) < MODES.index(other.mode(point)) for point in Point):
        return False
    if rule.is_waivable and not other.is_waivable:
        return False
    if rule.is_waivable and rule.max_waiver_days > other.max_waiver_days:
        return False
    return all(
        parameter.is_as_strict(rule.parameters.get(parameter.name), other.parameters.get(parameter.name))
        for parameter in rule.kind_of.parameters
    )


def why_looser(lower: Iterable[Rule], upper: Iterable[Rule]) -> list[str]:
    """Return one sentence for each rule of the `lower` set that is looser than the one with its key in `upper`."""
    above = {rule.key: rule for rule in upper}
    pairs = [(rule, above[rule.key]) for rule in lower if rule.key in above]
    return [
        f"{rule.key} is looser than the rule of {other.origin or 'the set above'}: {_difference(rule, other)}. "
        "A lower rule set can only be stricter."
        for rule, other in pairs
        if not is_as_strict(rule, other)
    ]


def _difference(rule: Rule, other: Rule) -> str:
    if rule.kind != other.kind:
        return f"it is of another kind ({rule.kind}, not {other.kind})"
    for point in Point:
        if MODES.index(rule.mode(point)) < MODES.index(other.mode(point)):
            return f"{point} is {rule.mode(point)}, not {other.mode(point)}"
    for parameter in rule.kind_of.parameters:
        value, wanted = rule.parameters.get(parameter.name), other.parameters.get(parameter.name)
        if not parameter.is_as_strict(value, wanted):
            return f"{parameter.name} is {_shown(value)}, not {_shown(wanted)}"
    return "its waivers are longer"


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else "no limit" if value is None else str(value)


def combined(levels: Sequence[Iterable[Rule]]) -> tuple[Rule, ...]:
    """Return the rules of all levels, the highest first, as the strictest of those with the same key.

    A rule that cannot be merged (another kind, or a parameter without order) is judged besides the upper one, under its
    key and its origin. So no level can make another one looser, whatever was saved when.
    """
    found: dict[str, Rule] = {}
    for level in levels:
        for rule in level:
            upper = found.get(rule.key)
            if upper is None:
                found[rule.key] = rule
            elif (merged := _strictest(upper, rule)) is not None:
                found[rule.key] = merged
            else:
                found[f"{rule.key}@{rule.origin}"] = replace(rule, key=f"{rule.key}@{rule.origin}")
    return tuple(found.values())


def _strictest(upper: Rule, lower: Rule) -> Rule | None:
    if upper.kind != lower.kind:
        return None
    try:
        values = {
            parameter.name: parameter.strictest(
                upper.parameters.get(parameter.name), lower.parameters.get(parameter.name)
            )
            for parameter in upper.kind_of.parameters
        }
    except ValueError:
        return None
    is_lower = not is_as_strict(upper, lower)
    return replace(
        upper,
        parameters=values,
        modes={point: max(upper.mode(point), lower.mode(point), key=MODES.index) for point in Point},
        is_waivable=upper.is_waivable and lower.is_waivable,
        max_waiver_days=min(upper.max_waiver_days, lower.max_waiver_days),
        title=lower.title or upper.title,
        origin=f"{upper.origin} and {lower.origin}" if is_lower and upper.origin != lower.origin else upper.origin,
    )


def new_above_observe(rules: Iterable[Rule], before: Iterable[Rule]) -> list[str]:
    """Return the keys of new rules that would decide at once. A new rule starts in observe.

    A rule that changes its kind is a new one. So is an expression with another text.
    """
    old = {rule.key: rule for rule in before}

    def is_new(rule: Rule) -> bool:
        known = old.get(rule.key)
        return known is None or known.kind != rule.kind or (rule.kind == CEL and known.parameters != rule.parameters)

    return [rule.key for rule in rules if rule.decides and is_new(rule)]


def tightened(before: Iterable[Rule], after: Iterable[Rule], points: Iterable[Point]) -> list[str]:
    """Return the keys of rules that stop or warn more in `after` than in `before` at one of `points`."""
    old = {rule.key: rule for rule in before}
    watched = tuple(points)
    return [
        rule.key
        for rule in after
        if any(rule.mode(point) is Mode.ENFORCE for point in watched)
        and (rule.key not in old or not is_as_strict(_at(old[rule.key], watched), _at(rule, watched)))
    ]


def _at(rule: Rule, points: Sequence[Point]) -> Rule:
    return replace(rule, modes={point: rule.mode(point) for point in points})


def isolation_modes(rules: Iterable[Rule], point: Point) -> dict[str, str]:
    """Return {isolation check: mode at this point} of all isolation rules, as `isolation.judge` takes it."""
    return modes_of((rule.parameters["checks"], rule.mode(point).value) for rule in rules if rule.kind == ISOLATION)


def rules_at(rules: Iterable[Rule], points: Sequence[Point]) -> list[Rule]:
    """Return the rules that are not off at one of `points`, each with its firmest mode there at the first of them."""
    found = []
    for rule in rules:
        mode = max((rule.mode(point) for point in points), key=MODES.index)
        if mode is not Mode.OFF:
            found.append(replace(rule, modes={points[0]: mode}))
    return found
