"""Pure functions from facts to a verdict: no query, no network, no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from lifecycle.policy.quorum import Quorum, Rule, quorum, with_rest
from lifecycle.policy.types import PromotionFacts, Requirement, Status, Verdict

NEVER_BYPASSED: Final = frozenset({"platforms_complete", "quarantine"})  # names of requirements


def judge_promotion(facts: PromotionFacts) -> Verdict:
    """Return the status of each requirement of a promotion. Pages sort them by urgency."""
    return Verdict(
        (
            *_approvals(facts),
            *_objections(facts),
            *_threads(facts),
            _packages(facts),
            _platforms(facts),
            _stages(facts),
            *_soak(facts),
            *_holds(facts),
            *_quarantines(facts),
        )
    )


def bypassed(verdict: Verdict) -> Verdict:
    """Return what break-glass makes of a verdict: unmet requirements stay, as bypassed; some can never be."""
    return Verdict(
        tuple(
            item
            if item.is_open_gate or item.name in NEVER_BYPASSED
            else replace(item, status=Status.BYPASSED, summary=f"Bypassed. {item.summary}", who=())
            for item in verdict.requirements
        )
    )


def _quorum_of(facts: PromotionFacts) -> tuple[list[Rule], Quorum]:
    rules = with_rest(facts.rules, facts.required_approvals, [*facts.approvers, *facts.eligible])
    return rules, quorum(rules, facts.approvers, facts.eligible)


def _approvals(facts: PromotionFacts) -> tuple[Requirement, ...]:
    """Return the requirement for all approvals, and one for each rule about who gives some of them."""
    rules, result = _quorum_of(facts)
    required, eligible = sum(rule.required for rule in rules), len(facts.eligible)
    given = required - result.missing
    counts = {"given": given, "required": required, "eligible": eligible}
    if required == 0:
        summary = "This environment needs no approvals."
        return (Requirement("approvals", "Approvals", Status.NOT_APPLICABLE, summary, counts=counts),)
    title = f"{required} approval{'s' if required != 1 else ''}"
    ignored = "".join(f" {reason}" for reason in [*facts.exclusions, *facts.allowances, *facts.uncounted])
    by_rule = tuple(_approval_rule(index, rule, result) for index, rule in enumerate(rules[:-1]))
    if result.is_reached:
        uncounted = "".join(f" {reason}" for reason in [*facts.allowances, *facts.uncounted])
        summary = f"By {', '.join(facts.approvers)}.{uncounted}"
        return (Requirement("approvals", title, Status.SATISFIED, summary, counts=counts), *by_rule)
    surplus = "".join(f" The approval of {name} fills no open place." for name in result.surplus)
    if not result.is_possible:
        others = {0: "no other user", 1: "only 1 other user"}.get(eligible, f"only {eligible} other users")
        summary = f"{given} of {required}, and {others} can approve.{ignored}{surplus}"
        who = ("an owner of the team: grant promotion.approve",)
        return (Requirement("approvals", title, Status.UNSATISFIED, summary, who, counts), *by_rule)
    summary = f"{given} of {required}.{ignored}{surplus}"
    return (Requirement("approvals", title, Status.PENDING, summary, result.helpers, counts), *by_rule)


def _approval_rule(index: int, rule: Rule, result: Quorum) -> Requirement:
    by, short = result.by_rule[index], result.short[index]
    counts = {"given": len(by), "required": rule.required}
    title = f"{rule.required} approval{'s' if rule.required != 1 else ''} by {rule.name}"
    names = f" By {', '.join(by)}." if by else ""
    if len(by) == rule.required:
        return Requirement("approval_rule", title, Status.SATISFIED, names.strip(), counts=counts)
    if short:
        summary = f"{len(by)} of {rule.required}, and too few users of this group can still approve.{names}"
        who = ("a user with environment.manage: change the rule or its group",)
        return Requirement("approval_rule", title, Status.UNSATISFIED, summary, who, counts)
    summary = f"{len(by)} of {rule.required}.{names}"
    return Requirement("approval_rule", title, Status.PENDING, summary, result.helpers_by_rule[index], counts)


def _objections(facts: PromotionFacts) -> tuple[Requirement, ...]:
    """Return the requirement that nobody objects; () when nobody did. One that was overruled is waived."""
    if not facts.objections:
        return ()
    standing = [item for item in facts.objections if not item.overruled_by]
    words = " ".join(
        f"{item.voter} objects{f', overruled by {item.overruled_by}' if item.overruled_by else ''}: {item.comment}"
        for item in [*standing, *(item for item in facts.objections if item.overruled_by)]
    )
    counts = {"objections": len(standing)}
    if not standing:
        return (Requirement("objections", "No objection", Status.WAIVED, words, counts=counts),)
    who = (*(f"{item.voter}: withdraw the objection" for item in standing), "a user with environment.manage: overrule")
    return (Requirement("objections", "No objection", Status.UNSATISFIED, words, who, counts),)


def _threads(facts: PromotionFacts) -> tuple[Requirement, ...]:
    """Return the requirement that no blocking thread is open; () when none is."""
    if not facts.open_threads:
        return ()
    number, names = len(facts.open_threads), sorted(set(facts.open_threads))
    words = f"{number} thread{'' if number == 1 else 's'} of {', '.join(names)} must be resolved first."
    who = (*(f"{name}: resolve the thread" for name in names), "another approver: resolve it")
    return (Requirement("threads", "Threads resolved", Status.UNSATISFIED, words, who, {"threads": number}),)


def _packages(facts: PromotionFacts) -> Requirement:
    title = "Packages scanned"
    if facts.artifact:
        summary = f"{facts.artifact}: only the packages of images are scanned."
        return Requirement("packages_known", title, Status.NOT_APPLICABLE, summary)
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
    rules, result = _quorum_of(facts)
    if not any(rule.required for rule in rules):
        words += " Accepted for every image, because this environment requires no approvals."
        return Requirement("packages_known", title, Status.WAIVED, words, counts=counts)
    if result.is_reached:
        words += f" Accepted by {', '.join(facts.approvers)} with their approval."
        return Requirement("packages_known", title, Status.WAIVED, words, counts=counts)
    words += " Their findings are unknown. An approval accepts this."
    return Requirement("packages_known", title, Status.PENDING, words, tuple(facts.eligible), counts)


def _platforms(facts: PromotionFacts) -> Requirement:
    if facts.artifact:
        summary = f"{facts.artifact}: only images have platforms."
        return Requirement("platforms_complete", "Platforms complete", Status.NOT_APPLICABLE, summary)
    absent = [p.platform or p.digest for p in facts.platforms if not p.is_known] + list(facts.missing_platforms)
    if absent or not facts.platforms:
        summary = f"Not in the registry: {', '.join(absent)}." if absent else "No platforms found."
        who = ("push the missing platforms",)
        return Requirement("platforms_complete", "Platforms complete", Status.UNSATISFIED, summary, who)
    names = ", ".join(p.platform or "unnamed" for p in facts.platforms)
    return Requirement("platforms_complete", "Platforms complete", Status.SATISFIED, names)


def _stages(facts: PromotionFacts) -> Requirement:
    title = "Order of environments"
    if facts.skips_stages:
        return Requirement("stage_order", title, Status.NOT_APPLICABLE, facts.skips_stages)
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


def _soak(facts: PromotionFacts) -> tuple[Requirement, ...]:
    """Return the requirement of the soak time, with the epoch second of its end in `counts`; () without one."""
    soak = facts.soak
    if soak is None:
        return ()
    title, counts = f"Soak in {soak.environment}", {"required_s": soak.required_s, "stayed_s": soak.stayed_s}
    needed = duration(soak.required_s)
    if soak.is_done:
        return (Requirement("soak", title, Status.SATISFIED, f"Stayed there for {needed}.", counts=counts),)
    if soak.since is None:
        summary = f"Needs {needed} there without interruption. The image is not there now."
        who = (f"promotion to {soak.environment}",)
        return (Requirement("soak", title, Status.UNSATISFIED, summary, who, counts),)
    done_at = soak.since + timedelta(seconds=soak.required_s)
    summary = f"There since {soak.since:%Y-%m-%d %H:%M} UTC. Needs {needed}: until {done_at:%Y-%m-%d %H:%M} UTC."
    counts |= {"done_at": int(done_at.timestamp())}
    return (Requirement("soak", title, Status.PENDING, summary, ("time",), counts),)


def _holds(facts: PromotionFacts) -> tuple[Requirement, ...]:
    """Return the requirement that nothing holds the promotion; () when nothing does."""
    if not facts.holds:
        return ()
    words = []
    for hold in facts.holds:
        until = f" until {hold.until}" if hold.until else ", until it is lifted"
        words.append(f"{'Stopped' if hold.is_stop else 'Held'} by {hold.owner}{until}: {hold.reason}")
    title = "Line stopped" if any(hold.is_stop for hold in facts.holds) else "On hold"
    who = tuple(sorted({f"{hold.owner}: lift it" for hold in facts.holds}))
    return (Requirement("holds", title, Status.UNSATISFIED, " ".join(words), who, {"holds": len(facts.holds)}),)


def _quarantines(facts: PromotionFacts) -> tuple[Requirement, ...]:
    """Return the requirement that no quarantine covers the image; () when none does. Nothing waives or bypasses it."""
    if not facts.quarantines:
        return ()
    who = ("a user with image.quarantine: ask for the release; another user lifts it",)
    counts = {"quarantines": len(facts.quarantines)}
    return (Requirement("quarantine", "Not quarantined", Status.UNSATISFIED, " ".join(facts.quarantines), who, counts),)


def duration(seconds: int) -> str:
    """Return a time in its largest whole unit: `24 h`, `7 d`, `90 min`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds % size == 0 and (unit != "d" or seconds >= 2 * size):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
