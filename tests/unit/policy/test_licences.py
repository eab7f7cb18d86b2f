"""The rule about licences, and what an SPDX expression leaves to choose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.policy.cases import Case, facts_of
from lifecycle.policy.catalogue import KINDS
from lifecycle.policy.expressions import completions, names_of, values_of
from lifecycle.policy.facts import LicenceFacts, Need
from lifecycle.policy.rules_of_licences import demands, no_denied
from lifecycle.policy.types import Status
from tests.unit.policy.image_facts import GOOD, NOW


@pytest.mark.parametrize(
    ("text", "is_denied"),
    [
        ("GPL-3.0-only", True),
        ("(GPL-3.0-only)", True),
        ("MIT", False),
        ("MIT OR GPL-3.0-only", False),
        ("GPL-3.0-only OR GPL-3.0-or-later", True),
        ("MIT AND GPL-3.0-only", True),
        ("MIT AND (Apache-2.0 OR GPL-3.0-only)", False),
        ("(MIT AND GPL-3.0-only) OR (Apache-2.0 AND GPL-3.0-only)", True),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", False),  # AND binds closer
        ("GPL-3.0-only WITH GCC-exception-3.1", True),
        ("gpl-3.0-only", True),
        ("GPL-3.0 or later", True),  # not an expression: its operators are in capitals
        ("MIT AND", False),
        ("MIT OR) GPL-3.0-only", True),  # unreadable: any denied word counts
        ("(" * 150 + "GPL-3.0-only OR MIT", True),
        ("", False),
        ("GPL-3.0-only OR MIT", False),
        ("GPL-3.0-only AND MIT", True),
        ("(GPL-3.0-only AND MIT)", True),
        ("(MIT) OR GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only", False),  # one that is left open ends with the text
        ("(MIT ( OR GPL-3.0-only", True),
        ("Own words (gpl-3.0 parts)", False),  # one name: there is no operator
        ("(" * 50 + "GPL-3.0-only OR MIT" + ")" * 50, False),
        ("(" * 51 + "GPL-3.0-only OR MIT" + ")" * 51, True),  # nobody writes that: not read
    ],
)
def test_expression_demands_a_denied_licence_only_without_a_choice(text, is_denied):
    assert demands(text, lambda name: name.lower().startswith("gpl-3.0")) == is_denied


@pytest.mark.parametrize(
    ("facts", "values", "status", "words"),
    [
        (None, {}, Status.ERROR, "not known"),
        (LicenceFacts({"MIT": {"six"}}), {}, Status.SATISFIED, "None of 1 licences"),
        (LicenceFacts({"MIT": {"six"}, "AGPL-3.0-only": {"b", "a"}}), {}, Status.UNSATISFIED, "AGPL-3.0-only (a)."),
        (LicenceFacts({f"AGPL-3.0-{n}": {"a"} for n in range(5)}), {}, Status.UNSATISFIED, "and 2 more"),
        (LicenceFacts({"MIT": {"six"}}, undeclared=2), {}, Status.ERROR, "2 packages declare no licence."),
        (LicenceFacts({"MIT": {"six"}}, undeclared=1), {}, Status.ERROR, "1 package declares no licence."),
        (LicenceFacts({"MIT": {"six"}}, undeclared=2), {"accept_undeclared": True}, Status.SATISFIED, "None"),
    ],
)
def test_rule_names_denied_licences_and_never_passes_what_is_unknown(facts, values, status, words):
    given = KINDS["licences"].clean({"deny": ["AGPL-3.0*"]} | values)
    outcome = no_denied(replace(GOOD, licences=facts), given)
    assert outcome.status is status
    assert words in outcome.summary


def test_expressions_read_licences():
    assert names_of("licences.all(l, l.name != 'X')") == {Need.LICENCES}
    assert "l.packages" in completions()
    known = replace(GOOD, licences=LicenceFacts({"MIT": {"six", "b"}}))
    assert values_of(known, ["licences"]) == {"licences": [{"name": "MIT", "packages": ["b", "six"]}]}
    assert values_of(GOOD, ["licences"]) == {}


def test_case_of_a_policy_file_names_licences():
    case = Case("c", {"licences": [{"name": "MIT"}], "undeclared_licences": 1})
    assert facts_of(case, NOW).licences == LicenceFacts({"MIT": ("?",)}, 1)
    assert facts_of(Case("c", {}), NOW).licences is None
