"""Verdicts from facts: unknown facts do not pass, and each closed gate names who can open it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.policy.judging import judge_promotion
from lifecycle.policy.types import PlatformFacts, PromotionFacts, Status

PLATFORM = PlatformFacts("sha256:a", "linux/amd64", is_known=True, is_scanned=True)
FACTS = PromotionFacts(
    required_approvals=1,
    approvers=["kim"],
    eligible=[],
    platforms=[PLATFORM],
    previous_environment="staging",
    is_or_was_in_previous=True,
)


def test_all_gates_open_when_every_fact_is_good():
    assert judge_promotion(FACTS).is_allowed
    assert judge_promotion(FACTS).reasons == ()


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"approvers": [], "eligible": ["kim"]}, "approvals", Status.PENDING),
        ({"approvers": [], "eligible": []}, "approvals", Status.UNSATISFIED),
        ({"platforms": []}, "packages_known", Status.PENDING),
        ({"platforms": [replace(PLATFORM, is_scanned=False)]}, "packages_known", Status.PENDING),
        ({"platforms": [replace(PLATFORM, is_matched=False)]}, "packages_known", Status.PENDING),
        ({"platforms": [replace(PLATFORM, is_scanned=False, scan_problem="x")]}, "packages_known", Status.ERROR),
        ({"platforms": [replace(PLATFORM, is_known=False)]}, "platforms_complete", Status.UNSATISFIED),
        ({"missing_platforms": ["linux/arm64"]}, "platforms_complete", Status.UNSATISFIED),
        ({"is_or_was_in_previous": False}, "stage_order", Status.UNSATISFIED),
    ],
)
def test_one_bad_fact_closes_its_gate(change, name, status):
    verdict = judge_promotion(replace(FACTS, **change))
    assert not verdict.is_allowed
    judged = next(requirement for requirement in verdict.requirements if requirement.name == name)
    assert judged.status == status
    assert judged.who


def test_gates_that_do_not_apply_are_open():
    verdict = judge_promotion(replace(FACTS, required_approvals=0, approvers=[], previous_environment=None))
    assert verdict.is_allowed
    assert [r.status for r in verdict.requirements].count(Status.NOT_APPLICABLE) == 2
