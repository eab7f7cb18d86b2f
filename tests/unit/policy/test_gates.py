"""Every sentence that a gate of a promotion can say, with its status, its numbers, and who can open it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from lifecycle.policy.judging import NEVER_BYPASSED, bypassed, duration, judge_promotion
from lifecycle.policy.quorum import Rule
from lifecycle.policy.types import (
    HoldFacts,
    ObjectionFacts,
    PlatformFacts,
    PromotionFacts,
    Requirement,
    SoakFacts,
    Status,
    Verdict,
)
from tests.unit.policy.image_facts import NOW

ARM = PlatformFacts("sha256:" + "b" * 64, "linux/arm64", is_known=True, is_scanned=True, package_count=30)
AMD = PlatformFacts("sha256:" + "a" * 64, "linux/amd64", is_known=True, is_scanned=True, package_count=80)
UNJUDGED = replace(AMD, unjudged_count=2, unknown="2 of 80 packages could not be judged")
NAMELESS = replace(UNJUDGED, platform="", unjudged_count=1, unknown="1 of 80 packages could not be judged")
FACTS = PromotionFacts(
    required_approvals=1,
    approvers=["kim"],
    eligible=[],
    platforms=[AMD],
    previous_environment="staging",
    is_or_was_in_previous=True,
)
OWNERS = Rule("owners", 1, frozenset({"ann", "bob"}))
SECURITY = Rule("security", 2, frozenset({"sue", "ann", "zoe"}))
OK, BAD, WAITS, ODD, NONE, WAIVED = (
    Status.SATISFIED, Status.UNSATISFIED, Status.PENDING, Status.ERROR, Status.NOT_APPLICABLE, Status.WAIVED,
)  # fmt: skip
GRANT = ("an owner of the team: grant promotion.approve",)
CHANGE_RULE = ("a user with environment.manage: change the rule or its group",)
OVERRULE = "a user with environment.manage: overrule"
SOAK = SoakFacts("staging", required_s=7200, stayed_s=60, since=NOW)


def test_gates_have_one_order():
    whole = replace(
        FACTS, rules=[OWNERS], objections=[ObjectionFacts("sue", "No.")], open_threads=["sue"], soak=SOAK,
        holds=[HoldFacts("kim", "Wait.", "")], quarantines=["Bad."],
    )  # fmt: skip
    assert [each.name for each in judge_promotion(whole).requirements] == [
        "approvals", "approval_rule", "objections", "threads", "packages_known", "platforms_complete", "stage_order",
        "soak", "holds", "quarantine",
    ]  # fmt: skip
    assert [each.name for each in judge_promotion(FACTS).requirements] == [
        "approvals", "packages_known", "platforms_complete", "stage_order",
    ]  # fmt: skip


def approvals(title, status, summary, *, who=(), given=0, required=1, eligible=0):
    counts = {"given": given, "required": required, "eligible": eligible}
    return Requirement("approvals", title, status, summary, who, counts)


def approval_rule(title, status, summary, *, who=(), given=0, required=1):
    return Requirement("approval_rule", title, status, summary, who, {"given": given, "required": required})


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"required_approvals": 0}, [approvals("Approvals", NONE, "This environment needs no approvals.", required=0)]),
        (
            {"allowances": ["The builder counts."], "uncounted": ["max has no right."]},
            [approvals("1 approval", OK, "By kim. The builder counts. max has no right.", given=1)],
        ),
        (
            {"required_approvals": 2, "eligible": ["lee"], "exclusions": ["Not you."], "allowances": ["The builder."],
             "uncounted": ["Not max."]},
            [approvals("2 approvals", WAITS, "1 of 2. Not you. The builder. Not max.", who=("lee",), given=1,
                       required=2, eligible=1)],
        ),
        (
            {"required_approvals": 2, "exclusions": []},
            [approvals("2 approvals", BAD, "1 of 2, and no other user can approve.", who=GRANT, given=1, required=2)],
        ),
        (
            {"rules": [OWNERS], "approvers": ["ann"]},
            [approvals("1 approval", OK, "By ann.", given=1), approval_rule("1 approval by owners", OK, "By ann.",
                                                                            given=1)],
        ),
        (
            {"rules": [OWNERS], "required_approvals": 2, "approvers": ["ann"], "eligible": ["kim"], "exclusions": []},
            [
                approvals("2 approvals", WAITS, "1 of 2.", who=("kim",), given=1, required=2, eligible=1),
                approval_rule("1 approval by owners", OK, "By ann.", given=1),
            ],
        ),
        (
            {"rules": [OWNERS, SECURITY], "approvers": ["ann", "bob"], "eligible": ["kim", "sue"], "exclusions": []},
            [
                approvals("3 approvals", WAITS, "2 of 3.", who=("sue",), given=2, required=3, eligible=2),
                approval_rule("1 approval by owners", OK, "By bob.", given=1),
                approval_rule("2 approvals by security", WAITS, "1 of 2. By ann.", who=("sue",), given=1, required=2),
            ],
        ),
        (
            {"rules": [SECURITY], "approvers": ["bob"], "eligible": ["sue"], "exclusions": []},
            [
                approvals("2 approvals", BAD, "0 of 2, and only 1 other user can approve."
                          " The approval of bob fills no open place.", who=GRANT, required=2, eligible=1),
                approval_rule("2 approvals by security", BAD,
                              "0 of 2, and too few users of this group can still approve.", who=CHANGE_RULE,
                              required=2),
            ],
        ),
        (
            {"rules": [OWNERS], "approvers": ["bob", "ann"], "required_approvals": 1, "eligible": ["kim"]},
            [
                approvals("1 approval", OK, "By bob, ann.", given=1, eligible=1),
                approval_rule("1 approval by owners", OK, "By bob.", given=1),
            ],
        ),
        (
            {"rules": [SECURITY], "approvers": ["bob", "sue"], "eligible": ["zoe", "ann"], "exclusions": []},
            [
                approvals("2 approvals", WAITS, "1 of 2. The approval of bob fills no open place.", who=("ann", "zoe"),
                          given=1, required=2, eligible=2),
                approval_rule("2 approvals by security", WAITS, "1 of 2. By sue.", who=("ann", "zoe"), given=1,
                              required=2),
            ],
        ),
    ],
)  # fmt: skip
def test_approvals_and_their_rules(change, wanted):
    verdict = judge_promotion(replace(FACTS, **change))
    assert [each for each in verdict.requirements if each.name in {"approvals", "approval_rule"}] == wanted


def gate(name, title, status, summary, who=(), /, **counts):
    return Requirement(name, title, status, summary, who, counts)


def objections(status, summary, who=(), /, **counts):
    return gate("objections", "No objection", status, summary, who, **counts)


def packages(status, summary, who=(), /, **counts):
    return gate("packages_known", "Packages scanned", status, summary, who, **counts)


def platforms(status, summary):
    who = ("push the missing platforms",) if status is BAD else ()
    return gate("platforms_complete", "Platforms complete", status, summary, who)


def order(status, summary, who=()):
    return gate("stage_order", "Order of environments", status, summary, who)


def soak(status, summary, who=(), /, **counts):
    return gate("soak", "Soak in staging", status, summary, who, **counts)


SUE, OLD = ObjectionFacts("sue", "Not tested."), ObjectionFacts("ann", "Too late.", "zoe")
WAIT_FOR_SCAN = packages(WAITS, "The scan has not finished.", ("Gravingdock",))
ACCEPTS = ". Their findings are unknown. An approval accepts this."


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            {"objections": [OLD, SUE]},
            objections(BAD, "sue objects: Not tested. ann objects, overruled by zoe: Too late.",
                       ("sue: withdraw the objection", OVERRULE), objections=1),
        ),
        ({"objections": [OLD]}, objections(WAIVED, "ann objects, overruled by zoe: Too late.", objections=0)),
        (
            {"open_threads": ["sue", "ann", "sue"]},
            gate("threads", "Threads resolved", BAD, "3 threads of ann, sue must be resolved first.",
                 ("ann: resolve the thread", "sue: resolve the thread", "another approver: resolve it"), threads=3),
        ),
        (
            {"open_threads": ["sue"]},
            gate("threads", "Threads resolved", BAD, "1 thread of sue must be resolved first.",
                 ("sue: resolve the thread", "another approver: resolve it"), threads=1),
        ),
        ({}, packages(OK, "All packages are checked against advisories.")),
        ({"artifact": "Helm chart"}, packages(NONE, "Helm chart: only the packages of images are scanned.")),
        (
            {"platforms": [AMD, replace(ARM, is_scanned=False, scan_problem="no space")]},
            packages(ODD, "The scan failed: no space", ("an admin: retry the scan under Jobs",)),
        ),
        ({"platforms": [AMD, replace(ARM, is_scanned=False)]}, WAIT_FOR_SCAN),
        ({"platforms": []}, WAIT_FOR_SCAN),
        (
            {"platforms": [AMD, replace(ARM, is_matched=False)]},
            packages(WAITS, "Packages are being checked against advisories.", ("Gravingdock",)),
        ),
        (
            {"platforms": [UNJUDGED], "required_approvals": 0},
            packages(WAIVED, "2 of 80 packages could not be judged. Accepted for every image, because this environment "
                     "requires no approvals.", unjudged=2, packages=80),
        ),
        (
            {"platforms": [UNJUDGED, ARM], "approvers": ["kim", "lee"]},
            packages(WAIVED, "Linux/amd64: 2 of 80 packages could not be judged. Accepted by kim, lee with their "
                     "approval.", unjudged=2, packages=110),
        ),
        (
            {"platforms": [UNJUDGED], "approvers": [], "eligible": ["lee", "ann"]},
            packages(WAITS, f"2 of 80 packages could not be judged{ACCEPTS}", ("lee", "ann"), unjudged=2, packages=80),
        ),
        (
            {"platforms": [ARM, NAMELESS, UNJUDGED], "approvers": [], "eligible": ["lee"]},
            packages(WAITS, "Sha256:aaaaaaaaaaaa: 1 of 80 packages could not be judged; linux/amd64: 2 of 80 packages "
                     f"could not be judged{ACCEPTS}", ("lee",), unjudged=3, packages=190),
        ),
        ({"platforms": [AMD, replace(ARM, platform="")]}, platforms(OK, "linux/amd64, unnamed")),
        (
            {"platforms": [AMD, replace(ARM, is_known=False)], "missing_platforms": ["linux/s390x"]},
            platforms(BAD, "Not in the registry: linux/arm64, linux/s390x."),
        ),
        ({"platforms": []}, platforms(BAD, "No platforms found.")),
        ({"artifact": "Helm chart"}, platforms(NONE, "Helm chart: only images have platforms.")),
        ({}, order(OK, "Already promoted to staging.")),
        ({"previous_environment": None, "is_or_was_in_previous": False}, order(NONE, "First environment.")),
        (
            {"skips_stages": "A rollback goes back.", "is_or_was_in_previous": False},
            order(NONE, "A rollback goes back."),
        ),
        ({"is_or_was_in_previous": False}, order(BAD, "Promote it to staging first.", ("promotion to staging",))),
        (
            {"soak": replace(SOAK, is_done=True)},
            soak(OK, "Stayed there for 2 h.", required_s=7200, stayed_s=60),
        ),
        (
            {"soak": replace(SOAK, since=None)},
            soak(BAD, "Needs 2 h there without interruption. The image is not there now.", ("promotion to staging",),
                 required_s=7200, stayed_s=60),
        ),
        (
            {"soak": SOAK},
            soak(WAITS, "There since 2026-11-28 12:00 UTC. Needs 2 h: until 2026-11-28 14:00 UTC.", ("time",),
                 required_s=7200, stayed_s=60, done_at=int((NOW + timedelta(hours=2)).timestamp())),
        ),
        (
            {"holds": [HoldFacts("kim", "Wait.", ""), HoldFacts("ann", "Test.", "2 May"), HoldFacts("kim", "Too.", ""),
                       ]},
            gate("holds", "On hold", BAD, "Held by kim, until it is lifted: Wait. Held by ann until 2 May: Test. "
                 "Held by kim, until it is lifted: Too.", ("ann: lift it", "kim: lift it"), holds=3),
        ),
        (
            {"holds": [HoldFacts("kim", "Wait.", ""), HoldFacts("ann", "Outage.", "2 May", is_stop=True)]},
            gate("holds", "Line stopped", BAD, "Held by kim, until it is lifted: Wait. Stopped by ann until 2 May: "
                 "Outage.", ("ann: lift it", "kim: lift it"), holds=2),
        ),
        (
            {"quarantines": ["Stolen key.", "Malware."]},
            gate("quarantine", "Not quarantined", BAD, "Stolen key. Malware.",
                 ("a user with image.quarantine: ask for the release; another user lifts it",), quarantines=2),
        ),
    ],
)  # fmt: skip
def test_gate_says_what_is_wrong_and_who_opens_it(change, wanted):
    found = judge_promotion(replace(FACTS, **change)).requirements
    assert [each for each in found if each.name == wanted.name] == [wanted]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 h"), (1, "1 s"), (59, "59 s"), (60, "1 min"), (61, "61 s"), (90 * 60, "90 min"), (3600, "1 h"),
        (3660, "61 min"), (86_400, "24 h"), (90_000, "25 h"), (2 * 86_400, "2 d"), (7 * 86_400, "7 d"),
        (7 * 86_400 + 3600, "169 h"),
    ],
)  # fmt: skip
def test_duration_has_its_largest_whole_unit(seconds, words):
    assert duration(seconds) == words


def test_break_glass_bypasses_what_is_closed_and_only_what_may_be():
    closed = judge_promotion(
        replace(FACTS, approvers=[], platforms=[], soak=SOAK, quarantines=["Bad."], objections=[OLD])
    )
    after = bypassed(closed)
    for before, item in zip(closed.requirements, after.requirements, strict=True):
        if before.is_open_gate or before.name in {"platforms_complete", "quarantine"}:
            assert item == before
        else:
            wanted = replace(before, status=Status.BYPASSED, summary=f"Bypassed. {before.summary}", who=())
            assert item == wanted
    assert {item.name for item in after.requirements if not item.is_open_gate} == NEVER_BYPASSED
    assert [item.name for item in after.requirements if item.status is Status.BYPASSED] == [
        "approvals", "packages_known", "soak",
    ]  # fmt: skip


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("mode", ["enforce", "warn", "observe"])
def test_verdict_allows_only_open_gates(status, mode):
    item = Requirement("policy:r", "A rule", status, "Words.", ("kim",), {"n": 1}, mode)
    is_open = status in {OK, WAIVED, NONE, Status.BYPASSED} or mode != "enforce"
    other = Requirement("other", "Other", OK, "Fine.")
    verdict = Verdict((other, item))
    assert verdict.is_allowed is is_open
    assert verdict.reasons == (() if is_open else ("A rule: Words.",))
    record = {"name": "policy:r", "title": "A rule", "status": status.value, "summary": "Words.", "who": ["kim"],
              "counts": {"n": 1}}  # fmt: skip
    assert item.as_json() == (record if mode == "enforce" else record | {"mode": mode})
