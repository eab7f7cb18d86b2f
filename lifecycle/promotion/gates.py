"""Policies at the gate of a promotion: their requirements, what an approval is bound to, and when environments held
an image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, Final

from django.db import connection

from lifecycle.evidence.policy_facts import past_stays
from lifecycle.evidence.verdicts import ImageVerdict, judge
from lifecycle.policies.queries import combine, effective_rules, rule_set_of
from lifecycle.policies.types import Scope
from lifecycle.policy.facts import Stay
from lifecycle.policy.judging import bypassed
from lifecycle.policy.rulesets import Point, tightened
from lifecycle.policy.types import Verdict
from lifecycle.promotion.models import PromotionRequest

# What an open request shows: also what is enforced only when it runs, so that "ready" means that it can run.
BEFORE: Final = (Point.REQUEST, Point.EXECUTION)
RUNNING: Final = (Point.EXECUTION,)


def policy_gate(request: PromotionRequest, points: tuple[Point, ...] = BEFORE) -> ImageVerdict:
    """Return what the policies of the place say about the request's image now."""
    return judge(request.image, request.repository, request.environment, points)


def with_policy(verdict: Verdict, gate: ImageVerdict, request: PromotionRequest) -> Verdict:
    """Return the verdict of a promotion with the requirements of its policies; break-glass bypasses most of them."""
    whole = Verdict((*verdict.requirements, *(item.requirement for item in gate.shown)))
    return bypassed(whole) if request.kind == PromotionRequest.Kind.BREAK_GLASS else whole


def policy_inputs(gate: ImageVerdict) -> dict[str, Any]:
    """Return what an evaluation keeps of the policies: the revisions, and what rules in observe say."""
    inputs: dict[str, Any] = {}
    if gate.effective.revisions:
        inputs["policy"] = [list(revision) for revision in gate.effective.revisions]
    if gate.observed:
        inputs["observed"] = {item.rule.key: item.outcome.status.value for item in gate.observed}
    return inputs


def why_policy_lapses(request: PromotionRequest, seen: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return why an approval with the evidence `seen` does not hold under the policies of `now`; "" when it holds.

    An approval is bound to the revisions that its voter saw. A stricter one ends it; a looser one does not.
    """
    old, new = seen.get("policy", []), now.get("policy", [])
    if old == new:
        return ""
    team, environment = request.repository.team, request.environment
    lowest = Scope(team, environment)
    numbers = {name: number for name, number, _ in old}
    before = combine(
        rule_set_of(scope, numbers[scope.name]) for scope in (*lowest.above, lowest) if scope.name in numbers
    )
    keys = tightened(before.rules, effective_rules(team, environment).rules, BEFORE)
    if not keys:
        return ""
    return f"The policy became stricter since the vote: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}."


# All moves of these repositories to the environments to which one of these images ever moved.
_MOVES: Final = """
SELECT request.repository_id, request.environment_id, request.image_id, place.slug, request.finished_at
FROM lifecycle_promotionrequest request JOIN lifecycle_environment place ON place.id = request.environment_id
WHERE request.repository_id = ANY(%s) AND request.state = 'succeeded' AND request.environment_id IN (
    SELECT environment_id FROM lifecycle_promotionrequest WHERE repository_id = ANY(%s) AND image_id = ANY(%s)
)
ORDER BY request.finished_at, request.id
"""
_THERE_NOW: Final = """
SELECT slot.image_id, slot.repository_id, place.slug, slot.since
FROM lifecycle_slot slot JOIN lifecycle_environment place ON place.id = slot.environment_id
WHERE slot.repository_id = ANY(%s) AND slot.image_id = ANY(%s) AND slot.since IS NOT NULL
"""


@past_stays.answered_by
def stays_of(pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], list[Stay]]:
    """Return when environments held these images, by (image id, source repository id). Two queries.

    A promotion begins a stay, and the next one of the same repository to the same environment ends it.
    """
    wanted = [list({pk for _, pk in pairs}), list({pk for pk, _ in pairs})]
    changes: dict[tuple[int, int], list[tuple[int, str, Any]]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_MOVES, [wanted[0], *wanted])
        for row in cursor.fetchall():
            changes[row[0], row[1]].append(row[2:])
        cursor.execute(_THERE_NOW, wanted)
        there = cursor.fetchall()
    stays: dict[tuple[int, int], list[Stay]] = defaultdict(list)
    for (repository_id, _), moves in changes.items():
        for position, (image_id, slug, since) in enumerate(moves):
            if (image_id, repository_id) in pairs and position + 1 < len(moves):
                stays[image_id, repository_id].append(Stay(slug, since, moves[position + 1][2]))
    for image_id, repository_id, slug, since in there:
        stays[image_id, repository_id].append(Stay(slug, since))
    return stays
