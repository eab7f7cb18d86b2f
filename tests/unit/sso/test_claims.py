"""Values of claims, and what rules do with them."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.sso.claims import ClaimMissing, outcomes_of, values_at
from lifecycle.sso.models import ClaimRule


def rule(claim: str = "groups", value: str = "dev", match: str = "exact") -> ClaimRule:
    return ClaimRule(claim=claim, value=value, match=match)


@pytest.mark.parametrize(
    ("claims", "path", "values"),
    [
        ({"groups": ["a", "b"]}, "groups", ["a", "b"]),
        ({"groups": []}, "groups", []),  # a fact: no groups
        ({"groups": "a"}, "groups", ["a"]),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", ["a"]),
        ({"https://example.com/groups": ["a"]}, "https://example.com/groups", ["a"]),
        ({"a.b": ["x"], "a": {"b": ["y"]}}, "a.b", ["x"]),
    ],
)
def test_values_are_found(claims: dict[str, Any], path: str, values: list[str]) -> None:
    assert values_at(claims, path) == values


@pytest.mark.parametrize(
    "value",
    [..., None, "", " ", 7, True, {}, {"a": 1}, ["a", None], ["a", 1], [""], [["a"]], ["x" * 256], ["a"] * 2001],
)
def test_b5_missing_and_malformed_claims_are_an_error_and_never_empty(value: Any) -> None:
    with pytest.raises(ClaimMissing, match="groups"):
        values_at({} if value is ... else {"groups": value}, "groups")
    (outcome,) = outcomes_of([rule()], {} if value is ... else {"groups": value})
    assert outcome.problem
    assert not outcome.applies


@pytest.mark.parametrize(
    ("match", "value", "text", "fits"),
    [
        ("exact", "dev", "dev", True),
        ("exact", "dev", "Dev", False),
        ("exact", "dev", "developers", False),
        ("exact", "dev*", "developers", False),
        ("glob", "dev*", "developers", True),
        ("glob", "dev*", "Developers", False),
        ("glob", "*-admins", "shop-admins", True),
        ("glob", "*-admins", "shop-admins-2", False),
        ("glob", "a.c", "abc", False),
    ],
)
def test_rules_match_exactly_or_with_stars(match: str, value: str, text: str, fits: bool) -> None:
    (outcome,) = outcomes_of([rule(value=value, match=match)], {"groups": ["other", text]})
    assert outcome.applies is fits
    assert outcome.values == ((text,) if fits else ())
