"""From facts to a verdict: pure functions, no query, no network, no clock."""

from __future__ import annotations

from lifecycle.policy.types import PromotionFacts, Requirement, Status, Verdict


def judge_promotion(facts: PromotionFacts) -> Verdict:
    """Return how each requirement of a promotion stands; the order is the page's, open problems are sorted there."""
    return Verdict((_approvals(facts), _packages(facts), _platforms(facts), _stages(facts)))


def _approvals(facts: PromotionFacts) -> Requirement:
    title = f"{facts.required_approvals} approval{'s' if facts.required_approvals != 1 else ''}"
    if facts.required_approvals == 0:
        return Requirement("approvals", "Approvals", Status.NOT_APPLICABLE, "This environment asks for none.")
    given = len(facts.approvers)
    if given >= facts.required_approvals:
        return Requirement("approvals", title, Status.SATISFIED, f"By {', '.join(facts.approvers)}.")
    missing = facts.required_approvals - given
    if len(facts.eligible) < missing:
        others = {0: "nobody else", 1: "only 1 other person"}.get(
            len(facts.eligible), f"only {len(facts.eligible)} others"
        )
        summary = f"{given} of {facts.required_approvals}, and {others} may approve; the requester does not count."
        return Requirement("approvals", title, Status.UNSATISFIED, summary, ("an owner of the team: grant the right",))
    summary = f"{given} of {facts.required_approvals}. The requester does not count."
    return Requirement("approvals", title, Status.PENDING, summary, tuple(facts.eligible))


def _packages(facts: PromotionFacts) -> Requirement:
    title = "Packages known"
    failed = [p for p in facts.platforms if not p.is_scanned and p.scan_problem]
    waiting = [p for p in facts.platforms if not p.is_scanned and not p.scan_problem]
    if failed:
        return Requirement(
            "packages_known",
            title,
            Status.ERROR,
            f"The scan failed: {failed[0].scan_problem}",
            ("an admin: try the scan again, under Jobs",),
        )
    if waiting or not facts.platforms:
        return Requirement("packages_known", title, Status.PENDING, "The scan has not finished.", ("Gravingdock",))
    if not all(p.is_matched for p in facts.platforms):
        summary = "Its packages are being matched against the advisories."
        return Requirement("packages_known", title, Status.PENDING, summary, ("Gravingdock",))
    return Requirement("packages_known", title, Status.SATISFIED, "Every platform has been scanned and matched.")


def _platforms(facts: PromotionFacts) -> Requirement:
    absent = [p.platform or p.digest for p in facts.platforms if not p.is_known] + list(facts.missing_platforms)
    if absent or not facts.platforms:
        summary = f"Not in the registry: {', '.join(absent)}." if absent else "No platform is known."
        return Requirement("platforms_complete", "Platforms complete", Status.UNSATISFIED, summary, ("push them",))
    names = ", ".join(p.platform or "unnamed" for p in facts.platforms)
    return Requirement("platforms_complete", "Platforms complete", Status.SATISFIED, names)


def _stages(facts: PromotionFacts) -> Requirement:
    title = "Stage order"
    if facts.previous_environment is None:
        return Requirement("stage_order", title, Status.NOT_APPLICABLE, "The first environment of the path.")
    if facts.is_or_was_in_previous:
        return Requirement("stage_order", title, Status.SATISFIED, f"It has been in {facts.previous_environment}.")
    return Requirement(
        "stage_order",
        title,
        Status.UNSATISFIED,
        f"It has not been in {facts.previous_environment}; promote it there first.",
        (f"promotion into {facts.previous_environment}",),
    )
