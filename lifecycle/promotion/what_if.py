"""What a draft of a rule set would change: for everything that environments hold now, and for the latest requests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.evidence.verdicts import waivers_covering
from lifecycle.policies import cel
from lifecycle.policies.models import Waiver
from lifecycle.policies.queries import approved_waivers, combine, rule_sets
from lifecycle.policies.types import RuleSet, Scope
from lifecycle.policy.expressions import Answer, values_of
from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.images import Judged, WaiverFact, expressions_of, judge_with, needs_of
from lifecycle.policy.rulesets import Mode, Rule, rules_at
from lifecycle.promotion.gates import BEFORE
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Repository

REQUESTS_FOR: Final = timedelta(days=90)
SUBJECTS_MAX: Final = 20_000
SHOWN_MAX: Final = 500  # flips in the result; the counts have all of them
_BATCH: Final = 500  # images whose facts are in memory at once


@dataclass(frozen=True, slots=True)
class Flip:
    """One image in one environment whose verdict would change. `request_id` is None for what is there now."""

    team: str
    repository: str
    environment: str
    digest: str
    request_id: int | None
    is_blocked: bool  # by the draft; False: the draft lets it pass, and the rules of now do not
    rules: tuple[tuple[str, str, str], ...]  # (key, mode, summary) of each rule of the draft that objects


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The result for all subjects, with the numbers per team and per rule. Only flips that the reader sees are named.

    A rule in observe or warn counts as if it were enforced: that is what its owner wants to know before raising it.
    """

    judged_now: int
    judged_requests: int
    is_cut: bool  # more than SUBJECTS_MAX; the newest were judged
    blocked_by_team: dict[str, int]
    released_by_team: dict[str, int]
    blocked_by_rule: dict[str, int]
    flips: tuple[Flip, ...]
    hidden_count: int


@dataclass(frozen=True, slots=True)
class _Subject:
    image: Image
    repository: Repository
    environment: Environment
    request_id: int | None

    @property
    def key(self) -> tuple[int, int, int]:
        return self.image.pk, self.repository.pk, self.environment.pk


def what_if(draft: RuleSet, *, reader: User) -> WhatIf:
    """Judge everything in the draft's scope by the rules of now and by the draft. Nothing is stored."""
    subjects = _subjects(draft.scope)
    is_cut = len(subjects) > SUBJECTS_MAX
    subjects = subjects[:SUBJECTS_MAX]
    visible = set(
        repositories_visible_to(reader)
        .filter(pk__in={subject.repository.pk for subject in subjects})
        .values_list("pk", flat=True)
    )
    blocked: Counter[str] = Counter()
    released: Counter[str] = Counter()
    by_rule: Counter[str] = Counter()
    flips: list[Flip] = []
    hidden = 0
    for subject, before, after in _judged(subjects, draft):
        objections = [item for item in after if not item.outcome.is_open]
        by_rule.update(item.rule.key for item in objections)
        was_blocked = any(item.blocks for item in before)
        if bool(objections) == was_blocked:
            continue
        (blocked if objections else released)[subject.repository.team.slug] += 1
        if subject.repository.pk not in visible:
            hidden += 1
        elif len(flips) < SHOWN_MAX:
            flips.append(_flip(subject, objections))
    requests = sum(subject.request_id is not None for subject in subjects)
    return WhatIf(
        judged_now=len(subjects) - requests,
        judged_requests=requests,
        is_cut=is_cut,
        blocked_by_team=dict(sorted(blocked.items())),
        released_by_team=dict(sorted(released.items())),
        blocked_by_rule=dict(sorted(by_rule.items())),
        flips=tuple(flips),
        hidden_count=hidden,
    )


def _flip(subject: _Subject, objections: Sequence[Judged]) -> Flip:
    return Flip(
        subject.repository.team.slug,
        subject.repository.name,
        subject.environment.slug,
        subject.image.digest,
        subject.request_id,
        bool(objections),
        tuple((item.rule.key, item.mode.value, item.outcome.summary) for item in objections),
    )


def _subjects(scope: Scope) -> list[_Subject]:
    """Return what environments of the scope hold now, and the requests of the last 90 days, newest first."""
    slots = Slot.objects.filter(image__isnull=False, repository__environment=None)
    requests = PromotionRequest.objects.filter(created_at__gt=clock.now() - REQUESTS_FOR)
    if scope.team is not None:
        slots, requests = slots.filter(environment__team=scope.team), requests.filter(environment__team=scope.team)
    if scope.environment is not None:
        slots, requests = slots.filter(environment=scope.environment), requests.filter(environment=scope.environment)
    joins = ("image", "repository__team", "environment__team")
    heavy = ("image__manifest", "image__config", "image__annotations", "image__labels")
    found = []
    for slot in slots.select_related(*joins).defer(*heavy).order_by("-since", "-pk")[: SUBJECTS_MAX + 1]:
        if slot.image is not None:
            found.append(_Subject(slot.image, slot.repository, slot.environment, None))
    for row in requests.select_related(*joins).defer(*heavy).order_by("-pk")[: SUBJECTS_MAX + 1]:
        found.append(_Subject(row.image, row.repository, row.environment, row.pk))
    return found


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of a place. `same` says which rule of now is also in the draft, by positions: it is judged once."""

    now: list[Rule]  # those that are enforced
    then: list[Rule]  # all rules of the draft
    same: Mapping[int, int]
    other: list[Rule]  # rules of now that the draft does not have
    texts: list[str]  # of the expressions of all of them

    @classmethod
    def of(cls, now: list[Rule], then: list[Rule]) -> _Rules:
        same = {}
        for position, rule in enumerate(now):
            found = next((at for at, drafted in enumerate(then) if _says_the_same(drafted, rule)), None)
            if found is not None:
                same[position] = found
        other = [rule for position, rule in enumerate(now) if position not in same]
        return cls(now, then, same, other, expressions_of([*then, *other]))


_Pair = tuple[Sequence[Judged], Sequence[Judged]]


def _judged(
    subjects: Sequence[_Subject], draft: RuleSet
) -> Iterator[tuple[_Subject, Sequence[Judged], Sequence[Judged]]]:
    """Yield each subject with what the rules of now and those of the draft say, each image and place judged once."""
    once = list({subject.key: subject for subject in subjects}.values())
    rules = _rules_by_place({subject.environment for subject in once}, draft)
    needs = needs_of(rule for place in rules.values() for rule in (*place.then, *place.other))
    waivers: dict[int, list[Waiver]] = defaultdict(list)
    for row in approved_waivers({environment.team_id for environment in rules}):
        waivers[row.team_id].append(row)
    results: dict[tuple[int, int, int], _Pair] = {}
    for start in range(0, len(once), _BATCH):
        batch = once[start : start + _BATCH]
        facts = facts_of_images([(s.image, s.repository, s.environment) for s in batch], needs)
        texts = [rules[subject.environment].texts for subject in batch]
        answers = cel.evaluate_many([(each, values_of(known, each)) for each, known in zip(texts, facts, strict=True)])
        for subject, known, said in zip(batch, facts, answers, strict=True):
            here = subject.environment
            rows = [row for row in waivers[here.team_id] if row.environment_id in {None, here.pk}]
            covering = waivers_covering(rows, subject.repository, known) if rows else []
            by_text = dict(zip(rules[here].texts, said, strict=True))
            results[subject.key] = _both(known, covering, rules[here], by_text)
    for subject in subjects:
        yield subject, *results[subject.key]


def _rules_by_place(places: Collection[Environment], draft: RuleSet) -> dict[Environment, _Rules]:
    """Return the rules of each environment. One query. Most places have no rules of their own, and share the result."""
    sets = rule_sets(scope for place in places for scope in (Scope(), Scope(place.team), Scope(place.team, place)))
    known: dict[tuple[int, ...], _Rules] = {}
    found = {}
    for place in places:
        levels = [sets[scope] for scope in (Scope(), Scope(place.team), Scope(place.team, place))]
        drafted = [draft if level.scope == draft.scope else level for level in levels]
        key = tuple(id(level) if level.rules else 0 for level in (*levels, *drafted))
        if key not in known:
            now = rules_at(combine(levels).rules, BEFORE)
            enforced = [rule for rule in now if rule.mode(BEFORE[0]) is Mode.ENFORCE]
            known[key] = _Rules.of(enforced, rules_at(combine(drafted).rules, BEFORE))
        found[place] = known[key]
    return found


def _both(facts: ImageFacts, waivers: Sequence[WaiverFact], rules: _Rules, answers: Mapping[str, Answer]) -> _Pair:
    """Return what both lists of rules say."""
    after = judge_with(rules.then, facts, BEFORE[0], answers, waivers=waivers)
    only_now = iter(judge_with(rules.other, facts, BEFORE[0], answers, waivers=waivers))
    before = [
        replace(after[rules.same[position]], rule=rule, mode=Mode.ENFORCE) if position in rules.same else next(only_now)
        for position, rule in enumerate(rules.now)
    ]
    return before, after


def _says_the_same(rule: Rule, other: Rule) -> bool:
    """Return whether two rules say the same about every image; their modes may differ."""
    return (rule.key, rule.kind, rule.parameters, rule.is_waivable) == (
        other.key, other.kind, other.parameters, other.is_waivable
    )  # fmt: skip


def as_json(result: WhatIf) -> dict[str, Any]:
    """Return it as the API shows it."""
    return {
        "judged_now": result.judged_now,
        "judged_requests": result.judged_requests,
        "is_cut": result.is_cut,
        "blocked_by_team": result.blocked_by_team,
        "released_by_team": result.released_by_team,
        "blocked_by_rule": result.blocked_by_rule,
        "hidden_count": result.hidden_count,
        "flips": [
            {
                "team": flip.team,
                "repository": flip.repository,
                "environment": flip.environment,
                "digest": flip.digest,
                "request": flip.request_id,
                "blocked": flip.is_blocked,
                "rules": [{"rule": key, "mode": mode, "summary": summary} for key, mode, summary in flip.rules],
            }
            for flip in result.flips
        ],
    }
