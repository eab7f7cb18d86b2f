"""From rules, facts and waivers to requirements: the one evaluator of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifecycle.policy.catalogue import CEL
from lifecycle.policy.expressions import Answer, is_about_platforms, names_of, values_of
from lifecycle.policy.facts import ImageFacts, Need
from lifecycle.policy.outcomes import Outcome, does_not_apply, failed, passed, unknown
from lifecycle.policy.rulesets import Mode, Point, Rule
from lifecycle.policy.types import Requirement, Status

# Evaluates expressions over named values: one answer for each, in order.
Evaluate = Callable[[list[str], Mapping[str, Any]], list[Answer]]


@dataclass(frozen=True, slots=True)
class WaiverFact:
    """An approved waiver that covers this image now, for a whole rule or for one finding of it."""

    name: str  # "WV-3"
    rule: str  # key of the rule
    until: datetime
    advisory: str = ""  # "" waives the rule
    package: str = ""  # "" is any package

    def covers(self, advisory: str, package: str) -> bool:
        return bool(self.advisory) and self.advisory == advisory and self.package in {"", package}


@dataclass(frozen=True, slots=True)
class Judged:
    """One rule, judged: what it does here, and what it says. `raw` is the outcome without waivers."""

    rule: Rule
    mode: Mode
    outcome: Outcome
    raw: Outcome
    waivers: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        return self.mode is Mode.ENFORCE and not self.outcome.is_open

    @property
    def requirement(self) -> Requirement:
        """The requirement that pages and evaluations show."""
        return Requirement(
            f"policy:{self.rule.key}",
            self.rule.words,
            self.outcome.status,
            self.outcome.summary,
            self.outcome.who,
            self.outcome.counts,
            mode=self.mode.value,
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as the API and the what-if show it."""
        return self.requirement.as_json() | {
            "rule": self.rule.key,
            "kind": self.rule.kind,
            "origin": self.rule.origin,
            "blocks": self.blocks,
            "waivers": list(self.waivers),
            "evidence": [item.text for item in self.raw.evidence],
        }


def needs_of(rules: Iterable[Rule]) -> frozenset[Need]:
    """Return the groups of facts that these rules need."""
    found: set[Need] = set()
    for rule in rules:
        if rule.kind == CEL:
            found |= names_of(rule.parameters["expression"])
        else:
            found |= rule.kind_of.needs
    return frozenset(found)


def judge_image(
    rules: Iterable[Rule],
    facts: ImageFacts,
    point: Point,
    *,
    waivers: Iterable[WaiverFact] = (),
    evaluate: Evaluate,
) -> tuple[Judged, ...]:
    """Return what each rule that is not off at `point` says about the image, in the order of `rules`."""
    live = [rule for rule in rules if rule.mode(point) is not Mode.OFF]
    texts = expressions_of(live)
    answers = dict(zip(texts, evaluate(texts, values_of(facts, texts)), strict=True)) if texts else {}
    return judge_with(live, facts, point, answers, waivers=waivers)


def expressions_of(rules: Iterable[Rule]) -> list[str]:
    """Return the texts of the expressions in these rules, each once."""
    return list(dict.fromkeys(rule.parameters["expression"] for rule in rules if rule.kind == CEL))


def judge_with(
    rules: Iterable[Rule],
    facts: ImageFacts,
    point: Point,
    answers: Mapping[str, Answer],
    *,
    waivers: Iterable[WaiverFact] = (),
) -> tuple[Judged, ...]:
    """Return what `judge_image` does, with the answers to the expressions of these rules, by their texts."""
    live = [rule for rule in rules if rule.mode(point) is not Mode.OFF]
    active = [waiver for waiver in waivers if waiver.until > facts.now]
    return tuple(_judge(rule, facts, point, active, answers) for rule in live)


def _judge(
    rule: Rule, facts: ImageFacts, point: Point, waivers: list[WaiverFact], answers: Mapping[str, Answer]
) -> Judged:
    mode, raw = rule.mode(point), _outcome(rule, facts, answers)
    mine = [waiver for waiver in waivers if waiver.rule == rule.key] if rule.is_waivable else []
    if raw.is_open or not mine:
        return Judged(rule, mode, raw, raw)
    for waiver in mine:
        if not waiver.advisory:
            return Judged(rule, mode, _waived(raw, [waiver]), raw, (waiver.name,))
    used = [w for w in mine if any(w.covers(item.advisory, item.package) for item in raw.evidence)]
    left = facts.without(
        {
            (found.advisory, found.package)
            for found in facts.findings or ()
            if any(waiver.covers(found.advisory, found.package) for waiver in mine)
        }
        | {
            (file.path, file.kind)
            for file in (facts.contents.found if facts.contents else ())
            if any(waiver.covers(file.path, file.kind) for waiver in mine)
        }
    )
    if used and rule.kind != CEL and _outcome(rule, left, answers).is_open:
        return Judged(rule, mode, _waived(raw, used), raw, tuple(waiver.name for waiver in used))
    return Judged(rule, mode, raw, raw)


def _outcome(rule: Rule, facts: ImageFacts, answers: Mapping[str, Answer]) -> Outcome:
    kind = rule.kind_of
    if facts.artifact and not _is_for_artifacts(rule):
        return does_not_apply(f"{facts.artifact} without platforms, packages and files of its own.")
    if rule.kind == CEL:
        return _of_answer(answers[rule.parameters["expression"]], rule)
    if kind.judge is None:
        return unknown(f"Waits for {kind.waits_for}.", "a later version of Gravingdock")
    return kind.judge(facts, rule.parameters)


def _is_for_artifacts(rule: Rule) -> bool:
    """Return whether a rule says something about an artifact. One whose facts nobody collects yet stays unknown."""
    if rule.kind == CEL:
        return not is_about_platforms(rule.parameters["expression"])
    return rule.kind_of.is_for_artifacts or rule.kind_of.judge is None


def _of_answer(answer: Answer, rule: Rule) -> Outcome:
    owner = "the owner of the rule: change the expression"
    if answer.problem:
        return unknown(f"The expression has no result: {answer.problem}", owner)
    if answer.value is True:
        return passed("The expression is true.")
    if answer.value is False:
        return failed(rule.parameters["message"] or "The expression is false.", "who builds the image")
    return unknown("The expression is neither true nor false.", owner)


def _waived(raw: Outcome, waivers: list[WaiverFact]) -> Outcome:
    """Return the outcome as waived. What the rule says is kept, so that a waiver never hides it."""
    names = ", ".join(f"{waiver.name} until {waiver.until:%Y-%m-%d}" for waiver in waivers)
    return Outcome(Status.WAIVED, f"Waived by {names}. {raw.summary}", (), raw.counts, raw.evidence)
