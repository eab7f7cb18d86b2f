"""A range that cannot be read gives findings in state `unknown`: never open, never fixed, never nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from lifecycle.advisories.models import Advisory, Match
from lifecycle.audit.models import AuditEvent
from lifecycle.comparison.queries import compare
from lifecycle.evidence.findings import (
    UnknownFindings,
    diff_of_images,
    fixed_by_new_base,
    matches_of_images,
    unknown_findings,
)
from tests.factories.advisories import record
from tests.factories.dock import carry, image

pytestmark = pytest.mark.django_db

PURL = "pkg:pypi/hull@2.5.0"
READABLE = [{"introduced": "0"}, {"fixed": "2.6.0"}]
UNREADABLE = [{"introduced": "0"}, {"last_affected": "2.6.0-NA"}]
REASON = "an affected range cannot be read: last_affected 2.6.0-NA: not a PEP 440 version"
CASES = Path(__file__).parents[4] / "shared" / "cases" / "unreadable-range"


def sync(export, **feed) -> str:
    out = io.StringIO()
    call_command("sync_advisories", "--from", str(export.root), "--feed", feed.get("name", "test"), stdout=out)
    return out.getvalue()


def findings(*arguments: str) -> list[dict[str, object]]:
    out = io.StringIO()
    call_command("findings", *arguments, "--json", stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def feed(export):
    export.put("PyPI", record("P-1", name="hull", ecosystem="PyPI", events=UNREADABLE))
    return export


def test_package_in_an_unreadable_range_gets_an_unknown_finding(feed, stored):
    sync(feed)
    unknown = {
        "purl": PURL, "advisory": "P-1", "aliases": [], "fixed_version": None, "severity": "unknown",
        "state": "unknown", "reason": REASON,
    }  # fmt: skip
    assert findings("--purl", PURL) == [unknown]
    assert findings("--purl", "pkg:pypi/another@2.5.0") == []
    made = image("mine")
    carry(made, 0, stored(PURL))
    sync_again = feed.sync("another")  # matches the stored package
    assert sync_again.packages_rematched == 1
    assert findings("--image", made.digest) == [unknown]


def test_sync_reports_unreadable_ranges_also_when_nothing_changed(feed):
    for _ in range(2):
        out = sync(feed)
        assert f"not readable: P-1: PyPI hull: {REASON}" in out
        assert "1 ranges not readable, 0 errors" in out
        assert AuditEvent.objects.filter(action="advisories.synced").latest("id").details["unreadable"] == 1
    feed.put(
        "PyPI", {**record("P-1", name="hull", ecosystem="PyPI", events=READABLE), "modified": "2026-02-01T00:00:00Z"}
    )
    assert "0 ranges not readable" in sync(feed)


def test_unknown_finding_is_not_open_and_has_a_number_and_reasons(feed, stored):
    made, other = image("mine"), image("other")
    package = stored(PURL)
    carry(made, 0, package)
    carry(made, 1, package)
    carry(other, 0, stored("pkg:pypi/other@1"))
    sync(feed)
    made.refresh_from_db()
    assert made.finding_count == 0
    assert matches_of_images([made.pk]) == []
    assert unknown_findings([made.pk, other.pk]) == {
        made.pk: UnknownFindings(1, (REASON,)), other.pk: UnknownFindings(0, ()),
    }  # fmt: skip


def test_finding_becomes_open_when_the_range_becomes_readable_and_back(feed, stored):
    made = image("mine")
    carry(made, 0, stored(PURL))
    sync(feed)
    for month, events, states in ((2, READABLE, [("open", "2.6.0", "")]), (3, UNREADABLE, [("unknown", "", REASON)])):
        changed = record("P-1", name="hull", ecosystem="PyPI", events=events)
        feed.put("PyPI", {**changed, "modified": f"2026-0{month}-01T00:00:00Z"})
        sync(feed)
        live = Match.objects.filter(valid_to=None)
        assert list(live.values_list("state", "fixed_version", "reason")) == states
        made.refresh_from_db()
        assert made.finding_count == (1 if events is READABLE else 0)


def test_open_finding_of_another_feed_counts_and_the_unknown_one_does_not(feed, stored):
    made = image("mine")
    carry(made, 0, stored(PURL))
    sync(feed)
    feed.put("PyPI", record("P-1", name="hull", ecosystem="PyPI", events=READABLE))
    sync(feed, name="another")
    assert [(line["state"], line["fixed_version"]) for line in findings("--purl", PURL)] == [("open", "2.6.0")]
    assert unknown_findings([made.pk])[made.pk].count == 0
    made.refresh_from_db()
    assert made.finding_count == 1


def test_finding_that_is_unknown_in_the_new_image_is_not_fixed(feed, stored):
    """Before: open in the old version. After: in a range that cannot be read."""
    before, after, clean = image("before"), image("after"), image("clean")
    carry(before, 0, stored("pkg:pypi/hull@1.0"))
    carry(after, 0, stored("pkg:pypi/hull@2.0"))
    carry(clean, 0, stored("pkg:pypi/hull@9.0"))
    events = [{"introduced": "2.0"}, {"fixed": "no version"}]
    made = record("P-2", name="hull", ecosystem="PyPI", events=[{"introduced": "0"}, {"fixed": "1.5"}])
    made["affected"][0]["ranges"].append({"type": "ECOSYSTEM", "events": [*events, {"introduced": "9.5"}]})
    feed.put("PyPI", {**made, "id": "P-1", "modified": "2026-02-01T00:00:00Z"})
    sync(feed)
    diff = diff_of_images(before, after)
    assert (diff.advisories.fixed, [match.advisory.osv_id for match in diff.unknown]) == (set(), ["P-1"])
    assert fixed_by_new_base([before.pk], before, after) == {before.pk: []}
    assert [line.change for line in compare(before, after).findings] == ["unknown"]
    diff = diff_of_images(before, clean)  # 9.0 is unknown too: nothing readable ends the range before it
    assert diff.advisories.fixed == set()


def test_finding_that_is_not_affected_in_the_new_image_is_fixed(feed, stored):
    before, after = image("before"), image("after")
    carry(before, 0, stored("pkg:pypi/hull@1.0"))
    carry(after, 0, stored("pkg:pypi/hull@1.7"))
    events = [{"introduced": "0"}, {"fixed": "1.5"}]
    feed.put(
        "PyPI", {**record("P-1", name="hull", ecosystem="PyPI", events=events), "modified": "2026-02-01T00:00:00Z"}
    )
    sync(feed)
    assert diff_of_images(before, after).advisories.fixed == {"P-1"}
    assert fixed_by_new_base([before.pk], before, after) == {before.pk: ["P-1"]}
    assert [line.change for line in compare(before, after).findings] == ["fixed"]


def test_database_refuses_an_unknown_match_without_reason_or_with_a_fix(feed, stored):
    sync(feed)
    package = stored(PURL)
    advisory = Advisory.objects.get(osv_id="P-1")
    for wrong in ({"reason": ""}, {"reason": "why", "fixed_version": "1"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Match.objects.create(advisory=advisory, package=package, state="unknown", **wrong)
    Match.objects.create(advisory=advisory, package=package, state="unknown", reason="why")


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not on this machine")
def test_case_from_outside_names_both_advisories():
    out = io.StringIO()
    call_command("sync_advisories", "--from", str(CASES / "feed"), "--feed", "outside", stdout=out)
    assert "2 ranges not readable" in out.getvalue()
    lines = findings("--purls", str(CASES / "purls.txt"))
    assert sorted((line["advisory"], line["state"], bool(line["reason"])) for line in lines) == [
        ("HBR-1", "unknown", True), ("HBR-2", "unknown", True),
    ]  # fmt: skip
