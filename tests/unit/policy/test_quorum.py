"""Who fills which approval rule: by examples, and against every possible assignment."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.policy.quorum import Quorum, Rule, quorum


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


NAMES = "abcdef"
RULES = st.lists(
    st.builds(
        Rule, st.sampled_from(("x", "y", "z")), st.integers(0, 3), st.frozensets(st.sampled_from(NAMES), max_size=5)
    ),
    max_size=3,
)
PEOPLE = st.lists(st.sampled_from(NAMES), unique=True, max_size=5)


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
