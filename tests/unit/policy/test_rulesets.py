"""Rule sets: what is refused, and that a lower set can only be stricter, by examples and by properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.core.errors import Malformed
from lifecycle.policy.catalogue import CEL, KINDS
from lifecycle.policy.facts import BaseState, HeldFacts, Stay
from lifecycle.policy.images import judge_image
from lifecycle.policy.parameters import SEVERITY_CHOICES, Type
from lifecycle.policy.rulesets import (
    MODES,
    Mode,
    Point,
    Rule,
    combined,
    is_as_strict,
    new_above_observe,
    rule_of,
    rules_at,
    rules_of,
    tightened,
    why_looser,
)
from lifecycle.policy.types import BaseTrust, BaseTrustFacts, SignatureFact, SignatureFacts
from tests.unit.policy.image_facts import GOOD, PLATFORM, ago, finding

JUDGING = sorted(name for name, kind in KINDS.items() if kind.judge is not None)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("x", "is an object"),
        ({"key": "A", "kind": "findings"}, "needs a key"),
        ({"key": "a\n", "kind": "findings"}, "needs a key"),
        ({"key": "a", "kind": "nothing"}, "unknown kind"),
        ({"key": "a", "kind": []}, "unknown kind"),
        ({"key": "a", "kind": "findings", "colour": 1}, "Unknown field"),
        ({"key": "a", "kind": "findings", "title": 1}, "title"),
        ({"key": "a", "kind": "findings", "max_waiver_days": 0}, "max_waiver_days"),
        ({"key": "a", "kind": "findings", "max_waiver_days": True}, "max_waiver_days"),
        ({"key": "a", "kind": "findings", "waivable": 1}, "waivable"),
        ({"key": "a", "kind": "findings", "parameters": {"severty": "low"}}, "no parameter severty"),
        ({"key": "a", "kind": "findings", "parameters": {"severity": "bad"}}, "choose one of"),
        ({"key": "a", "kind": "findings", "parameters": {"maximum": -1}}, "whole number"),
        ({"key": "a", "kind": "findings", "parameters": {"maximum": True}}, "whole number"),
        ({"key": "a", "kind": "findings", "parameters": {"fixable_only": 1}}, "true or false"),
        ({"key": "a", "kind": "labels"}, "enter a value"),
        ({"key": "a", "kind": "labels", "parameters": {"labels": [1]}}, "list"),
        ({"key": "a", "kind": "labels", "parameters": {"labels": ["x"] * 51}}, "list"),
        ({"key": "a", "kind": "cel", "parameters": {"expression": "x" * 2001}}, "at most 2000"),
        ({"key": "a", "kind": "findings", "modes": {"request": "on"}}, "the modes are"),
        ({"key": "a", "kind": "findings", "modes": {"push": "off"}}, "the points are"),
        ({"key": "a", "kind": "findings", "modes": []}, "modes are an object"),
        ({"key": "a", "kind": "vex", "modes": {"request": "enforce"}}, "waits for VEX"),
    ],
)
def test_wrong_rule_is_refused_with_a_sentence(record, words):
    with pytest.raises(Malformed) as refused:
        rule_of(record)
    assert words in refused.value.message


def test_rule_reads_what_it_wrote():
    rule = rule_of({"key": "a", "kind": "labels", "parameters": {"labels": "b\n\na"}, "modes": {"request": "enforce"}})
    assert rule.parameters == {"labels": ("a", "b")}
    assert rule_of(rule.as_json()) == rule
    assert rule.mode(Point.INGEST) is Mode.OBSERVE
    assert rule.words == "Labels present"


@pytest.mark.parametrize(
    ("name", "good", "wrong", "words"),
    [
        ("key", ["a", "0", "a_b-c", "a" * 60], ["", "-a", "_a", "a" * 61, "a.b", 1, None], "needs a key"),
        ("title", ["", "x" * 120, None], ["x" * 121, ["x"], 1], "a: the title is a text of at most 120 characters."),
        ("max_waiver_days", [1, 365], [0, 366, -1, "5", 1.0, True, None],
         "a: max_waiver_days is a whole number from 1 to 365."),
        ("waivable", [True, False], [1, "true", None], "a: waivable is true or false, and parameters are an object."),
        ("parameters", [{}, None], [[1], "x", 1], "a: waivable is true or false, and parameters are an object."),
        ("modes", [{}, None, {"request": "warn"}], [[], "warn", 1], "a: modes are an object"),
        ("kind", ["sbom"], ["x", None, ["sbom"]], "a: unknown kind of rule."),
    ],
)  # fmt: skip
def test_fields_of_a_rule_at_their_limits(name, good, wrong, words):
    record = {"key": "a", "kind": "sbom"}
    for value in good:
        rule_of(record | {name: value})
    for value in wrong:
        with pytest.raises(Malformed) as refused:
            rule_of(record | {name: value})
        assert words in refused.value.message


def test_rule_of_few_words_has_defaults():
    whole = Rule("a", "sbom", {"max_age_days": None}, dict.fromkeys(Point, Mode.OBSERVE), "", True, 90, "the site")
    assert rule_of({"key": "a", "kind": "sbom"}, origin="the site") == whole
    assert rule_of({"key": "a", "kind": "sbom", "modes": {}}, origin="the site") == whole
    given = rule_of({"key": "a", "kind": "sbom", "modes": {"ingest": "off", "request": "warn"}, "title": "Listed"})
    assert given.modes == {
        Point.INGEST: Mode.OFF, Point.REQUEST: Mode.WARN, Point.EXECUTION: Mode.OBSERVE, Point.ADMISSION: Mode.OBSERVE,
    }  # fmt: skip
    assert (given.words, whole.words) == ("Listed", "SBOM present and fresh")
    assert (given.decides, whole.decides) == (True, False)
    assert Rule("a", "sbom", modes={}).mode(Point.REQUEST) is Mode.OFF


def test_rule_is_written_with_plain_values():
    record = {"key": "a", "kind": "labels", "title": "Team", "parameters": {"labels": ["b", "a"]}, "waivable": False,
              "max_waiver_days": 5, "modes": {"ingest": "off", "request": "enforce"}}  # fmt: skip
    assert rule_of(record).as_json() == record | {
        "parameters": {"labels": ["a", "b"]},
        "modes": {"ingest": "off", "request": "enforce", "execution": "observe", "admission": "observe"},
    }
    assert rule(severity="low").as_json()["parameters"]["severity"] == "low"


def test_sets_refuse_repeated_keys_and_too_many_rules():
    one = {"key": "a", "kind": "sbom"}
    full = tuple(one | {"key": f"a{number}"} for number in range(100))
    assert [item.key for item in rules_of(full, origin="the site")] == [item["key"] for item in full]
    assert {item.origin for item in rules_of(list(full), origin="the site")} == {"the site"}
    with pytest.raises(Malformed, match="used twice"):
        rules_of([one, one])
    with pytest.raises(Malformed, match="at most 100"):
        rules_of([one | {"key": f"a{number}"} for number in range(101)])
    with pytest.raises(Malformed, match="list"):
        rules_of({"rules": []})


def rule(kind="findings", *, modes=None, origin="", **parameters) -> Rule:
    return rule_of({"key": "r", "kind": kind, "parameters": parameters, "modes": modes or {}}, origin=origin)


@pytest.mark.parametrize(
    ("lower", "words"),
    [
        (rule(severity="critical"), "severity is critical, not high"),
        (rule(severity="high", fixable_only=True), "fixable_only is True"),
        (rule(severity="high", maximum=1), "maximum is 1, not 0"),
        (rule(severity="high", modes={"request": "off"}), "request is off, not observe"),
        (rule("sbom"), "another kind"),
        (replace(rule(severity="high"), max_waiver_days=200), "waivers are longer"),
    ],
)
def test_looser_rule_is_named_with_what_is_looser(lower, words):
    (sentence,) = why_looser([lower], [rule(severity="high", origin="the site")])
    assert words in sentence
    assert "the site" in sentence


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        (rule(), rule("sbom"), "it is of another kind (findings, not sbom)"),
        (rule(modes={"admission": "warn"}), rule(modes={"admission": "enforce"}), "admission is warn, not enforce"),
        (rule("sbom"), rule("sbom", max_age_days=3), "max_age_days is no limit, not 3"),
        (rule("sbom", max_age_days=4), rule("sbom", max_age_days=3), "max_age_days is 4, not 3"),
        (rule("labels", labels=["a"]), rule("labels", labels=["a", "b"]), "labels is a, not a, b"),
        (rule(), replace(rule(), is_waivable=False), "its waivers are longer"),
        (replace(rule(), max_waiver_days=91), rule(), "its waivers are longer"),
    ],
)
def test_reason_why_a_rule_is_looser(lower, upper, words):
    assert why_looser([replace(rule("sbom"), key="x"), lower], [upper, replace(rule(), key="y")]) == [
        f"r is looser than the rule of the set above: {words}. A lower rule set can only be stricter."
    ]
    assert not is_as_strict(lower, upper)
    assert not is_as_strict(upper, lower) or why_looser([upper], [lower]) == []


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (rule(), rule()),
        (rule(modes={"request": "enforce"}), rule(modes={"request": "warn"})),
        (replace(rule(), max_waiver_days=89), rule()),
        (replace(rule(), is_waivable=False, max_waiver_days=91), rule()),  # what cannot be waived has no days
        (replace(rule(), is_waivable=False), replace(rule(), is_waivable=False)),
    ],
)
def test_rule_that_is_as_strict(lower, upper):
    assert is_as_strict(lower, upper)
    assert why_looser([lower], [upper]) == []


def test_stricter_rules_and_new_ones_are_fine():
    stricter = rule(severity="low", modes={"request": "enforce"})
    other = replace(rule("sbom"), key="other")
    assert why_looser([stricter, other], [rule(severity="high", origin="the site")]) == []
    unwaivable = replace(rule(), is_waivable=False)
    assert why_looser([unwaivable], [rule()]) == []
    assert len(why_looser([rule()], [unwaivable])) == 1


def test_rule_that_cannot_be_merged_is_judged_besides_the_upper_one():
    upper, lower = rule(CEL, expression="true", origin="site"), rule(CEL, expression="false", origin="shop")
    assert [item.key for item in combined([[upper], [lower]])] == ["r", "r@shop"]
    assert [item.key for item in combined([[upper], [rule("sbom", origin="shop")]])] == ["r", "r@shop"]
    assert combined([[upper], [upper]]) == (upper,)


def test_merged_rule_names_both_origins_and_is_the_strictest():
    upper = rule(severity="high", older_than_days=30, origin="site")
    lower = rule(severity="high", older_than_days=7, maximum=5, origin="shop", modes={"request": "enforce"})
    (merged,) = combined([[upper], [lower]])
    assert merged.parameters == upper.parameters | {"older_than_days": 7, "maximum": 0}
    assert (merged.origin, merged.mode(Point.REQUEST)) == ("site and shop", Mode.ENFORCE)
    assert combined([[upper], [upper]])[0].origin == "site"


def test_merged_rule_has_the_stricter_of_everything():
    upper = replace(rule("labels", labels=["a"], modes={"request": "warn", "ingest": "off"}, origin="site"),
                    title="Above", max_waiver_days=5)  # fmt: skip
    lower = replace(rule("labels", labels=["b"], modes={"request": "observe", "execution": "enforce"}, origin="shop"),
                    title="Below", max_waiver_days=9, is_waivable=False)  # fmt: skip
    modes = {Point.INGEST: Mode.OBSERVE, Point.REQUEST: Mode.WARN, Point.EXECUTION: Mode.ENFORCE,
             Point.ADMISSION: Mode.OBSERVE}  # fmt: skip
    merged = Rule("r", "labels", {"labels": ("a", "b")}, modes, "Below", False, 5, "site and shop")
    assert combined([[upper], [lower]]) == (merged,)
    (other,) = combined([[lower], [replace(upper, title="")]])
    assert other == replace(merged, origin="shop and site")
    looser = replace(upper, origin="shop", max_waiver_days=90, title="")
    assert combined([[upper], [looser]]) == (upper,)
    assert combined([[upper], [], [replace(lower, origin="site")]])[0].origin == "site"


def test_rules_of_several_levels_keep_their_order_and_names():
    first, second, third = (replace(rule("sbom", origin=name), key=name) for name in ("a", "b", "c"))
    assert [item.key for item in combined([[first, second], [third, second]])] == ["a", "b", "c"]
    other = replace(rule("not_root", origin="shop"), key="a")
    assert combined([[first], [other]]) == (first, replace(other, key="a@shop"))


def test_rules_at_points_have_their_firmest_mode_at_the_first():
    mixed = rule(modes={"ingest": "off", "request": "observe", "execution": "enforce", "admission": "warn"})
    off = replace(rule(modes=dict.fromkeys(Point, "off")), key="off")
    at = {
        points: rules_at([mixed, off], points)
        for points in ((Point.INGEST,), (Point.REQUEST, Point.EXECUTION), (Point.ADMISSION, Point.REQUEST))
    }
    assert at == {
        (Point.INGEST,): [],
        (Point.REQUEST, Point.EXECUTION): [replace(mixed, modes={Point.REQUEST: Mode.ENFORCE})],
        (Point.ADMISSION, Point.REQUEST): [replace(mixed, modes={Point.ADMISSION: Mode.WARN})],
    }


def test_new_rules_and_changed_expressions_start_in_observe():
    warns = rule(modes={"request": "warn"})
    assert new_above_observe([warns], []) == ["r"]
    assert new_above_observe([warns], [rule()]) == []
    assert new_above_observe([rule()], []) == []
    first, second = rule(CEL, expression="true"), rule(CEL, expression="1 == 1", modes={"request": "enforce"})
    assert new_above_observe([second], [first]) == ["r"]
    assert new_above_observe([second], [rule("sbom")]) == ["r"]
    same = rule(CEL, expression="true", modes={"request": "enforce"})
    assert new_above_observe([same], [first]) == []
    assert new_above_observe([warns], [rule("sbom")]) == ["r"]
    assert new_above_observe([rule(severity="low", modes={"request": "warn"})], [rule(severity="high")]) == []


def test_tightened_names_what_stops_more_at_these_points():
    loose, strict = (
        rule(severity="high", modes={"request": "enforce"}),
        rule(severity="low", modes={"request": "enforce"}),
    )
    points = (Point.REQUEST, Point.EXECUTION)
    assert tightened([loose], [strict], points) == ["r"]
    assert tightened([strict], [loose], points) == []
    assert tightened([loose], [loose], points) == []
    assert tightened([], [loose], points) == ["r"]
    assert tightened([], [rule(modes={"ingest": "enforce"})], points) == []
    elsewhere = replace(strict, modes=loose.modes | {Point.ADMISSION: Mode.ENFORCE}, parameters=loose.parameters)
    assert tightened([loose], [elsewhere], points) == []
    assert tightened([loose], [elsewhere], iter([Point.ADMISSION])) == ["r"]
    assert tightened([rule(modes={"request": "observe"})], [rule(modes={"request": "enforce"})], points) == ["r"]


_VALUES = {
    Type.NUMBER: st.integers(0, 12),
    Type.FLAG: st.booleans(),
    Type.SEVERITY: st.sampled_from(SEVERITY_CHOICES),
    Type.TEXTS: st.lists(
        st.sampled_from(["team", "owner=kim", "linux/amd64", "linux/arm64", "release", "*"]), min_size=1, max_size=3
    ),
    Type.TEXT: st.sampled_from(["staging", "dev"]),
}
MODES_ST = st.fixed_dictionaries({point.value: st.sampled_from([mode.value for mode in MODES]) for point in Point})


@st.composite
def rules_st(draw, kind=None):
    name = kind or draw(st.sampled_from(JUDGING))
    parameters = {
        item.name: draw(
            st.lists(st.sampled_from(item.choices), min_size=1, max_size=3) if item.choices else _VALUES[item.type]
        )
        for item in KINDS[name].parameters
    }
    return rule_of({"key": "r", "kind": name, "parameters": parameters, "modes": draw(MODES_ST),
                    "waivable": draw(st.booleans()), "max_waiver_days": draw(st.integers(1, 5))},
                   origin=draw(st.sampled_from(["site", "shop"])))  # fmt: skip


@st.composite
def facts_st(draw):
    days = st.one_of(st.none(), st.integers(0, 14).map(ago))
    platforms = draw(st.lists(st.builds(
        lambda **more: replace(PLATFORM, **more), created_at=days, first_seen_at=days, sbom_at=days,
        user=st.sampled_from([None, "", "0", "7", "app"]), unjudged=st.sampled_from(["", "2 of 8"]),
        is_known=st.booleans(), is_matched=st.booleans(), labels=st.sampled_from([{}, {"team": "a"}, {"owner": "kim"}]),
        platform=st.sampled_from(["linux/amd64", "linux/arm64"])), max_size=2))  # fmt: skip
    names = ["CVE-1", "CVE-2"]
    found = st.lists(st.builds(finding, st.sampled_from(names), st.sampled_from([*SEVERITY_CHOICES, "unknown", "none"]),
                               fix=st.sampled_from(["", "2"]), days=st.integers(0, 14)), max_size=4)  # fmt: skip
    held = st.frozensets(st.sampled_from([(name, "debian/openssl") for name in names]))
    return replace(
        GOOD, platforms=tuple(platforms), findings=draw(st.one_of(st.none(), found.map(tuple))),
        held=draw(st.one_of(st.none(), st.builds(HeldFacts, st.just("x"), st.one_of(st.none(), held)))),
        bases=draw(st.lists(st.builds(BaseState, st.just("c"), st.just("b"), st.sampled_from([True, False, None]),
                                      st.integers(0, 14).map(ago)), max_size=2).map(tuple)),
        stays=draw(st.lists(st.builds(Stay, st.sampled_from(["staging", "dev"]), st.integers(1, 14).map(ago)),
                            max_size=2).map(tuple)),
        signatures=draw(st.one_of(st.none(), st.builds(
            SignatureFacts, st.booleans(), st.lists(st.builds(
                lambda source, kind: SignatureFact("o", "s", "bundle", source, predicate_type=kind,
                                                   builder_id="linux/amd64", source_uri="team"),
                st.sampled_from(["team", "release"]), st.sampled_from(["", "slsa"])), max_size=2).map(tuple)))),
        base_trust=draw(st.one_of(st.none(), st.builds(BaseTrustFacts, st.sampled_from(list(BaseTrust))))),
        missing_platforms=draw(st.sampled_from([(), ("linux/arm64",)])),
    )  # fmt: skip


def blocks(rules, facts, point) -> bool:
    return any(item.blocks for item in judge_image(rules, facts, point, evaluate=lambda *_: []))


@given(st.data(), facts_st(), st.sampled_from(list(Point)))
def test_whatever_passes_a_stricter_rule_passes_the_looser_one(data, facts, point):
    upper = data.draw(rules_st())
    lower = data.draw(rules_st(upper.kind))
    if is_as_strict(lower, upper) and blocks([upper], facts, point):
        assert blocks([lower], facts, point)


@given(st.data(), facts_st(), st.sampled_from(list(Point)))
def test_combined_rules_stop_whatever_one_level_stops(data, facts, point):
    upper = data.draw(rules_st())
    lower = data.draw(st.one_of(rules_st(), rules_st(upper.kind)))
    both = combined([[upper], [lower]])
    if blocks([upper], facts, point) or blocks([lower], facts, point):
        assert blocks(both, facts, point)


@given(st.data())
def test_merged_rule_is_as_strict_as_each_of_its_parts(data):
    upper = data.draw(rules_st())
    lower = data.draw(rules_st(upper.kind))
    merged = combined([[upper], [lower]])
    if len(merged) == 1:
        assert is_as_strict(merged[0], upper)
        assert is_as_strict(merged[0], lower)
        assert why_looser(merged, [upper]) == []


@given(rules_st(), rules_st())
def test_strictness_is_an_order(one, other):
    assert is_as_strict(one, one)
    if is_as_strict(one, other) and is_as_strict(other, one):
        assert (one.kind, one.modes, one.parameters) == (other.kind, other.modes, other.parameters)
