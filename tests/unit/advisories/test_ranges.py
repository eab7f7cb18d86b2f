"""Compiled intervals, compared with a direct evaluation of the OSV schema."""

from __future__ import annotations

import json
import random
import re
import zipfile
from dataclasses import replace
from functools import cmp_to_key
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.advisories.matching import _is_in_maven_interval
from lifecycle.advisories.ranges import Interval, intervals_of
from lifecycle.versions import SCHEMES as SCHEME_NAMES
from lifecycle.versions import compare, version_key
from lifecycle.versions.ecosystems import SCHEMES, split_ecosystem
from tests.unit.advisories.test_versions import versions_of

KINDS = ("introduced", "fixed", "last_affected", "limit")
SHARED = Path(__file__).parents[4] / "shared" / "data" / "osv"
DEMO = Path(__file__).parents[3] / "lifecycle" / "advisories" / "data" / "demo"


def is_affected_by_schema(scheme: str, entry: dict, version: str) -> bool:
    """Evaluate `entry` as docs/schema.md of osv-schema describes it, by comparing version texts only."""

    def order(left: str, right: str) -> int:
        return (
            (0 if left == right else -1 if left == "0" else 1) if "0" in (left, right) else compare(scheme, left, right)
        )

    for listed in entry.get("versions") or []:
        if listed == version:
            return True
        try:
            if compare(scheme, listed, version) == 0:
                return True
        except ValueError:
            pass
    for item in entry.get("ranges") or []:
        if item["type"] == "GIT":
            continue
        events = [(kind, text) for event in item["events"] for kind, text in event.items()]
        limits = [text for kind, text in events if kind == "limit"]
        try:
            if limits and "*" not in limits and not any(compare(scheme, version, text) < 0 for text in limits):
                continue
            rank = {"introduced": 0, "last_affected": 1, "fixed": 2}
            walked = [event for event in events if event[0] != "limit"]
            walked.sort(key=lambda event: rank[event[0]])
            walked.sort(key=cmp_to_key(lambda left, right: order(left[1], right[1])))
            vulnerable = False
            for kind, text in walked:
                past = -1 if kind == "introduced" and text == "0" else compare(scheme, text, version)
                if kind == "introduced" and past <= 0:
                    vulnerable = True
                elif (kind == "fixed" and past <= 0) or (kind == "last_affected" and past < 0):
                    vulnerable = False
        except ValueError:
            continue  # an event is invalid: the range is not evaluated
        if vulnerable:
            return True
    return False


def intervals_containing(scheme: str, intervals: list[Interval], version: str) -> list[Interval]:
    """Return the intervals that contain `version`, compared by keys as in the database."""
    found = []
    for item in intervals:
        if item.is_unevaluated:
            continue
        if item.exact_version:
            contains = item.exact_version == version
        elif scheme == "maven":
            contains = _is_in_maven_interval(
                version, item.low_text, item.low_inclusive, item.high_text, item.high_inclusive
            )
        else:
            key = version_key(scheme, version)
            contains = (item.low is None or item.low < key or (item.low_inclusive and item.low == key)) and (
                item.high is None or item.high > key or (item.high_inclusive and item.high == key)
            )
        if contains:
            found.append(item)
    return found


def entry(*ranges: list[dict[str, str]], versions: list[str] | None = None) -> dict:
    return {"ranges": [{"type": "ECOSYSTEM", "events": events} for events in ranges], "versions": versions or []}


def fixes(affected: dict, version: str, scheme: str = "semver") -> list[str]:
    return [item.fixed_version for item in intervals_containing(scheme, intervals_of(scheme, affected), version)]


def test_intervals_of_unsorted_events_end_at_the_fix():
    affected = entry([{"fixed": "2.0.5"}, {"introduced": "2.0.0"}, {"fixed": "1.0.3"}, {"introduced": "0"}])
    assert fixes(affected, "0.0.0-a") == ["1.0.3"]
    assert fixes(affected, "1.0.3") == []
    assert fixes(affected, "2.0.0") == ["2.0.5"]
    assert fixes(affected, "2.0.5") == []


def test_last_affected_version_is_affected_and_later_ones_are_not():
    affected = entry([{"introduced": "1.0.0"}, {"last_affected": "1.2.0"}])
    assert fixes(affected, "1.2.0") == [""]
    assert fixes(affected, "1.2.1-a") == []


def test_introduced_and_fixed_in_same_version_gives_no_interval():
    affected = entry([{"fixed": "1.0.0"}, {"introduced": "1.0.0"}])
    assert intervals_of("semver", affected) == []


def test_range_ends_at_largest_limit_and_star_means_no_limit():
    assert fixes(entry([{"introduced": "0"}, {"limit": "1.0.0"}, {"limit": "2.0.0"}]), "1.5.0") == [""]
    assert fixes(entry([{"introduced": "0"}, {"limit": "1.0.0"}, {"limit": "2.0.0"}]), "2.0.0") == []
    assert fixes(entry([{"introduced": "0"}, {"limit": "1.0.0"}, {"limit": "*"}]), "9.0.0") == [""]


def test_range_without_introduced_affects_nothing():
    assert intervals_of("semver", entry([{"fixed": "1.0.0"}])) == []


def test_git_range_does_not_hide_next_range():
    affected = {
        "ranges": [{"type": "GIT", "events": [{"introduced": "abc"}]}, *entry([{"introduced": "1.0.0"}])["ranges"]]
    }
    assert fixes(affected, "1.0.0") == [""]


def unknowns(affected: dict, version: str, scheme: str) -> list[str]:
    """Return the problems of the intervals in which it is unknown whether `version` is affected."""
    uncertain = [replace(item, is_unevaluated=False) for item in intervals_of(scheme, affected) if item.is_unevaluated]
    return [item.problem for item in intervals_containing(scheme, uncertain, version)]


def test_invalid_event_leaves_only_its_range_unknown():
    affected = entry([{"introduced": "0"}, {"fixed": "1.7.5.-r1"}], [{"introduced": "2"}])
    (problem,) = unknowns(affected, "1.7.4-r0", "apk")
    assert problem.startswith("an affected range cannot be read: fixed 1.7.5.-r1: ")
    assert fixes(affected, "1.7.4-r0", "apk") == []
    assert fixes(affected, "2-r0", "apk") == [""]


@pytest.mark.parametrize("scheme", ["pep440", "maven"])
@pytest.mark.parametrize(
    ("unreadable", "affected", "unknown"),
    [
        # An end that cannot be read: the versions outside of the readable ranges are not affected.
        ({"fixed": "no version"}, "", "1.0 1.5 3.0 9"),
        ({"last_affected": "no version"}, "", "1.0 1.5 3.0 9"),
        ({"limit": "no version"}, "", "1.0 1.5 3.0 9"),
        # A beginning that cannot be read: the versions inside of the readable ranges are affected.
        ({"introduced": "no version"}, "1.0 1.5 3.0 9", "0.5 2.0 2.5"),
        ({"introduced": 1}, "1.0 1.5 3.0 9", "0.5 2.0 2.5"),
        ({"introduced": "no version", "fixed": None}, "", "0.5 1.0 1.5 2.0 2.5 3.0 9"),
    ],
)
def test_unreadable_event_makes_unknown_only_what_it_can_change(scheme, unreadable, affected, unknown):
    given = entry([{"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, unreadable])
    intervals = intervals_of(scheme, given)
    versions = ["0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "9"]
    assert [version for version in versions if intervals_containing(scheme, intervals, version)] == affected.split()
    uncertain = [version for version in versions if unknowns(given, version, scheme)]
    assert [version for version in uncertain if version not in affected.split()] == unknown.split()


@pytest.mark.parametrize("events", [None, "introduced", [["introduced", "0"]], [{"introduced": "0"}] * 10_001])
def test_events_of_another_shape_make_every_version_unknown(events):
    assert unknowns({"ranges": [{"type": "SEMVER", "events": events}]}, "1.0.0", "semver")
    assert unknowns({"ranges": ["text"]}, "1.0.0", "semver")


@pytest.mark.parametrize(
    ("ranges", "fix"),
    [
        ((("5.2.0", "5.3.0"), ("5.3.0", "5.3.12")), "5.3.12"),  # they touch
        ((("5.3.0", "5.3.12"), ("5.2.0", "5.3.0")), "5.3.12"),
        ((("0", "5.3.0"), ("0", "6.0.0")), "6.0.0"),  # they overlap
        ((("0", "6.0.0"), ("0", "5.3.0")), "6.0.0"),
        ((("5.2.0", "5.3.0"), ("5.3.1", "5.3.12")), "5.3.0"),  # 5.3.0 is between them
        ((("5.2.0", "5.3.0"), ("5.3.0", "")), ""),  # the second one has no fix
    ],
)
@pytest.mark.parametrize("scheme", ["pep440", "maven", "packagist", "npm"])
@pytest.mark.parametrize("is_one_entry", [True, False])
def test_fix_is_the_end_of_the_union_of_touching_ranges(scheme, ranges, fix, is_one_entry):
    events = [[{"introduced": low}, *([{"fixed": high}] if high else [])] for low, high in ranges]
    entries = [entry(*events)] if is_one_entry else [entry(item) for item in events]
    found = intervals_containing(scheme, intervals_of(scheme, *entries), "5.2.14")
    assert [item.fixed_version for item in found] == [fix]


def test_listed_version_that_is_also_the_fix_takes_the_fix_away():
    assert fixes(entry([{"introduced": "0"}, {"fixed": "2.0"}], versions=["2.0"]), "1.0", "pep440") == [""]
    assert fixes(entry([{"introduced": "0"}, {"fixed": "2.0"}], versions=["2.1"]), "1.0", "pep440") == ["2.0"]


@pytest.mark.parametrize("scheme", sorted(SCHEME_NAMES))
def test_named_fix_is_never_affected_by_the_same_entries(scheme):
    versions = versions_of(scheme)
    ranges = st.lists(st.lists(st.tuples(st.sampled_from(KINDS), versions), max_size=4), min_size=1, max_size=4)

    @settings(max_examples=150, deadline=None)
    @given(ranges, st.booleans(), st.lists(versions, max_size=2))
    def check(ranges, is_open_below, listed):
        written = [[{kind: text} for kind, text in events] for events in ranges]
        if is_open_below:
            written[0].insert(0, {"introduced": "0"})
        intervals = intervals_of(scheme, *[entry(events) for events in written], {"versions": listed})
        for fix in {item.fixed_version for item in intervals} - {""}:
            assert intervals_containing(scheme, intervals, fix) == []

    check()


def test_listed_version_matches_by_key_or_by_text_if_invalid():
    affected = entry(versions=["1.0", "weird version", "2.0"])
    assert fixes(affected, "1.0.0", "pep440") == [""]
    assert sorted(item.exact_version for item in intervals_of("pep440", affected)) == ["", "", "weird version"]


def test_listed_version_inside_a_range_gets_no_own_interval():
    affected = entry([{"introduced": "0"}, {"fixed": "2.0"}], versions=["1.0", "1.5", "2.0.1"])
    assert [item.low_text for item in intervals_of("pep440", affected)] == ["", "2.0.1"]


def test_entry_without_ranges_and_versions_matches_nothing():
    assert intervals_of("semver", {}) == []


def test_rpm_bound_without_release_covers_every_release():
    assert fixes(entry([{"introduced": "0"}, {"fixed": "1.2"}]), "1.2-1.el9", "rpm") == []
    assert fixes(entry([{"introduced": "1.2"}, {"last_affected": "1.2"}]), "1.2-99.el9", "rpm") == [""]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["introduced", "fixed", "last_affected", "limit"]),
            st.sampled_from(["0", "1", "2", "3", "4", "5"]),
        ),
        max_size=7,
    ),
    st.sampled_from(["0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5", "6"]),
)
def test_intervals_contain_exactly_the_affected_versions(events, version):
    written = [{kind: text} for kind, text in events if not (text == "0" and kind != "introduced")]
    for scheme in ("pep440", "maven"):
        affected = entry(written)
        intervals = intervals_of(scheme, affected)
        assert bool(intervals_containing(scheme, intervals, version)) == is_affected_by_schema(
            scheme, affected, version
        )
        assert len(intervals_containing(scheme, intervals, version)) <= 1  # disjoint


@pytest.mark.parametrize("scheme", sorted(SCHEME_NAMES - {"maven"}))
def test_intervals_agree_with_schema_in_every_scheme(scheme):
    versions = versions_of(scheme)
    if scheme == "rpm":  # a bound without release has a rule of its own
        versions = versions.map(lambda text: text if "-" in text else f"{text}-1")
    events = st.lists(st.tuples(st.sampled_from(KINDS), versions), max_size=6)

    @settings(max_examples=150, deadline=None)
    @given(events, st.booleans(), st.lists(versions, max_size=2), versions)
    def check(found, is_open_below, listed, version):
        written = [{kind: text} for kind, text in found if text != "0"]
        affected = entry(([{"introduced": "0"}] if is_open_below else []) + written, versions=listed)
        for candidate in (version, *(text for event in written for text in event.values()), *listed):
            matches = intervals_containing(scheme, intervals_of(scheme, affected), candidate)
            assert bool(matches) == is_affected_by_schema(scheme, affected, candidate)

    check()


def real_entries(root: Path, seed: int, per_folder: int) -> list[tuple[str, dict]]:
    chosen = []
    for archive in sorted(root.glob("*/all.zip")):
        with zipfile.ZipFile(archive) as opened:
            names = sorted(opened.namelist())
            for name in random.Random(seed).sample(names, min(per_folder, len(names))):
                for affected in json.loads(opened.read(name)).get("affected", [])[:5]:
                    scheme = SCHEMES.get(split_ecosystem(affected.get("package", {}).get("ecosystem", ""))[0])
                    if scheme:
                        chosen.append((scheme, affected))
    return chosen


def versions_near_bounds(scheme: str, affected: dict) -> list[str]:
    """Return versions to test: the bounds and versions close to them."""
    texts = [text for item in affected.get("ranges", []) for event in item["events"] for text in event.values()]
    texts = [text for text in texts if text not in {"0", "*"}] + (affected.get("versions") or [])[:6]
    out = []
    for text in texts[:12]:
        bumped = re.sub(r"\d+(?=\D*$)", lambda found: str(int(found[0]) + 1), text)
        for version in (text, bumped, f"{text}.1", f"{text}~1" if scheme in {"dpkg", "rpm"} else f"{text}-1"):
            try:
                compare(scheme, version, version)
            except ValueError:
                continue
            out.append(version)
    return list(dict.fromkeys(out))


@pytest.mark.parametrize(
    ("root", "per_folder", "least"),
    [
        (DEMO, 40, 500),
        pytest.param(
            SHARED, 60, 5000, marks=pytest.mark.skipif(not SHARED.is_dir(), reason="no feeds on this machine")
        ),
    ],
)
def test_intervals_agree_with_schema_on_real_records(root, per_folder, least):
    pairs = differing = affected_count = 0
    for scheme, affected in real_entries(root, 11, per_folder):
        intervals = intervals_of(scheme, affected)
        for version in versions_near_bounds(scheme, affected):
            expected = is_affected_by_schema(scheme, affected, version)
            pairs += 1
            affected_count += expected
            differing += bool(intervals_containing(scheme, intervals, version)) != expected
    assert differing == 0
    assert pairs >= least
    assert 0.1 < affected_count / pairs < 0.9  # both answers occur often
