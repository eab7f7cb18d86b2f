"""Each rule in each of its statuses. Unknown facts never pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.policy.catalogue import CEL, KINDS
from lifecycle.policy.expressions import Answer, completions, names_of, values_of
from lifecycle.policy.facts import BaseState, HeldFacts, Need, Stay
from lifecycle.policy.images import WaiverFact, judge_image, needs_of
from lifecycle.policy.rulesets import Mode, Point, Rule, rule_of
from lifecycle.policy.types import BaseTrust, BaseTrustFacts, SignatureFact, SignatureFacts, Status
from tests.unit.policy.image_facts import GOOD, NOW, PLATFORM, ago, finding, with_findings, with_platform

ENFORCED = {"request": "enforce"}
UNSEEN = replace(GOOD, platforms=(replace(PLATFORM, sbom_at=None),), findings=None)
BROKEN = replace(GOOD, platforms=(replace(PLATFORM, sbom_at=None, scan_problem="x"),), findings=None)
MATCHING = with_platform(is_matched=False)
UNJUDGED = with_platform(unjudged="2 of 80 packages could not be judged")
NO_PLATFORMS = replace(GOOD, platforms=())
SIGNED = replace(
    GOOD,
    signatures=SignatureFacts(
        True,
        (
            SignatureFact("o1", "s", "bundle", "release", key_fingerprint="sha256:k1"),
            SignatureFact("o2", "s", "bundle", "people", identity="kim@example.com", issuer="https://issuer.example"),
            SignatureFact(
                "o3", "s", "dsse", "attested", predicate_type="https://slsa.dev/provenance/v1",
                builder_id="https://ci.example/one", source_uri="git+https://example.com/shop",
            ),
        ),
    ),
)  # fmt: skip
UNREAD = replace(GOOD, signatures=SignatureFacts(False, problem="The registry did not answer."))
OK, BAD, WAITS, ODD, NONE, ACCEPTED = (
    Status.SATISFIED, Status.UNSATISFIED, Status.PENDING, Status.ERROR, Status.NOT_APPLICABLE, Status.WAIVED,
)  # fmt: skip
LISTED = replace(GOOD, kev_read_at=ago(7), epss_scored_at=ago(7))
DATED = replace(GOOD, due_lists=frozenset())
LATE = replace(finding(), due_at=ago(2))
EXPLOITED = replace(finding(), exploited_on=ago(1).date())


def rule(kind: str, **parameters: object) -> Rule:
    return rule_of({"key": "r", "kind": kind, "parameters": parameters, "modes": {}})


def judged(rule_: Rule, facts, *, waivers=(), evaluate=None):
    """Return the one result of a rule that is enforced at request."""
    enforced = replace(rule_, modes={Point.REQUEST: Mode.ENFORCE})
    (found,) = judge_image([enforced], facts, Point.REQUEST, waivers=waivers, evaluate=evaluate or (lambda *_: []))
    return found


@pytest.mark.parametrize(
    ("kind", "parameters", "facts", "status"),
    [
        ("findings", {}, GOOD, OK),
        ("findings", {}, with_findings(finding()), BAD),
        ("findings", {"severity": "critical"}, with_findings(finding()), OK),
        ("findings", {"severity": "critical"}, with_findings(finding(severity="unknown")), BAD),
        ("findings", {"severity": "low"}, with_findings(finding(severity="none")), OK),
        ("findings", {"fixable_only": True}, with_findings(finding(fix="")), OK),
        ("findings", {"fixable_only": True}, with_findings(finding()), BAD),
        ("findings", {"older_than_days": 11}, with_findings(finding(days=10)), OK),
        ("findings", {"older_than_days": 10}, with_findings(finding(days=10)), BAD),
        ("findings", {"maximum": 1}, with_findings(finding()), OK),
        ("findings", {"maximum": 1}, with_findings(finding(), finding("CVE-2")), BAD),
        ("findings", {}, UNSEEN, WAITS),
        ("findings", {}, BROKEN, ODD),
        ("findings", {}, MATCHING, WAITS),
        ("findings", {}, UNJUDGED, ODD),
        ("findings", {"accept_unjudged": True}, UNJUDGED, ACCEPTED),
        ("findings", {}, NO_PLATFORMS, ODD),
        ("no_worse", {}, with_findings(finding("CVE-1")), OK),
        ("no_worse", {}, with_findings(finding("CVE-2")), BAD),
        ("no_worse", {}, with_findings(finding("CVE-2", "low")), OK),
        ("no_worse", {"severity": "low"}, with_findings(finding("CVE-2", "low")), BAD),
        ("no_worse", {}, replace(GOOD, environment=""), NONE),
        ("no_worse", {}, replace(GOOD, held=None), NONE),
        ("no_worse", {}, replace(GOOD, held=HeldFacts("x", None)), ODD),
        ("no_worse", {}, UNSEEN, WAITS),
        ("no_worse", {}, UNJUDGED, ODD),
        ("no_worse", {"accept_unjudged": True}, UNJUDGED, ACCEPTED),
        ("sbom", {}, GOOD, OK),
        ("sbom", {"max_age_days": 1}, GOOD, OK),
        ("sbom", {"max_age_days": 0}, GOOD, BAD),
        ("sbom", {}, UNSEEN, WAITS),
        ("sbom", {}, BROKEN, ODD),
        ("sbom", {}, NO_PLATFORMS, ODD),
        ("base_current", {}, GOOD, OK),
        ("base_current", {}, replace(GOOD, bases=(BaseState("c", "b", False, ago(5)),)), BAD),
        ("base_current", {"max_days_behind": 5}, replace(GOOD, bases=(BaseState("c", "b", False, ago(5)),)), OK),
        ("base_current", {"max_days_behind": 4}, replace(GOOD, bases=(BaseState("c", "b", False, ago(5)),)), BAD),
        ("base_current", {"max_days_behind": 9}, replace(GOOD, bases=(BaseState("c", "b", False),)), BAD),
        ("base_current", {}, replace(GOOD, bases=(BaseState("c", "b", None),)), ODD),
        ("base_current", {}, replace(GOOD, bases=()), ODD),
        ("image_age", {"max_days": 3}, GOOD, OK),
        ("image_age", {"max_days": 2}, GOOD, BAD),
        ("image_age", {}, with_platform(created_at=None), ODD),
        ("image_age", {}, NO_PLATFORMS, ODD),
        ("rebuilt_within", {"max_days": 2}, GOOD, OK),
        ("rebuilt_within", {"max_days": 1}, GOOD, BAD),
        ("rebuilt_within", {}, with_platform(first_seen_at=None), ODD),
        ("not_root", {}, GOOD, OK),
        ("not_root", {}, with_platform(user=""), BAD),
        ("not_root", {}, with_platform(user="root:root"), BAD),
        ("not_root", {}, with_platform(user="00"), BAD),
        ("not_root", {}, with_platform(user="app"), OK),
        ("not_root", {"number_only": True}, with_platform(user="app"), BAD),
        ("not_root", {}, with_platform(user=None), ODD),
        ("not_root", {}, NO_PLATFORMS, ODD),
        ("labels", {"labels": ["team"]}, GOOD, OK),
        ("labels", {"labels": ["team=sh*"]}, GOOD, OK),
        ("labels", {"labels": ["team=ops"]}, GOOD, BAD),
        ("labels", {"labels": ["team", "owner"]}, GOOD, BAD),
        ("labels", {"labels": ["team"]}, with_platform(user=None), ODD),
        ("labels", {"labels": ["team"]}, NO_PLATFORMS, ODD),
        ("platforms", {}, GOOD, OK),
        ("platforms", {"platforms": ["linux/amd64"]}, GOOD, OK),
        ("platforms", {"platforms": ["linux/arm64"]}, GOOD, BAD),
        ("platforms", {}, with_platform(is_known=False), BAD),
        ("platforms", {}, replace(GOOD, missing_platforms=("linux/arm64",)), BAD),
        ("platforms", {}, NO_PLATFORMS, BAD),
        ("promoted", {"environment": "staging"}, GOOD, OK),
        ("promoted", {"environment": "staging", "hours": 48}, GOOD, OK),
        ("promoted", {"environment": "staging", "hours": 49}, GOOD, WAITS),
        ("promoted", {"environment": "qa"}, GOOD, BAD),
        (
            "promoted",
            {"environment": "staging", "hours": 25},
            replace(GOOD, stays=(Stay("staging", ago(2), ago(1)),)),
            BAD,
        ),
        ("due_date", {}, GOOD, ODD),
        ("due_date", {}, DATED, OK),
        ("due_date", {}, replace(DATED, findings=(LATE,)), BAD),
        ("due_date", {}, replace(DATED, findings=(replace(LATE, due_at=ago(0)),)), OK),
        ("due_date", {"grace_days": 3}, replace(DATED, findings=(LATE,)), OK),
        ("due_date", {"severity": "critical"}, replace(DATED, findings=(LATE,)), OK),
        ("due_date", {"fixable_only": True}, replace(DATED, findings=(replace(LATE, fixed_version=""),)), OK),
        ("due_date", {}, replace(DATED, findings=(replace(LATE, due_at=ago(-1)), finding())), OK),
        ("due_date", {}, replace(DATED, due_lists=frozenset({"kev"})), ODD),
        ("due_date", {"accept_without_lists": True}, replace(DATED, due_lists=frozenset({"kev"})), OK),
        ("due_date", {}, replace(LISTED, due_lists=frozenset({"kev"})), OK),
        ("due_date", {}, replace(UNJUDGED, due_lists=frozenset()), ODD),
        ("kev", {}, GOOD, ODD),
        ("kev", {}, LISTED, OK),
        ("kev", {}, replace(LISTED, findings=(EXPLOITED,)), BAD),
        ("kev", {}, replace(GOOD, findings=(EXPLOITED,)), BAD),  # what an old list names is exploited
        ("kev", {"fixable_only": True}, replace(LISTED, findings=(replace(EXPLOITED, fixed_version=""),)), OK),
        ("kev", {"ransomware_only": True}, replace(LISTED, findings=(EXPLOITED,)), OK),
        ("kev", {"ransomware_only": True}, replace(LISTED, findings=(replace(EXPLOITED, is_ransomware=True),)), BAD),
        ("kev", {}, replace(LISTED, kev_read_at=ago(8)), ODD),
        ("kev", {"max_list_days": 8}, replace(LISTED, kev_read_at=ago(8)), OK),
        ("kev", {}, replace(UNJUDGED, kev_read_at=ago(1)), ODD),
        ("kev", {"accept_unjudged": True}, replace(UNJUDGED, kev_read_at=ago(1)), ACCEPTED),
        ("kev", {}, UNSEEN, WAITS),
        ("epss", {}, GOOD, ODD),
        ("epss", {}, LISTED, OK),
        ("epss", {}, replace(LISTED, findings=(replace(finding(), epss=0.1),)), BAD),
        ("epss", {}, replace(LISTED, findings=(replace(finding(), epss=0.09),)), OK),
        ("epss", {"percent": 9}, replace(LISTED, findings=(replace(finding(), epss=0.09),)), BAD),
        ("epss", {}, replace(LISTED, findings=(finding(),)), ODD),  # without a score
        ("epss", {"accept_unscored": True}, replace(LISTED, findings=(finding(),)), OK),
        ("epss", {"severity": "critical"}, replace(LISTED, findings=(replace(finding(), epss=0.9),)), OK),
        ("epss", {"fixable_only": True}, replace(LISTED, findings=(replace(finding(fix=""), epss=0.9),)), OK),
        ("epss", {}, replace(LISTED, epss_scored_at=ago(8)), ODD),
        ("epss", {"max_list_days": 8}, replace(LISTED, epss_scored_at=ago(8)), OK),
        ("epss", {}, replace(GOOD, findings=(replace(finding(), epss=0.9),)), BAD),
        ("epss", {}, UNSEEN, WAITS),
        ("signed_by_any", {"signers": ["release", "x"]}, SIGNED, OK),
        ("signed_by_any", {"signers": ["sha256:k1"]}, SIGNED, OK),
        ("signed_by_any", {"signers": ["*@example.com https://issuer.example"]}, SIGNED, OK),
        ("signed_by_any", {"signers": ["*@example.com https://other.example"]}, SIGNED, BAD),
        ("signed_by_any", {"signers": ["attested"]}, SIGNED, BAD),
        ("signed_by_any", {"signers": ["release"]}, GOOD, ODD),
        ("signed_by_any", {"signers": ["release"]}, UNREAD, ODD),
        ("signed_by_all", {"signers": ["release", "people"]}, SIGNED, OK),
        ("signed_by_all", {"signers": ["release", "x"]}, SIGNED, BAD),
        ("signed_by_all", {"signers": ["release"]}, UNREAD, ODD),
        ("provenance", {"builders": ["https://ci.example/*"]}, SIGNED, OK),
        ("provenance", {"builders": ["*"], "sources": ["git+https://example.com/shop"]}, SIGNED, OK),
        ("provenance", {"builders": ["*"], "sources": ["git+https://other.example/*"]}, SIGNED, BAD),
        ("provenance", {"builders": ["x"]}, SIGNED, BAD),
        ("provenance", {"builders": ["*"]}, replace(GOOD, signatures=SignatureFacts(True)), BAD),
        ("provenance", {"builders": ["*"]}, UNREAD, ODD),
        ("base_trusted", {}, replace(GOOD, base_trust=BaseTrustFacts(BaseTrust.TRUSTED)), OK),
        ("base_trusted", {}, replace(GOOD, base_trust=BaseTrustFacts(BaseTrust.SOURCE)), OK),
        ("base_trusted", {}, replace(GOOD, base_trust=BaseTrustFacts(BaseTrust.UNTRUSTED)), BAD),
        ("base_trusted", {}, replace(GOOD, base_trust=BaseTrustFacts(BaseTrust.UNKNOWN)), ODD),
        ("base_trusted", {}, GOOD, ODD),
    ],
)
def test_each_rule_has_the_status_of_its_facts(kind, parameters, facts, status):
    found = judged(rule(kind, **parameters), facts)
    assert found.outcome.status is status, found.outcome.summary
    assert found.outcome.summary.endswith(".") or status is ODD
    assert found.blocks == (status in {BAD, WAITS, ODD})
    assert bool(found.outcome.who) == found.blocks  # somebody can resolve it


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(True), OK),
        (Answer(False), BAD),
        (Answer(None, "no such name"), ODD),
        (Answer(1), ODD),
        (Answer("true"), ODD),
    ],
)
def test_expression_passes_only_when_it_is_true(answer, status):
    expression = rule(CEL, expression="image.digest != ''", message="Give it a digest.")
    found = judged(expression, GOOD, evaluate=lambda texts, values: [answer for _ in texts])
    assert found.outcome.status is status
    assert (found.outcome.summary == "Give it a digest.") == (status is BAD)


def test_every_kind_that_judges_is_in_the_table_above_and_no_other_can_enforce():
    for name, kind in KINDS.items():
        assert kind.waits_for or kind.judge is not None or name == CEL
        required = {item.name: ["x"] for item in kind.parameters if item.is_required}
        record = {"key": "r", "kind": name, "parameters": required}
        if kind.waits_for:
            with pytest.raises(Exception, match="waits for"):
                rule_of(record | {"modes": {"request": "warn"}})
            assert rule_of(record | {"modes": {"request": "observe"}}).kind == name


def test_facts_that_are_all_unknown_pass_no_rule():
    """Nothing is known but the digest: no rule that judges the image itself passes."""
    blank = replace(
        GOOD, platforms=(replace(PLATFORM, is_known=False, created_at=None, first_seen_at=None, user=None,
        labels={}, sbom_at=None),), findings=None, held=HeldFacts("x", None), bases=(), stays=(),
    )  # fmt: skip
    signers = {"signers": ["release"]}
    required = {
        "signed_by_any": signers,
        "signed_by_all": signers,
        "provenance": {"builders": ["*"]},
        "labels": {"labels": ["team"]},
        "licences": {"deny": ["AGPL-*"]},
        "isolation": {"checks": ["ssh"]},
        "external": {"check": "site:scanner"},
        "promoted": {"environment": "staging"},
        CEL: {"expression": "true"},
    }
    for name in KINDS:
        found = judged(rule(name, **required.get(name, {})), blank, evaluate=lambda texts, _: [Answer(None, "?")])
        assert found.blocks, name


def test_observe_and_warn_do_not_block_and_off_is_not_judged():
    bad = with_findings(finding())
    modes = {Point.INGEST: Mode.OBSERVE, Point.REQUEST: Mode.WARN, Point.EXECUTION: Mode.ENFORCE}
    one = replace(rule("findings"), modes=modes)
    found = {point: judge_image([one], bad, point, evaluate=lambda *_: []) for point in Point}
    assert [[item.mode for item in found[point]] for point in Point] == [
        [Mode.OBSERVE], [Mode.WARN], [Mode.ENFORCE], []
    ]  # fmt: skip
    assert [found[point][0].blocks for point in (Point.INGEST, Point.REQUEST, Point.EXECUTION)] == [False, False, True]
    assert found[Point.REQUEST][0].requirement.is_open_gate
    assert found[Point.REQUEST][0].requirement.as_json()["mode"] == "warn"
    assert not found[Point.EXECUTION][0].requirement.is_open_gate
    assert "mode" not in found[Point.EXECUTION][0].requirement.as_json()


def test_waiver_of_a_rule_opens_it_and_keeps_what_it_says():
    waiver = WaiverFact("WV-3", "r", ago(-5))
    found = judged(rule("findings"), with_findings(finding()), waivers=[waiver])
    assert found.outcome.status is Status.WAIVED
    assert found.outcome.summary.startswith("Waived by WV-3 until 2026-12-03. 1 finding: CVE-1")
    assert (found.raw.status, found.waivers, found.blocks) == (Status.UNSATISFIED, ("WV-3",), False)


@pytest.mark.parametrize(
    ("waiver", "is_waived"),
    [
        (WaiverFact("WV-1", "r", ago(-1), "CVE-1"), True),
        (WaiverFact("WV-1", "r", ago(-1), "CVE-1", "debian/openssl"), True),
        (WaiverFact("WV-1", "r", ago(-1), "CVE-1", "debian/perl"), False),
        (WaiverFact("WV-1", "r", ago(-1), "CVE-2"), False),
        (WaiverFact("WV-1", "other", ago(-1)), False),
        (WaiverFact("WV-1", "r", ago(0)), False),  # it ends at this moment
        (WaiverFact("WV-1", "r", ago(1)), False),
    ],
)
def test_waiver_covers_only_its_rule_its_finding_and_its_time(waiver, is_waived):
    found = judged(rule("findings"), with_findings(finding()), waivers=[waiver])
    assert (found.outcome.status is Status.WAIVED) == is_waived


def test_waiver_of_one_finding_does_not_cover_another_one():
    waiver = WaiverFact("WV-1", "r", ago(-1), "CVE-1")
    both = with_findings(finding(), finding("CVE-2"))
    assert judged(rule("findings"), both, waivers=[waiver]).blocks
    two = [waiver, WaiverFact("WV-2", "r", ago(-1), "CVE-2")]
    assert judged(rule("findings"), both, waivers=two).waivers == ("WV-1", "WV-2")


def test_waiver_of_a_rule_that_cannot_be_waived_does_nothing():
    fixed = replace(rule("findings"), is_waivable=False)
    assert judged(fixed, with_findings(finding()), waivers=[WaiverFact("WV-1", "r", ago(-1))]).blocks


def test_only_the_facts_that_rules_need_are_asked_for():
    assert needs_of([rule("not_root"), rule("labels", labels=["a"])]) == frozenset()
    assert needs_of([rule("no_worse")]) == {Need.FINDINGS, Need.HELD}
    assert needs_of([rule(CEL, expression="bases.all(b, b.is_current)")]) == {Need.BASES}
    assert names_of("image.digest == ''") == frozenset()


def test_values_of_expressions_hold_what_is_known_and_nothing_else():
    values = values_of(with_findings(finding()), ["findings.size() == 0", "image.digest != ''"])
    assert set(values) == {"findings", "image"}
    assert values["findings"] == [
        {
            "advisory": "CVE-1", "package": "debian/openssl", "type": "deb", "severity": "high",
            "fixed_version": "3.1", "is_fixable": True, "age_days": 10,
        }
    ]  # fmt: skip
    assert "findings" not in values_of(UNSEEN, ["findings.size() == 0"])
    assert "findings" not in values_of(MATCHING, ["findings.size() == 0"])
    everything = values_of(GOOD, ["held bases stays platforms"])
    assert everything["held"] == {"digest": GOOD.held.digest, "advisories": ["CVE-1"]}
    assert everything["stays"] == [{"environment": "staging", "hours": 48, "is_there_now": True}]
    assert everything["bases"][0]["days_behind"] == 0
    assert everything["platforms"][0]["age_days"] == 3
    assert "user" not in values_of(with_platform(user=None), ["platforms"])["platforms"][0]
    assert "f.severity" in completions()


def test_ages_are_never_negative():
    assert GOOD.days_since(ago(-1)) == 0
    assert NOW.year == 2026


def test_only_rules_that_need_no_platform_judge_a_chart():
    """All others say that they do not apply, and why. Unknown facts of a chart still pass nothing."""
    chart = replace(SIGNED, platforms=(), findings=None, bases=(), held=None, artifact="Helm chart")
    values: dict[str, dict[str, object]] = {
        "signed_by_any": {"signers": ["nobody"]},
        "signed_by_all": {"signers": ["nobody"]},
        "provenance": {"builders": ["nobody"]},
        "labels": {"labels": ["team"]},
        "licences": {"deny": ["AGPL-*"]},
        "isolation": {"checks": ["ssh"]},
        "external": {"check": "site:scanner"},
        "promoted": {"environment": "production"},
        CEL: {"expression": 'image.repository == "x"'},
    }
    applying = {"signed_by_any", "signed_by_all", "provenance", "promoted", "quarantine", "external", CEL}
    for name, kind in KINDS.items():
        found = judged(rule(name, **values.get(name, {})), chart, evaluate=lambda texts, _: [Answer(False, "")])
        assert (found.outcome.status is not NONE) == (name in applying or bool(kind.waits_for)), name
        assert found.blocks == (name in applying or bool(kind.waits_for)), name
    expression = rule(CEL, expression='platforms.all(p, p.user != "root")')
    about = judged(expression, chart, evaluate=lambda texts, _: [Answer(True, "")])
    assert about.outcome.status is NONE
    assert about.outcome.summary.startswith("Helm chart without platforms")
