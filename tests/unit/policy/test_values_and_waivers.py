"""The values that expressions read, with nothing where a fact is unknown; and what waivers take out of the facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.policy.catalogue import CEL
from lifecycle.policy.expressions import NAMES, Answer, completions, is_about_platforms, names_of, values_of
from lifecycle.policy.facts import (
    BaseState,
    ContentFacts,
    ExternalFact,
    FileFact,
    HeldFacts,
    LicenceFacts,
    Need,
    PlatformState,
    Stay,
    severity_rank,
)
from lifecycle.policy.images import WaiverFact, expressions_of, judge_image
from lifecycle.policy.outcomes import Evidence, Outcome
from lifecycle.policy.rulesets import Mode, Point, rule_of
from lifecycle.policy.types import BaseTrust, BaseTrustFacts, SignatureFact, SignatureFacts, Status
from tests.unit.policy.image_facts import GOOD, PLATFORM, ago, finding, with_findings, with_platform

BLANK = replace(GOOD, platforms=(), findings=None, held=None, bases=(), stays=())
FILE = FileFact("setuid", "/bin/su", "x")
HIGH = {"advisory": "CVE-1", "package": "debian/openssl", "type": "deb", "severity": "high", "fixed_version": "3.1",
        "is_fixable": True, "age_days": 10}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "facts", "value"),
    [
        ("image", replace(GOOD, missing_platforms=("linux/arm64",)),
         {"digest": GOOD.digest, "repository": "shop/api", "environment": "production",
          "missing_platforms": ["linux/arm64"]}),
        ("platforms", with_platform(labels={"n": 1}, unjudged="2 of 8"),
         [{"digest": PLATFORM.digest, "platform": "linux/amd64", "unjudged": "2 of 8", "user": "1000:1000",
           "labels": {"n": "1"}, "age_days": 3, "seen_days": 2, "sbom_days": 1}]),
        ("platforms", replace(GOOD, platforms=(PlatformState("d", "p"),)),
         [{"digest": "d", "platform": "p", "unjudged": ""}]),
        ("platforms", BLANK, None),
        ("findings", with_findings(finding(fix="", days=-1)),
         [{"advisory": "CVE-1", "package": "debian/openssl", "type": "deb", "severity": "high", "fixed_version": "",
           "is_fixable": False, "age_days": 0}]),
        ("findings", replace(with_findings(replace(finding(), exploited_on=ago(1).date(), epss=0.5, due_at=ago(1)),
                                           replace(finding(), due_at=ago(-1))),
                             kev_read_at=ago(0), epss_scored_at=ago(0), due_lists=frozenset()),
         [HIGH | {"is_exploited": True, "is_ransomware": False, "is_overdue": True, "epss": 0.5},
          HIGH | {"is_exploited": False, "is_ransomware": False, "is_overdue": False}]),
        ("findings", replace(with_findings(replace(finding(), exploited_on=ago(1).date(), epss=0.5)),
                             kev_read_at=ago(90), epss_scored_at=ago(90)), [HIGH]),  # old lists say nothing
        ("findings", GOOD, []),
        ("findings", BLANK, None),
        ("findings", with_platform(is_matched=False), None),
        ("held", GOOD, {"digest": "sha256:" + "b" * 64, "advisories": ["CVE-1"]}),
        ("held", replace(GOOD, held=HeldFacts("d", frozenset({("CVE-2", "b"), ("CVE-2", "a"), ("CVE-1", "a")}))),
         {"digest": "d", "advisories": ["CVE-1", "CVE-2"]}),
        ("held", BLANK, {"digest": "", "advisories": []}),
        ("held", replace(GOOD, held=HeldFacts("d", None)), None),
        ("bases", replace(GOOD, bases=(BaseState("d", "a", False, ago(5)), BaseState("e", "b", True),
                                       BaseState("f", "c", None, ago(5)))),
         [{"digest": "d", "name": "a", "is_current": False, "days_behind": 5},
          {"digest": "e", "name": "b", "is_current": True, "days_behind": 0}, {"digest": "f", "name": "c"}]),
        ("bases", BLANK, None),
        ("external", replace(GOOD, external={"a": ExternalFact("a", True, ago(0.99), "Fine."), "b": ExternalFact("b"),
                                             "c": ExternalFact("c", None, ago(1))}),
         [{"check": "a", "message": "Fine.", "hours": 23, "passed": True}, {"check": "b", "message": ""},
          {"check": "c", "message": "", "hours": 24}]),
        ("external", replace(GOOD, external=None), None),
        ("stays", replace(GOOD, stays=(Stay("qa", ago(3), ago(1)), Stay("qa", ago(0.99)))),
         [{"environment": "qa", "hours": 48, "is_there_now": False},
          {"environment": "qa", "hours": 23, "is_there_now": True}]),
        ("stays", BLANK, []),
        ("signatures", replace(GOOD, signatures=SignatureFacts(True, (SignatureFact(
            "o", "s", "dsse", "src", "k", "id", "iss", "pred", "bld", "uri"),))),
         [{"source": "src", "key": "k", "identity": "id", "issuer": "iss", "predicate_type": "pred",
           "builder_id": "bld", "source_uri": "uri"}]),
        ("signatures", replace(GOOD, signatures=SignatureFacts(True)), []),
        ("signatures", replace(GOOD, signatures=SignatureFacts(False)), None),
        ("signatures", BLANK, None),
        ("base_trust", replace(GOOD, base_trust=BaseTrustFacts(BaseTrust.UNTRUSTED)), {"status": "untrusted"}),
        ("base_trust", replace(GOOD, base_trust=BaseTrustFacts(BaseTrust.UNKNOWN)), None),
        ("base_trust", BLANK, None),
        ("files", replace(GOOD, contents=ContentFacts((FILE,))),
         [{"kind": "setuid", "path": "/bin/su", "detail": "x"}]),
        ("files", replace(GOOD, contents=ContentFacts(())), []),
        ("files", replace(GOOD, contents=ContentFacts((), problem="x")), None),
        ("files", replace(GOOD, contents=ContentFacts((), cut=frozenset({"setuid"}))), None),
        ("files", BLANK, None),
        ("quarantines", replace(GOOD, quarantines=("Bad.",)), [{"reason": "Bad."}]),
        ("quarantines", replace(GOOD, quarantines=()), []),
        ("quarantines", BLANK, None),
        ("licences", replace(GOOD, licences=LicenceFacts({"MIT": {"b", "a"}, "Apache-2.0": {"c"}})),
         [{"name": "Apache-2.0", "packages": ["c"]}, {"name": "MIT", "packages": ["a", "b"]}]),
        ("licences", BLANK, None),
    ],
)  # fmt: skip
def test_name_has_its_value_or_is_absent(name, facts, value):
    assert values_of(facts, [f"size({name}) == 0"]) == ({} if value is None else {name: value})
    assert values_of(facts, [f"{name}s_of_others == 0", "x" + name]) == {}
    for entry in value if isinstance(value, list) else [value] if value else []:
        assert set(entry) <= set(NAMES[name])


def test_every_name_has_the_facts_that_it_needs():
    always = {"image", "platforms"}
    assert {name: names_of(f"{name} == x") for name in NAMES} == {
        name: frozenset() if name in always else {Need("contents" if name == "files" else name)} for name in NAMES
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("image.digest == ''", False),
        ("signatures.size() > 0 && stays.size() > 0 && quarantines.size() == 0", False),
        *((f"{name} == x", True) for name in ("platforms", "findings", "held", "bases", "base_trust", "files",
                                              "licences")),
        ("image.missing_platforms.size() == 0", True),
    ],
)  # fmt: skip
def test_expression_is_about_platforms(text, wanted):
    assert is_about_platforms(text) is wanted


def test_editor_offers_every_name_field_and_macro():
    found = completions()
    assert found == sorted(found)
    assert set(found) >= {*NAMES, "f.severity", "image.digest", "held.advisories", "base_trust.status", "size()",
                          "has()", "findings.all(f, )", "licences.exists(l, )", "files.filter(x, )"}  # fmt: skip


def rule(kind, *, key="r", **parameters):
    return rule_of({"key": key, "kind": kind, "parameters": parameters, "modes": {"request": "enforce"}})


def judged(rules, facts, *waivers, evaluate=None):
    return judge_image(rules, facts, Point.REQUEST, waivers=waivers, evaluate=evaluate or (lambda *_: []))


LONG, LATER = ago(-1), ago(-9)


def test_waiver_never_changes_a_rule_that_passes():
    (found,) = judged([rule("not_root")], GOOD, WaiverFact("WV-1", "r", LONG))
    assert (found.outcome, found.waivers) == (found.raw, ())
    assert found.outcome.status is Status.SATISFIED


def test_waiver_of_a_file_covers_this_file_of_this_kind():
    facts = replace(GOOD, contents=ContentFacts((FILE, FileFact("setuid", "/bin/b"))))
    path, other = WaiverFact("WV-1", "r", LONG, "/bin/su", "setuid"), WaiverFact("WV-2", "r", LATER, "/bin/b")
    (found,) = judged([rule("setuid")], facts, path, other)
    assert found.waivers == ("WV-1", "WV-2")
    assert found.outcome == Outcome(
        Status.WAIVED,
        "Waived by WV-1 until 2026-11-29, WV-2 until 2026-12-07. "
        "The image has setuid or setgid files: /bin/su, /bin/b.",
        (),
        {"files": 2},
        (Evidence("/bin/su (x)", "/bin/su", "setuid"), Evidence("/bin/b (setuid)", "/bin/b", "setuid")),
    )
    for wrong in (replace(path, package="setgid"), replace(path, advisory="/bin/x")):
        (found,) = judged([rule("setuid")], facts, wrong, other)
        assert (found.blocks, found.waivers, found.outcome) == (True, (), found.raw)


def test_only_waivers_of_what_the_rule_objects_to_are_named():
    mine, idle = WaiverFact("WV-1", "r", LONG, "CVE-1"), WaiverFact("WV-2", "r", LONG, "CVE-8")
    (found,) = judged([rule("findings")], with_findings(finding()), idle, mine)
    assert found.waivers == ("WV-1",)


def test_waiver_of_a_finding_opens_nothing_that_is_closed_for_another_reason():
    """A rule waits for its scan: there is no evidence yet, so no waiver of a finding is used."""
    waiting = replace(GOOD, findings=None)
    (found,) = judged([rule("findings")], waiting, WaiverFact("WV-1", "r", LONG, "CVE-1"))
    assert (found.outcome.status, found.waivers) == (Status.PENDING, ())


def test_waiver_of_a_finding_is_for_no_expression():
    expression = rule(CEL, expression="findings.size() == 0")
    (found,) = judged([expression], with_findings(finding()), WaiverFact("WV-1", "r", LONG, "CVE-1"),
                      evaluate=lambda texts, _: [Answer(False) for _ in texts])  # fmt: skip
    assert found.blocks
    (found,) = judged([expression], with_findings(finding()), WaiverFact("WV-1", "r", LONG),
                      evaluate=lambda texts, _: [Answer(False) for _ in texts])  # fmt: skip
    assert found.outcome.status is Status.WAIVED


def test_facts_without_what_is_waived():
    facts = replace(with_findings(finding(), finding("CVE-2")), contents=ContentFacts((FILE,), malware="clean"))
    left = facts.without({("CVE-1", "debian/openssl"), ("CVE-2", "debian/perl"), ("/bin/su", "setuid")})
    assert left == replace(facts, findings=(finding("CVE-2"),), contents=ContentFacts((), malware="clean"))
    assert facts.without({("/bin/su", "setgid")}) == facts
    assert BLANK.without({("CVE-1", "debian/openssl")}) == BLANK


@pytest.mark.parametrize(
    ("answer", "message", "wanted"),
    [
        (Answer(True), "", Outcome(Status.SATISFIED, "The expression is true.")),
        (Answer(False), "", Outcome(Status.UNSATISFIED, "The expression is false.", ("who builds the image",))),
        (Answer(False), "Old.", Outcome(Status.UNSATISFIED, "Old.", ("who builds the image",))),
        (Answer(True, "no such name"), "", "The expression has no result: no such name"),
        (Answer(1), "", "The expression is neither true nor false."),
        (Answer(None), "", "The expression is neither true nor false."),
    ],
)
def test_answer_of_an_expression_is_an_outcome(answer, message, wanted):
    if isinstance(wanted, str):
        wanted = Outcome(Status.ERROR, wanted, ("the owner of the rule: change the expression",))
    (found,) = judged([rule(CEL, expression="true", message=message)], GOOD, evaluate=lambda *_: [answer])
    assert found.outcome == wanted


def test_expressions_are_evaluated_once_each_and_only_when_they_are_judged():
    asked = []

    def evaluate(texts, values):
        asked.append((texts, set(values)))
        return [Answer(True) for _ in texts]

    one, two = rule(CEL, key="a", expression="stays.size() > 0"), rule(CEL, key="b", expression="stays.size() > 0")
    off = replace(rule(CEL, key="c", expression="image.digest == ''"), modes={Point.INGEST: Mode.ENFORCE})
    found = judge_image([one, rule("not_root", key="d"), two, off], GOOD, Point.REQUEST, evaluate=evaluate)
    assert [item.rule.key for item in found] == ["a", "d", "b"]
    assert asked == [(["stays.size() > 0"], {"stays"})]
    assert expressions_of([one, off, two]) == ["stays.size() > 0", "image.digest == ''"]
    judged([rule("not_root")], GOOD, evaluate=evaluate)
    assert len(asked) == 1


def test_judged_rule_as_pages_and_the_api_show_it():
    titled = replace(rule("findings"), title="Nothing bad", origin="the site")
    (found,) = judged([titled], with_findings(finding(), finding("CVE-2")))
    assert found.as_json() == {
        "name": "policy:r", "title": "Nothing bad", "status": "unsatisfied",
        "summary": "2 findings: CVE-1 in debian/openssl, CVE-2 in debian/openssl. The rule: no finding from high on.",
        "who": ["who builds the image"], "counts": {"findings": 2, "allowed": 0}, "rule": "r", "kind": "findings",
        "origin": "the site", "blocks": True, "waivers": [],
        "evidence": ["CVE-1 in debian/openssl", "CVE-2 in debian/openssl"],
    }  # fmt: skip
    waived = judged([titled], with_findings(finding()), WaiverFact("WV-1", "r", LONG))[0].as_json()
    assert (waived["waivers"], waived["evidence"], waived["blocks"]) == (["WV-1"], ["CVE-1 in debian/openssl"], False)


def test_ages_and_names():
    assert [GOOD.days_since(ago(days)) for days in (-2, 0, 0.9, 1, 1.5)] == [0, 0, 0, 1, 1]
    assert GOOD.age(ago(1)).total_seconds() == 86_400
    assert [PLATFORM.name, replace(PLATFORM, platform="").name] == ["linux/amd64", "sha256:aaaaaaaaaaaa"]
    assert [severity_rank(each) for each in ("critical", "high", "medium", "low")] == [0, 1, 2, 3]
    assert severity_rank("odd") > severity_rank("none") > severity_rank("low")
