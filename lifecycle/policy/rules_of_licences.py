"""The rule about licences: none of those that a list denies."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lifecycle.core.patterns import matches
from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.outcomes import Evidence, Outcome, failed, passed, unknown
from lifecycle.policy.parameters import Values

_TOKEN: Final = re.compile(r"\(|\)|[^\s()]+")
_SHOWN: Final = 3
_DEPTH_MAX: Final = 50  # parentheses of an expression
_WHO_BUILDS: Final = "who builds the image"
_WHO_SCANS: Final = "a user with image.scan: rescan the image"


def no_denied(facts: ImageFacts, values: Values) -> Outcome:
    """No package declares a licence of the list, and each declares one unless the rule accepts packages without."""
    licences = facts.licences
    if licences is None:
        return unknown("The licences of the packages are not known.", _WHO_SCANS)
    patterns = [str(pattern).lower() for pattern in values["deny"]]

    def is_denied(name: str) -> bool:
        return any(matches(pattern, name.lower()) for pattern in patterns)

    denied = {text: names for text, names in sorted(licences.packages.items()) if demands(text, is_denied)}
    if denied:
        evidence = tuple(Evidence(f"{text}: {', '.join(sorted(names))}") for text, names in denied.items())
        more = f" and {len(denied) - _SHOWN} more" if len(denied) > _SHOWN else ""
        shown = ", ".join(f"{text} ({sorted(names)[0]})" for text, names in list(denied.items())[:_SHOWN])
        return failed(f"Denied licences: {shown}{more}.", _WHO_BUILDS, evidence=evidence, licences=len(denied))
    if licences.undeclared and not values["accept_undeclared"]:
        count = licences.undeclared
        return unknown(f"{count:,} package{'s declare' if count > 1 else ' declares'} no licence.", _WHO_BUILDS)
    return passed(f"None of {len(licences.packages):,} licences is denied.")


def demands(text: str, is_denied: Callable[[str], bool]) -> bool:
    """Return whether a licence or SPDX expression leaves no choice but a denied licence.

    AND asks for both sides, OR leaves the choice, WITH belongs to the licence before it (SPDX 2.3, annex D). Operators
    are in capitals there, so "GPL-2 or later" is one name. In what cannot be read, any denied word counts.
    """
    tokens = _TOKEN.findall(text)
    if not {"AND", "OR"} & set(tokens):
        return is_denied(text.strip("() "))
    if tokens.count("(") <= _DEPTH_MAX:
        result, rest = _either(tokens, is_denied)
        if not rest:
            return result
    return any(is_denied(token) for token in tokens)


def _either(tokens: list[str], is_denied: Callable[[str], bool]) -> tuple[bool, list[str]]:
    result, tokens = _both(tokens, is_denied)
    while tokens and tokens[0] == "OR":
        right, tokens = _both(tokens[1:], is_denied)
        result = result and right
    return result, tokens


def _both(tokens: list[str], is_denied: Callable[[str], bool]) -> tuple[bool, list[str]]:
    result, tokens = _one(tokens, is_denied)
    while tokens and tokens[0] == "AND":
        right, tokens = _one(tokens[1:], is_denied)
        result = result or right
    return result, tokens


def _one(tokens: list[str], is_denied: Callable[[str], bool]) -> tuple[bool, list[str]]:
    if tokens and tokens[0] == "(":
        result, rest = _either(tokens[1:], is_denied)
        return result, rest[1:] if rest and rest[0] == ")" else rest
    name: list[str] = []
    while tokens and tokens[0] not in {"(", ")", "AND", "OR"}:
        name.append(tokens[0])
        tokens = tokens[1:]
    return is_denied(" ".join(name)), tokens
