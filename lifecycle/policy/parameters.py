"""Parameters of rules: their types, limits and defaults, and which of two values is stricter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM
from lifecycle.policy.facts import severity_rank

TEXT_MAX: Final = 2000  # characters
TEXTS_MAX: Final = 50  # entries of a list
NUMBER_MAX: Final = 100_000
SEVERITY_CHOICES: Final = (CRITICAL, HIGH, MEDIUM, LOW)

Values = Mapping[str, Any]


class Stricter(StrEnum):
    """Which value of a parameter is the stricter one."""

    LOWER = "lower"  # the smaller number
    HIGHER = "higher"  # the larger number
    MORE = "more"  # the list that contains the other
    FEWER = "fewer"  # the list that the other contains
    ON = "on"
    OFF = "off"
    MILDER = "milder"  # the milder severity: a limit from "low" on stops more than one from "critical" on
    SAME = "same"  # no order: a lower rule set cannot change it


class Type(StrEnum):
    NUMBER = "number"
    FLAG = "flag"
    TEXT = "text"
    TEXTS = "texts"  # one entry a line
    SEVERITY = "severity"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kind of rule. A number can be None: no limit, which is the loosest value."""

    name: str
    type: Type
    title: str
    stricter: Stricter
    default: Any = None
    help: str = ""
    is_required: bool = False
    maximum: int = NUMBER_MAX
    choices: tuple[str, ...] = ()  # of a list of texts: only these

    def clean(self, value: Any) -> Any:
        """Return `value` in its stored form. Raises Malformed with a sentence that names the parameter."""
        if value in (None, "", [], ()):
            if self.is_required and (value is not None or self.default in {None, ()}):
                raise Malformed(f"{self.title}: enter a value.")
            return self.default
        cleaned = _CLEAN[self.type](self, value)
        if cleaned is None:
            raise Malformed(f"{self.title}: {_WANTED[self.type].format(maximum=self.maximum)}")
        if self.choices and (wrong := [text for text in cleaned if text not in self.choices]):
            raise Malformed(f"{self.title}: {wrong[0][:60]} is unknown. Choose from {', '.join(self.choices)}.")
        return cleaned

    def is_as_strict(self, value: Any, other: Any) -> bool:
        """Return whether a rule with `value` stops all that the same rule with `other` stops."""
        if value == other:
            return True
        if self.stricter is Stricter.SAME:
            return False
        strict: bool = self.strictest(value, other) == value
        return strict

    def strictest(self, value: Any, other: Any) -> Any:
        """Return the value that is at least as strict as both. Raises ValueError for unequal values without order."""
        if value == other:
            return value
        if self.stricter is Stricter.SAME:
            raise ValueError(f"{self.name} has no order")
        if None in {value, other} and self.type is Type.NUMBER:
            return other if value is None else value
        return _STRICTEST[self.stricter](value, other)


def _number(parameter: Parameter, value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= parameter.maximum
    return value if is_number else None


def _flag(_parameter: Parameter, value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(_parameter: Parameter, value: Any) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text if text and len(text) <= TEXT_MAX and "\x00" not in text else None


def _texts(parameter: Parameter, value: Any) -> tuple[str, ...] | None:
    entries = value.splitlines() if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or len(entries) > TEXTS_MAX:
        return None
    texts = [_text(parameter, entry) for entry in entries if not (isinstance(entry, str) and not entry.strip())]
    return None if any(text is None for text in texts) or not texts else tuple(sorted({t for t in texts if t}))


def _severity(_parameter: Parameter, value: Any) -> str | None:
    return value if value in SEVERITY_CHOICES else None


_STRICTEST: Final[Mapping[Stricter, Callable[[Any, Any], Any]]] = {
    Stricter.LOWER: min,
    Stricter.HIGHER: max,
    Stricter.MORE: lambda value, other: tuple(sorted({*value, *other})),
    Stricter.FEWER: lambda value, other: tuple(sorted({*value} & {*other})),
    Stricter.ON: lambda value, other: value or other,
    Stricter.OFF: lambda value, other: value and other,
    Stricter.MILDER: lambda value, other: max(value, other, key=severity_rank),
}
_CLEAN: Final[Mapping[Type, Callable[[Parameter, Any], Any]]] = {
    Type.NUMBER: _number,
    Type.FLAG: _flag,
    Type.TEXT: _text,
    Type.TEXTS: _texts,
    Type.SEVERITY: _severity,
}
_WANTED: Final = {
    Type.NUMBER: "enter a whole number from 0 to {maximum}.",
    Type.FLAG: "enter true or false.",
    Type.TEXT: f"enter a text of at most {TEXT_MAX} characters.",
    Type.TEXTS: f"enter a list of at most {TEXTS_MAX} texts.",
    Type.SEVERITY: f"choose one of {', '.join(SEVERITY_CHOICES)}.",
}
