"""Pure functions from facts to a verdict: no query, no network, no clock."""

from __future__ import annotations

from lifecycle.policy.types import PromotionFacts, Requirement, Status, Verdict


def judge_promotion(facts: PromotionFacts) -> Verdict:
    """Return the status of each requirement of a promotion. Pages sort them by urgency."""
    return Verdict((_approvals(facts), _packages(facts), _platforms(facts), _stages(facts)))


def _approvals(facts: PromotionFacts) -> Requirement:
    required, given, eligible = facts.required_approvals, len(facts.approvers), len(facts.eligible)
    counts = {"given": given, "required": required, "eligible": eligible}
    if required == 0:
        summary = "This environment needs no approvals."
        return Requirement("approvals", "Approvals", Status.NOT_APPLICABLE, summary, counts=counts)
    title = f"{required} approval{'s' if required != 1 else ''}"
    ignored = "".join(f" {reason}" for reason in facts.uncounted)
    if given >= required:
        summary = f"By {', '.join(facts.approvers)}.{ignored}"
        return Requirement("approvals", title, Status.SATISFIED, summary, counts=counts)
    if eligible < required - given:
        others = {0: "no other user", 1: "only 1 other user"}.get(eligible, f"only {eligible} other users")
        summary = f"{given} of {required}, and {others} can approve. The requester does not count.{ignored}"
        who = ("an owner of the team: grant promotion.approve",)
        return Requirement("approvals", title, Status.UNSATISFIED, summary, who, counts)
    summary = f"{given} of {required}. The requester does not count.{ignored}"
    return Requirement("approvals", title, Status.PENDING, summary, tuple(facts.eligible), counts)


def _packages(facts: PromotionFacts) -> Requirement:
    title = "Packages scanned"
    failed = [p for p in facts.platforms if not p.is_scanned and p.scan_problem]
    waiting = [p for p in facts.platforms if not p.is_scanned and not p.scan_problem]
    if failed:
        return Requirement(
            "packages_known",
            title,
            Status.ERROR,
            f"The scan failed: {failed[0].scan_problem}",
            ("an admin: retry the scan under Jobs",),
        )
    if waiting or not facts.platforms:
        return Requirement("packages_known", title, Status.PENDING, "The scan has not finished.", ("Gravingdock",))
    if not all(p.is_matched for p in facts.platforms):
        summary = "Packages are being checked against advisories."
        return Requirement("packages_known", title, Status.PENDING, summary, ("Gravingdock",))
    return _unjudged(facts, title)


def _unjudged(facts: PromotionFacts, title: str) -> Requirement:
    """Return the requirement for scanned images. What nobody could judge is never satisfied: somebody accepts it.

    Approvers accept it with their vote, because their evidence names it. Where no approval is required, the owner of
    the environment accepted it for all images, and the requirement says so.
    """
    unknown = [p for p in facts.platforms if p.unknown]
    if not unknown:
        return Requirement("packages_known", title, Status.SATISFIED, "All packages are checked against advisories.")
    has_several = len(facts.platforms) > 1
    words = "; ".join(f"{p.platform or p.digest[:19]}: {p.unknown}" if has_several else p.unknown for p in unknown)
    words = f"{words[:1].upper()}{words[1:]}."
    counts = {
        "unjudged": sum(p.unjudged_count for p in facts.platforms),
        "packages": sum(p.package_count for p in facts.platforms),
    }
    if not facts.required_approvals:
        words += " Accepted for every image, because this environment requires no approvals."
        return Requirement("packages_known", title, Status.WAIVED, words, counts=counts)
    if len(facts.approvers) >= facts.required_approvals:
        words += f" Accepted by {', '.join(facts.approvers)} with their approval."
        return Requirement("packages_known", title, Status.WAIVED, words, counts=counts)
    words += " Their findings are unknown. An approval accepts this."
    return Requirement("packages_known", title, Status.PENDING, words, tuple(facts.eligible), counts)


def _platforms(facts: PromotionFacts) -> Requirement:
    absent = [p.platform or p.digest for p in facts.platforms if not p.is_known] + list(facts.missing_platforms)
    if absent or not facts.platforms:
        summary = f"Not in the registry: {', '.join(absent)}." if absent else "No platforms found."
        who = ("push the missing platforms",)
        return Requirement("platforms_complete", "Platforms complete", Status.UNSATISFIED, summary, who)
    names = ", ".join(p.platform or "unnamed" for p in facts.platforms)
    return Requirement("platforms_complete", "Platforms complete", Status.SATISFIED, names)


def _stages(facts: PromotionFacts) -> Requirement:
    title = "Stage order"
    if facts.previous_environment is None:
        return Requirement("stage_order", title, Status.NOT_APPLICABLE, "First environment.")
    if facts.is_or_was_in_previous:
        return Requirement("stage_order", title, Status.SATISFIED, f"Already promoted to {facts.previous_environment}.")
    return Requirement(
        "stage_order",
        title,
        Status.UNSATISFIED,
        f"Promote it to {facts.previous_environment} first.",
        (f"promotion to {facts.previous_environment}",),
    )
