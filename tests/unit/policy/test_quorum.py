"""Who fills which approval rule: by examples, and against every possible assignment."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.policy.quorum import ANYBODY, Quorum, Rule, quorum, with_rest


def rule(name: str, required: int, *people: str) -> Rule:
    return Rule(name, required, frozenset(people))


def test_member_of_two_groups_is_given_to_the_rule_that_needs_them() -> None:
    rules = [rule("owners", 1, "ann", "bob"), rule("security", 1, "ann")]
    assert quorum(rules, ["ann", "bob"]) == Quorum(
        by_rule=(("bob",), ("ann",)),
        surplus=(),
        helpers=(),
        helpers_by_rule=((), ()),
        short=(0, 0),
        missing=0,
    )


def test_one_person_fills_one_place() -> None:
    rules = [rule("owners", 1, "ann"), rule("security", 1, "ann", "sue")]
    got = quorum(rules, ["ann"], ["sue"])
    assert (got.by_rule, got.missing, got.is_reached) == ((("ann",), ()), 1, False)
    assert (got.helpers, got.is_possible) == (("sue",), True)


def test_vote_that_fills_no_place_is_surplus() -> None:
    got = quorum([rule("owners", 1, "ann", "bob")], ["ann", "bob"])
    assert (got.by_rule, got.surplus, got.is_reached) == ((("ann",),), ("bob",), True)


def test_helper_can_free_somebody_for_the_open_rule() -> None:
    """cat is no member of security, but her vote frees ann for it."""
    rules = [rule("owners", 1, "ann", "cat"), rule("security", 1, "ann")]
    got = quorum(rules, ["ann"], ["cat", "dan"])
    assert got.missing == 1
    assert got.helpers == ("cat",)
    assert quorum(rules, ["ann", "cat"]).is_reached


def test_rule_without_enough_people_is_short() -> None:
    got = quorum([rule("security", 2, "sue", "ann"), rule("owners", 1, "ann")], [], ["sue", "ann"])
    assert (sum(got.short), got.is_possible) == (1, False)


def test_without_rules_nothing_is_missing() -> None:
    got = quorum([], ["ann"], ["bob"])
    assert (got.is_reached, got.surplus, got.helpers) == (True, ("ann",), ())


def test_chain_of_moves_frees_a_place() -> None:
    """dan fits only owners; cat leaves it for security, and sue leaves that one for the last."""
    rules = [rule("owners", 1, "cat", "dan"), rule("security", 1, "cat", "sue"), rule("last", 1, "sue")]
    got = quorum(rules, ["cat", "sue", "dan"])
    assert (got.by_rule, got.missing) == ((("dan",), ("cat",), ("sue",)), 0)


def test_helpers_are_named_for_the_rules_that_they_fill() -> None:
    rules = [rule("owners", 2, "ann", "bob", "cat"), rule("done", 1, "zoe", "bob"), rule("security", 1, "ann", "sue")]
    got = quorum(rules, ["zoe", "ann"], ["sue", "bob", "cat", "dan"])
    assert got.by_rule == (("ann",), ("zoe",), ())
    assert got.helpers == ("bob", "cat", "sue")
    assert got.helpers_by_rule == (("bob", "cat"), (), ("sue",))


@pytest.mark.parametrize(("required", "rest"), [(0, 0), (2, 0), (3, 0), (4, 1), (9, 6)])
def test_anybody_fills_the_places_that_no_rule_names(required: int, rest: int) -> None:
    rules = [rule("owners", 1, "ann"), rule("security", 2, "sue")]
    assert with_rest(rules, required, ["ann", "kim"]) == [*rules, Rule(ANYBODY, rest, frozenset({"ann", "kim"}))]
    assert with_rest([], required, ["kim"]) == [Rule(ANYBODY, required, frozenset({"kim"}))]


NAMES = "abcdef"
# Bits choose the people, so that large and small groups are as likely, and most of them overlap.
RULES = st.lists(
    st.builds(
        lambda required, bits: rule("x", required, *(name for number, name in enumerate(NAMES) if bits >> number & 1)),
        st.integers(0, 2),
        st.integers(0, 2 ** len(NAMES) - 1),
    ),
    min_size=1,
    max_size=3,
)
PEOPLE = st.builds(lambda order, count: order[:count], st.permutations(NAMES), st.integers(0, 5))


def most_places(rules: list[Rule], people: list[str]) -> int:
    """Return the largest number of places that any assignment fills, by trying all of them."""
    best = 0
    for choice in product(range(-1, len(rules)), repeat=len(people)):
        pairs = [(name, index) for name, index in zip(people, choice, strict=True) if index >= 0]
        if all(name in rules[index].people for name, index in pairs) and all(
            sum(index == number for _, index in pairs) <= rule.required for number, rule in enumerate(rules)
        ):
            best = max(best, len(pairs))
    return best


@settings(deadline=None)  # machines differ
@given(RULES, PEOPLE, PEOPLE)
def test_matching_is_the_largest_one(rules: list[Rule], approvers: list[str], candidates: list[str]) -> None:
    got = quorum(rules, approvers, candidates)
    wanted, others = sum(rule.required for rule in rules), sorted(set(candidates) - set(approvers))
    best = most_places(rules, approvers)
    assert got.missing == wanted - best
    assert sum(got.short) == wanted - most_places(rules, [*approvers, *others])
    assert got.helpers == tuple(name for name in others if most_places(rules, [*approvers, name]) > best)
    for index, (rule_, helpers) in enumerate(zip(rules, got.helpers_by_rule, strict=True)):
        only_here = [*rules[:index], replace(rule_, people=rule_.people | {"new"}), *rules[index + 1 :]]
        is_open = most_places(only_here, [*approvers, "new"]) > best
        assert helpers == (tuple(name for name in got.helpers if name in rule_.people) if is_open else ())


@settings(deadline=None)  # machines differ
@given(RULES, PEOPLE, PEOPLE)
def test_assignment_keeps_the_rules(rules: list[Rule], approvers: list[str], candidates: list[str]) -> None:
    got = quorum(rules, approvers, candidates)
    assigned = [name for names in got.by_rule for name in names]
    assert len(assigned) == len(set(assigned))
    assert sorted([*assigned, *got.surplus]) == sorted(approvers)
    for rule_, names in zip(rules, got.by_rule, strict=True):
        assert set(names) <= rule_.people
        assert len(names) <= rule_.required
    assert set(got.helpers) >= {name for names in got.helpers_by_rule for name in names}


@settings(deadline=None)  # machines differ
@given(RULES, PEOPLE, st.randoms())
def test_order_of_votes_does_not_matter(rules: list[Rule], approvers: list[str], random: object) -> None:
    shuffled = list(approvers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert quorum(rules, shuffled).missing == quorum(rules, approvers).missing
