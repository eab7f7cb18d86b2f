"""Who fills which approval rule: pure functions over names, by maximum matching and never greedily."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

ANYBODY: Final = "any approver"  # the name of the rule for approvals that everybody with the right can give


@dataclass(frozen=True, slots=True)
class Rule:
    """An approval rule: `required` different people out of `people`."""

    name: str
    required: int
    people: frozenset[str]


@dataclass(frozen=True, slots=True)
class Quorum:
    """How approvals fill the rules. All tuples of tuples have the order of the rules."""

    by_rule: tuple[tuple[str, ...], ...]  # the approvers that fill each rule; nobody fills two
    surplus: tuple[str, ...]  # approvers that fill no rule, in the order of their votes
    helpers: tuple[str, ...]  # candidates whose approval would fill one more place
    helpers_by_rule: tuple[tuple[str, ...], ...]  # of these, those that can fill the rule itself
    short: tuple[int, ...]  # places of each rule that stay empty even if all candidates approve
    missing: int  # places that are still empty

    @property
    def is_reached(self) -> bool:
        """Whether every rule is filled."""
        return self.missing == 0

    @property
    def is_possible(self) -> bool:
        """Whether every rule is filled if all candidates approve."""
        return not any(self.short)


def quorum(rules: Sequence[Rule], approvers: Sequence[str], candidates: Collection[str] = ()) -> Quorum:
    """Assign each approver to at most one rule so that as many places as possible are filled.

    `approvers` have approved, in the order of their votes, each once. `candidates` could still approve. A greedy
    assignment can leave a rule empty for ever: it gives a member of two groups to the first one that asks.
    """
    places = _matched(rules, approvers)
    filled = {name for names in places for name in names}
    reachable = _reachable(rules, places)
    others = sorted(set(candidates) - set(approvers))
    helpers = tuple(name for name in others if any(name in rules[index].people for index in reachable))
    best = _matched(rules, [*approvers, *others])
    return Quorum(
        by_rule=tuple(tuple(name for name in approvers if name in names) for names in places),
        surplus=tuple(name for name in approvers if name not in filled),
        helpers=helpers,
        helpers_by_rule=tuple(
            tuple(name for name in helpers if name in rule.people) if index in reachable else ()
            for index, rule in enumerate(rules)
        ),
        short=tuple(rule.required - len(names) for rule, names in zip(rules, best, strict=True)),
        missing=sum(rule.required for rule in rules) - len(filled),
    )


def with_rest(rules: Collection[Rule], required: int, anybody: Collection[str]) -> list[Rule]:
    """Return the rules and one more, for the approvals that anybody can give: together at least `required` places."""
    rest = max(0, required - sum(rule.required for rule in rules))
    return [*rules, Rule(ANYBODY, rest, frozenset(anybody))]


def _matched(rules: Sequence[Rule], people: Iterable[str]) -> list[list[str]]:
    """Return the people of each rule in a maximum matching. Whoever got a place keeps one when more people come."""
    places: list[list[str]] = [[] for _ in rules]
    for person in people:
        _place(person, rules, places, set())
    return places


def _place(person: str, rules: Sequence[Rule], places: list[list[str]], tried: set[int]) -> bool:
    """Give `person` a place, and move others to other rules for it if needed; returns whether that was possible."""
    for index, rule in enumerate(rules):
        if index in tried or person not in rule.people:
            continue
        tried.add(index)
        if len(places[index]) < rule.required:
            places[index].append(person)
            return True
        for number, other in enumerate(places[index]):
            if _place(other, rules, places, tried):
                places[index][number] = person
                return True
    return False


def _reachable(rules: Sequence[Rule], places: Sequence[Sequence[str]]) -> set[int]:
    """Return the rules in which one more person fills a place: here, or by moving others to another rule."""
    reachable = {index for index, rule in enumerate(rules) if len(places[index]) < rule.required}
    grows = bool(reachable)
    while grows:
        more = {
            index
            for index, names in enumerate(places)
            if index not in reachable and any(name in rules[other].people for name in names for other in reachable)
        }
        reachable |= more
        grows = bool(more)
    return reachable
