"""Judge requests: evaluate what they need, store the result, and move them between open and ready."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import orjson
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import Details
from lifecycle.audit.details_of_promotion import VoteLapsed
from lifecycle.core import clock
from lifecycle.core.states import move_row
from lifecycle.core.types import Digest
from lifecycle.policies.asking import ask_where_due
from lifecycle.policy.judging import judge_promotion
from lifecycle.policy.rulesets import Point
from lifecycle.policy.types import Verdict
from lifecycle.promotion import release_states
from lifecycle.promotion.gates import BEFORE, policy_gate, policy_inputs, why_policy_lapses, with_policy
from lifecycle.promotion.models import Evaluation, PromotionRequest, Vote
from lifecycle.promotion.opening import wait_for_window
from lifecycle.promotion.queries import (
    evidence_of,
    facts_of,
    renamed,
)

State = PromotionRequest.State
# By the database's clock: workers and web processes may have another one.
OVERDUE: Final = Q(state=State.OPEN, approve_by__lt=Now()) | Q(state=State.READY, execute_by__lt=Now())


def move(request: PromotionRequest, state: str, **changes: object) -> None:
    """Move a locked request to `state`; the only writer of `state`. Raises IllegalTransition."""
    if state not in PromotionRequest.NEXT:
        changes["finished_at"] = clock.now()
    move_row(request, state, **changes)


def evaluate(request: PromotionRequest, points: tuple[Point, ...] = BEFORE) -> tuple[Verdict, Evaluation]:
    """Evaluate a locked request with the current data and store the result when it changed. Votes can lapse here."""
    gate = policy_gate(request, points)
    ask_where_due(gate.judged, request.image, request.repository)
    inputs = evidence_of(request) | policy_inputs(gate)
    _lapse_votes(request, inputs)
    facts = facts_of(request)
    verdict = with_policy(judge_promotion(facts), gate, request)
    requirements = [requirement.as_json() for requirement in verdict.requirements]
    content = orjson.dumps({"requirements": requirements, "inputs": inputs}, option=orjson.OPT_SORT_KEYS)
    digest = Digest.of(content).text
    latest = request.evaluations.order_by("-pk").first()
    if latest is None or latest.digest != digest:
        latest = Evaluation.objects.create(
            request=request, requirements=requirements, inputs=inputs, digest=digest, is_satisfied=verdict.is_allowed
        )
    # Matching without a result leaves no time stamp. So the request stays due until matching has finished.
    is_matched = all(platform.is_matched for platform in facts.platforms)
    PromotionRequest.objects.filter(pk=request.pk).update(judged_at=Now() if is_matched else None)
    return verdict, latest


def _lapse_votes(request: PromotionRequest, inputs: dict[str, Any]) -> None:
    """Lapse approvals when the image has a critical or high finding that was not in the voter's evidence, or more that
    nobody could judge, or when a policy became stricter.

    An approval is bound to its evidence. Fixed findings, or another image in the target, do not affect it.
    """
    for vote in request.votes.filter(value=Vote.Value.APPROVE, lapsed_at=None).select_related("evaluation", "voter"):
        seen = vote.evaluation.inputs if vote.evaluation else {}
        why = why_policy_lapses(request, seen, inputs)
        if not why and inputs["findings"] is not None:
            why = _why_lapsed(seen.get("findings") or {}, inputs["findings"])
        if why:
            vote.lapsed_at, vote.lapse_reason = clock.now(), why
            vote.save(update_fields=["lapsed_at", "lapse_reason"])
            details = VoteLapsed(voter=vote.voter.username)
            record(Action.PROMOTION_VOTE_LAPSED, request, system_user(), reason=vote.lapse_reason, details=details)


def _why_lapsed(seen: dict[str, Any], now: dict[str, Any]) -> str:
    """Return why an approval given for the findings `seen` does not hold for those `now`; "" when it holds."""
    appeared = sorted(set(now["severe"]) - set(seen.get("severe", ())))
    if appeared:  # the same vulnerability can have another name since the vote
        appeared = sorted(set(appeared) - renamed(seen.get("severe", ())))
    if appeared:
        names = ", ".join(appeared[:3]) + (f" and {len(appeared) - 3} more" if len(appeared) > 3 else "")
        return f"New findings since the vote: {names}."
    more = now["unjudged"] - seen.get("unjudged", 0)
    if more > 0:
        return f"Since the vote, {more} more package{'' if more == 1 else 's'} could not be judged."
    if now["without_packages"] > seen.get("without_packages", 0):
        return "The evidence of the vote did not say that no packages were recognised."
    return ""


def judge_locked(request: PromotionRequest) -> Evaluation:
    """Evaluate a locked open or ready request, and move it between the two states when the verdict changed."""
    verdict, evaluation = evaluate(request)
    if request.state == State.OPEN and verdict.is_allowed and not is_overdue(request):
        moment = clock.now()
        execute_by = moment + timedelta(seconds=request.environment.execute_within_s)
        move(request, State.READY, decided_at=moment, execute_by=None if request.release_set_id else execute_by)
        record(Action.PROMOTION_READY, request, system_user())
        release_states.follow(request)
    elif request.state == State.READY and not verdict.is_allowed:
        move(request, State.OPEN, decided_at=None, execute_by=None)
        record(Action.PROMOTION_REGRESSED, request, system_user(), reason="; ".join(verdict.reasons))
        release_states.follow(request, why="; ".join(verdict.reasons))
    if request.state == State.READY:
        wait_for_window(request)
    return evaluation


def is_overdue(request: PromotionRequest) -> bool:
    """Return whether the time to approve or to run the request is over. `expire_due` ends it within a minute."""
    return PromotionRequest.objects.filter(OVERDUE, pk=request.pk).exists()


def record(
    action: Action, request: PromotionRequest, actor: User, *, reason: str = "", details: Details | None = None
) -> None:
    audit.record(
        action, actor=actor, subject=request, repository=request.repository, environment=request.environment,
        image=request.image, reason=reason, details=details,
    )  # fmt: skip
