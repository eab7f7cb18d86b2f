"""From claims to groups and roles: pure functions over rules, for sign-in and for the preview alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.core.errors import NotPermitted
from lifecycle.core.patterns import matches
from lifecycle.sso.models import ClaimRule

_VALUES_MAX: Final = 2000  # in one claim
_VALUE_MAX: Final = 255  # characters


class ClaimMissing(NotPermitted):
    """A claim that a rule reads is absent or has no usable form. Nothing is taken for it."""

    code = "claim_missing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule does with some claims."""

    rule: ClaimRule
    values: tuple[str, ...]  # of its claim, that match
    problem: str  # "" unless its claim is missing or malformed

    @property
    def applies(self) -> bool:
        """Whether the rule gives its group or role."""
        return bool(self.values)


def values_at(claims: Mapping[str, Any], path: str) -> list[str]:
    """Return the texts of the claim at `path`; raises ClaimMissing.

    The whole path is tried as one name first, because names of claims can contain dots (and addresses). An empty list
    is a fact: no groups. Nothing, null, a number, an object and an empty text are not.
    """
    value: Any = claims.get(path)
    if path not in claims:
        value = claims
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        raise ClaimMissing(f"The claim {path} is missing. Ask an admin to check the provider and its scopes.")
    values = [value] if isinstance(value, str) else value
    if (
        not isinstance(values, list)
        or len(values) > _VALUES_MAX
        or any(not isinstance(text, str) or not text.strip() or len(text) > _VALUE_MAX for text in values)
    ):
        raise ClaimMissing(f"The claim {path} is neither a text nor a list of texts. Ask an admin to check it.")
    return list(values)


def outcomes_of(rules: Iterable[ClaimRule], claims: Mapping[str, Any]) -> list[Outcome]:
    """Return what each rule does with `claims`, in the order of the rules."""
    outcomes = []
    for rule in rules:
        try:
            values = values_at(claims, rule.claim)
        except ClaimMissing as error:
            outcomes.append(Outcome(rule, (), error.message))
            continue
        outcomes.append(Outcome(rule, tuple(text for text in values if fits(rule, text)), ""))
    return outcomes


def fits(rule: ClaimRule, text: str) -> bool:
    """Return whether a value matches the rule. Case counts: providers treat names that differ in case as different."""
    if rule.match == ClaimRule.Match.EXACT:
        return text == rule.value
    return matches(rule.value, text)
