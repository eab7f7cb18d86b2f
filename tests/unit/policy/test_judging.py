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


def judged(name, **change):
    return next(each for each in judge_promotion(replace(FACTS, **change)).requirements if each.name == name)


@pytest.mark.parametrize(
    ("required", "approvers", "eligible", "status", "summary"),
    [
        (3, ["kim"], ["lee", "max"], Status.PENDING, "1 of 3. The requester does not count."),
        (3, ["kim"], ["lee"], Status.UNSATISFIED,
         "1 of 3, and only 1 other user can approve. The requester does not count."),
        (3, [], ["lee", "max"], Status.UNSATISFIED,
         "0 of 3, and only 2 other users can approve. The requester does not count."),
        (1, [], [], Status.UNSATISFIED, "0 of 1, and no other user can approve. The requester does not count."),
        (2, ["kim", "lee"], [], Status.SATISFIED, "By kim, lee."),
        (0, [], [], Status.NOT_APPLICABLE, "This environment needs no approvals."),
    ],
)  # fmt: skip
def test_approvals_count_what_is_given_and_who_is_left(required, approvers, eligible, status, summary):
    requirement = judged("approvals", required_approvals=required, approvers=approvers, eligible=eligible)
    assert (requirement.status, requirement.summary) == (status, summary)
    assert requirement.counts == {"given": len(approvers), "required": required, "eligible": len(eligible)}
    if required:
        assert requirement.title == ("1 approval" if required == 1 else f"{required} approvals")
    if status == Status.PENDING:
        assert requirement.who == tuple(eligible)


def test_platform_that_is_scanned_has_no_problem_although_an_old_scan_failed():
    scanned = replace(PLATFORM, scan_problem="an old problem")
    assert judged("packages_known", platforms=[scanned]).status == Status.SATISFIED
    failed = judged("packages_known", platforms=[PLATFORM, replace(scanned, is_scanned=False)])
    assert (failed.status, failed.summary) == (Status.ERROR, "The scan failed: an old problem")


def test_platforms_are_named_or_their_digests_are():
    known, unnamed = PLATFORM, replace(PLATFORM, digest="sha256:b", platform="")
    assert judged("platforms_complete", platforms=[known, unnamed]).summary == "linux/amd64, unnamed"
    absent = [replace(each, is_known=False) for each in (known, unnamed)]
    requirement = judged("platforms_complete", platforms=[PLATFORM, *absent], missing_platforms=["linux/arm64"])
    assert requirement.summary == "Not in the registry: linux/amd64, sha256:b, linux/arm64."
    empty = judged("platforms_complete", platforms=[])
    assert (empty.status, empty.summary) == (Status.UNSATISFIED, "No platforms found.")


def test_reasons_name_only_closed_gates():
    verdict = judge_promotion(replace(FACTS, is_or_was_in_previous=False))
    assert verdict.reasons == ("Order of environments: Promote it to staging first.",)


def test_requirement_is_stored_with_plain_values():
    assert judged("stage_order", is_or_was_in_previous=False).as_json() == {
        "name": "stage_order", "title": "Order of environments", "status": "unsatisfied",
        "who": ["promotion to staging"], "summary": "Promote it to staging first.", "counts": {},
    }  # fmt: skip


def test_what_is_no_image_needs_no_platforms_and_packages():
    verdict = judge_promotion(replace(FACTS, platforms=[], artifact="Helm chart"))
    assert verdict.is_allowed
    said = {each.name: (each.status, each.summary) for each in verdict.requirements}
    assert said["packages_known"] == (Status.NOT_APPLICABLE, "Helm chart: only the packages of images are scanned.")
    assert said["platforms_complete"] == (Status.NOT_APPLICABLE, "Helm chart: only images have platforms.")
    closed = judge_promotion(replace(FACTS, platforms=[], artifact="Helm chart", is_or_was_in_previous=False))
    assert [each.name for each in closed.requirements if not each.is_open_gate] == ["stage_order"]
