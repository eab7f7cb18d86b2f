"""Test cases beside a rule set: what can be written down, how it is read, and what a case says about the rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from lifecycle.core.errors import Malformed
from lifecycle.policy.cases import CASES_MAX, Case, CaseResult, cases_of, facts_of, run_case
from lifecycle.policy.facts import (
    BaseState,
    ContentFacts,
    FileFact,
    FindingFact,
    HeldFacts,
    ImageFacts,
    LicenceFacts,
    PlatformState,
    Stay,
)
from lifecycle.policy.rulesets import Point, rules_of
from lifecycle.policy.types import BaseTrust, BaseTrustFacts, SignatureFact, SignatureFacts
from tests.unit.policy.image_facts import NOW, ago

ZEROS = "sha256:" + "0" * 64
WHOLE = {
    "digest": "sha256:i",
    "environment": "production",
    "repository": "shop/api",
    "platforms": [
        {"digest": "sha256:p", "platform": "linux/arm64", "age_days": 3, "seen_days": 2, "sbom_days": 1, "user": "7",
         "labels": {"team": 5}, "unjudged": "2 of 8", "is_matched": False, "is_known": False, "scan_problem": "odd"},
    ],
    "missing_platforms": ["linux/s390x"],
    "findings": [{"advisory": "CVE-1", "package": "debian/perl", "type": "deb", "severity": "low",
                  "fixed_version": "2", "age_days": 4}],
    "held": {"digest": "sha256:h", "findings": [{"advisory": "CVE-1", "package": "debian/perl"}]},
    "bases": [{"digest": "sha256:b", "name": "python:3.13", "is_current": False, "days_behind": 5}],
    "stays": [{"environment": "staging", "hours": 5, "left_hours": 2}],
    "signatures": [{"source": "release", "key": "sha256:k", "identity": "kim@example.com", "issuer": "https://i.example",
                    "predicate_type": "slsa", "builder_id": "ci", "source_uri": "git"}],
    "base_trust": {"status": "untrusted"},
    "files": [{"kind": "setuid", "path": "/usr/bin/su", "detail": "x"}],
    "malware": "clean",
    "licences": [{"name": "MIT", "packages": ["six", "b"]}],
    "undeclared_licences": 2,
    "quarantines": [{"reason": "Stolen key."}],
}  # fmt: skip
WHOLE_FACTS = ImageFacts(
    "sha256:i",
    NOW,
    environment="production",
    repository="shop/api",
    platforms=(
        PlatformState("sha256:p", "linux/arm64", created_at=ago(3), first_seen_at=ago(2), sbom_at=ago(1), user="7",
                      labels={"team": "5"}, unjudged="2 of 8", is_matched=False, is_known=False, scan_problem="odd"),
    ),
    missing_platforms=("linux/s390x",),
    findings=(FindingFact("CVE-1", "debian/perl", "deb", "low", "2", ago(4)),),
    held=HeldFacts("sha256:h", frozenset({("CVE-1", "debian/perl")})),
    bases=(BaseState("sha256:b", "python:3.13", False, ago(5)),),
    stays=(Stay("staging", NOW - timedelta(hours=7), NOW - timedelta(hours=2)),),
    signatures=SignatureFacts(True, (SignatureFact("", "", "bundle", "release", "sha256:k", "kim@example.com",
                                                   "https://i.example", "slsa", "ci", "git"),)),
    base_trust=BaseTrustFacts(BaseTrust.UNTRUSTED),
    contents=ContentFacts((FileFact("setuid", "/usr/bin/su", "x"),), malware="clean"),
    licences=LicenceFacts({"MIT": ("six", "b")}, 2),
    quarantines=("Stolen key.",),
)  # fmt: skip
NOTHING = ImageFacts(ZEROS, NOW)


def test_case_with_every_fact_is_read_in_full():
    assert facts_of(Case("c", WHOLE), NOW) == WHOLE_FACTS
    assert set(WHOLE) == {"digest", "environment", "repository", "platforms", "missing_platforms", "findings", "held",
                          "bases", "stays", "signatures", "base_trust", "files", "malware", "licences",
                          "undeclared_licences", "quarantines"}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "change"),
    [
        ({}, {}),
        ({"platforms": [{}]}, {"platforms": (PlatformState(ZEROS, "linux/amd64"),)}),
        ({"findings": []}, {"findings": ()}),
        ({"findings": [{"advisory": "CVE-1"}]}, {"findings": (FindingFact("CVE-1", "", "", "unknown", "", NOW),)}),
        ({"held": {"digest": "d"}}, {"held": HeldFacts("d", None)}),
        ({"held": {"digest": "d", "findings": []}}, {"held": HeldFacts("d", frozenset())}),
        (
            {"held": {"digest": "d", "findings": [{"advisory": "CVE-1"}]}},
            {"held": HeldFacts("d", frozenset({("CVE-1", "")}))},
        ),
        ({"bases": [{"name": "b"}]}, {"bases": (BaseState(ZEROS, "b", None),)}),
        (
            {"stays": [{"environment": "staging", "hours": 48}]},
            {"stays": (Stay("staging", ago(2)),)},
        ),
        ({"signatures": []}, {"signatures": SignatureFacts(True)}),
        ({"signatures": [{}]}, {"signatures": SignatureFacts(True, (SignatureFact("", "", "bundle", ""),))}),
        ({"files": []}, {"contents": ContentFacts(())}),
        (
            {"files": [{"kind": "device", "path": "/x"}]},
            {"contents": ContentFacts((FileFact("device", "/x"),), malware="unknown")},
        ),
        ({"licences": [{"name": "MIT"}]}, {"licences": LicenceFacts({"MIT": ("?",)}, 0)}),
        ({"undeclared_licences": 3}, {}),  # of an image whose licences are unknown
        ({"quarantines": []}, {"quarantines": ()}),
        ({"due_lists": []}, {"due_lists": frozenset()}),
        (
            {"findings": [{"advisory": "CVE-1", "overdue_days": 2}]},
            {"findings": (FindingFact("CVE-1", "", "", "unknown", "", NOW, due_at=ago(2)),)},
        ),
    ],
)
def test_what_a_case_does_not_mention_is_unknown(facts, change):
    assert facts_of(Case("c", facts), NOW) == replace(NOTHING, **change)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"colour": 1, "age": 2}, "c: unknown facts: age, colour."),
        ({"findings": [{}]}, "c: the facts cannot be read (KeyError: 'advisory')."),
        ({"findings": [{"advisory": "CVE-1", "severity": "bad"}]}, "unknown severity bad"),
        ({"platforms": [{"colour": 1}]}, "cannot be read (TypeError"),
        ({"platforms": 1}, "cannot be read (TypeError"),
        ({"bases": [{"name": "b", "days_behind": "x"}]}, "cannot be read (TypeError"),
        ({"bases": [{"name": "b", "days_behind": 10**12}]}, "cannot be read (OverflowError"),
        ({"base_trust": {"status": "bad"}}, "cannot be read (ValueError"),
        ({"platforms": [{"labels": []}]}, "cannot be read (AttributeError"),
        ({"held": {}}, "cannot be read (KeyError: 'digest')"),
    ],
)
def test_facts_that_cannot_be_read_are_refused_with_the_reason(facts, words):
    with pytest.raises(Malformed) as refused:
        facts_of(Case("c", facts), NOW)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({}, "Test cases are a list of at most 200."),
        ("x", "Test cases are a list of at most 200."),
        ([{}] * (CASES_MAX + 1), "Test cases are a list of at most 200."),
        (["x"], "Test case 1: the fields are allowed, expect, facts, name, point."),
        ([["name"]], "Test case 1: the fields are allowed, expect, facts, name, point."),
        ([{}, {"colour": 1}], "Test case 2: the fields are"),
        ([{"name": 1}], "Test case 1: the name is a text"),
        ([{"facts": [1]}], "Test case 1: the name is a text, facts and expect are objects."),
        ([{"expect": [1]}], "Test case 1: the name is a text, facts and expect are objects."),
        ([{"expect": {"r": "good"}}], "case 1: expect has a status for the key of each rule."),
        ([{"expect": {1: "satisfied"}}], "case 1: expect has a status for the key of each rule."),
        ([{"name": "x", "allowed": 1}], "x: allowed is true or false."),
        ([{"name": "x", "point": "push"}], "x: point is one of ingest, request, execution, admission."),
        ([{"name": "x", "facts": {"colour": 1}}], "x: unknown facts: colour."),
    ],
)
def test_wrong_cases_are_refused_with_a_sentence(records, words):
    with pytest.raises(Malformed) as refused:
        cases_of(records)
    assert refused.value.message.startswith(words)


def test_case_reads_what_it_wrote():
    whole = {"name": "n", "point": "request", "facts": WHOLE, "expect": {"r": "error"}, "allowed": False}
    (case, empty) = cases_of([whole, {}])
    assert case == Case("n", WHOLE, Point.REQUEST, {"r": "error"}, False)
    assert case.as_json() == whole
    assert empty == Case("case 2", {}, Point.EXECUTION, {}, None)
    assert empty.as_json() == {"name": "case 2", "point": "execution", "facts": {}, "expect": {}}
    assert len(cases_of(({},) * CASES_MAX)) == CASES_MAX


RULES = rules_of([
    {"key": "root", "kind": "not_root", "modes": {"request": "enforce", "ingest": "off"}},
    {"key": "age", "kind": "image_age", "modes": {"request": "warn"}},
])  # fmt: skip
ROOT = {"platforms": [{"user": "0", "age_days": 1}]}
FINE = {"platforms": [{"user": "7", "age_days": 1}]}


@pytest.mark.parametrize(
    ("case", "problems"),
    [
        (Case("c", ROOT, Point.REQUEST, {"root": "unsatisfied", "age": "satisfied"}, False), ()),
        (Case("c", FINE, Point.REQUEST, {"root": "satisfied"}, True), ()),
        (Case("c", FINE, Point.REQUEST, {}, None), ()),
        (Case("c", ROOT, Point.REQUEST, {}, None), ()),
        (
            Case("c", ROOT, Point.REQUEST, {"root": "satisfied"}, None),
            ("root is unsatisfied, not satisfied: linux/amd64: runs as root.",),
        ),
        (Case("c", ROOT, Point.REQUEST, {}, True), ("it is blocked by root",)),
        (Case("c", FINE, Point.REQUEST, {}, False), ("it is allowed",)),
        (Case("c", ROOT, Point.INGEST, {"root": "unsatisfied"}, True), ("root is not judged at ingest",)),
        (Case("c", ROOT, Point.EXECUTION, {}, True), ()),  # it is only observed there
    ],
)
def test_case_names_what_differs(case, problems):
    assert run_case(case, RULES, NOW, evaluate=lambda *_: []) == CaseResult("c", problems)
