"""Feed sync: fetch changed records, tombstone removed ones, keep feeds apart. A second sync changes nothing."""

from __future__ import annotations

import zipfile

import pytest

from accounts.queries import system_user
from lifecycle.advisories import services
from lifecycle.advisories.models import Advisory, AffectedInterval, Match
from lifecycle.advisories.services import sync_feed
from lifecycle.advisories.sources import FeedUnreadable
from lifecycle.audit.models import AuditEvent, AuditPending
from tests.factories.advisories import Export, record

pytestmark = pytest.mark.django_db

OPENSSL = "pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12&upstream=openssl"


def live() -> list[str]:
    return sorted(Match.objects.filter(valid_to=None).values_list("advisory__osv_id", flat=True))


def test_second_sync_changes_nothing(export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1"), record("A-2", name="perl"))
    first = export.sync()
    before = (list(Advisory.objects.values()), list(AffectedInterval.objects.values()), list(Match.objects.values()))
    second = export.sync()
    assert (first.stored, second.stored, second.tombstoned, second.error_count) == (2, 0, 0, 0)
    after = (list(Advisory.objects.values()), list(AffectedInterval.objects.values()), list(Match.objects.values()))
    assert after == before
    assert live() == ["A-1"]


@pytest.mark.parametrize("modified", ["2027-01-01T00:00:00Z", "2001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"])
def test_sync_fetches_records_with_any_different_timestamp(export, stored, modified):
    stored(OPENSSL)
    export.put("Debian", record("A-1"))
    export.sync()
    export.put("Debian", {**record("A-1", fixed="3.0.1-1"), "modified": modified})
    assert export.sync().stored == 1
    assert live() == []
    assert Advisory.objects.get().modified == modified


def test_sync_keeps_newer_of_two_copies_and_fetches_neither_again(export):
    old, new = record("A-1", fixed="1-1"), {**record("A-1", fixed="2-1"), "modified": "2026-06-01T00:00:00Z"}
    export.put("Debian", new)
    export.put("Ubuntu", old)
    export.sync()
    assert AffectedInterval.objects.get().fixed_version == "2-1"
    assert export.sync().stored == 0


def test_sync_keeps_same_id_of_two_feeds_apart(export, tmp_path, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1"))
    export.sync("one")
    export.sync("two")
    export.drop("Debian", "A-1")
    export.put("Debian", record("A-2", name="perl"))
    assert export.sync("two").tombstoned == 1
    assert live() == ["A-1"]  # feed one still has it


def test_older_run_keeps_what_a_newer_run_stored_after_the_older_one_read_its_index(export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-0", name="perl"), record("A-2", name="perl"))
    export.sync()
    export.drop("Debian", "A-0")
    export.put("Debian", record("A-2", name="perl", modified="2026-01-02T00:00:00Z"))
    newer = Export(export.root.parent / "newer")
    newer.put("Debian", record("A-0", name="perl"), record("A-2", name="perl"), record("A-1"))

    def newer_run(*_of: object) -> None:
        sync_feed(str(newer.root), feed_name="test", actor=system_user())

    report = sync_feed(str(export.root), feed_name="test", actor=system_user(), progress=newer_run)
    assert live() == ["A-1"]
    assert report.tombstoned == 1  # what no run wrote since
    assert Advisory.objects.get(osv_id="A-0").tombstoned_at is not None


def test_sync_tombstones_removed_records_and_restores_them(export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1"), record("A-2", name="perl"))
    export.put("PyPI", record("P-1", name="x", ecosystem="PyPI"))
    export.sync()
    export.drop("Debian", "A-1")
    report = export.sync()
    assert report.tombstoned == 1
    assert live() == []
    assert Advisory.objects.filter(tombstoned_at=None).count() == 2
    export.put("Debian", record("A-1"))
    assert export.sync().stored == 1
    assert live() == ["A-1"]


def test_sync_ignores_folder_missing_from_this_run(export, tmp_path):
    export.put("Debian", record("A-1"))
    export.put("PyPI", record("P-1", name="x", ecosystem="PyPI"))
    export.sync()
    (tmp_path / "export" / "PyPI").rename(tmp_path / "elsewhere")
    assert export.sync().tombstoned == 0


def test_sync_closes_and_reopens_matches_with_the_record(export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1"))
    export.sync()
    export.put("Debian", {**record("A-1"), "modified": "2026-02-01T00:00:00Z", "withdrawn": "2026-02-01T00:00:00Z"})
    export.sync()
    assert live() == []
    export.put("Debian", {**record("A-1"), "modified": "2026-03-01T00:00:00Z"})
    export.sync()
    assert live() == ["A-1"]
    assert Match.objects.count() == 2  # the closed one keeps its history


def test_sync_reports_bad_record_and_keeps_its_stored_version(export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1"), record("A-2", name="perl"))
    export.sync()
    export.put("Debian", {**record("A-1"), "modified": "2026-02-01T00:00:00Z"}, record("A-3"))
    (export.root / "Debian" / "A-1.json").write_text("{ not json")
    report = export.sync()
    assert report.error_count == 1
    assert "A-1" in report.errors[0]
    assert live() == ["A-1", "A-3"]


def test_sync_fetches_again_when_record_is_older_than_its_index(export):
    export.put("Debian", record("A-1"))
    (export.root / "Debian" / "modified_id.csv").write_text("2026-02-01T00:00:00Z,A-1\n")
    assert [export.sync().stored, export.sync().stored] == [1, 1]
    export.put("Debian", {**record("A-1", fixed="9-1"), "modified": "2026-02-01T00:00:00Z"})
    assert [export.sync().stored, export.sync().stored] == [1, 0]
    assert AffectedInterval.objects.get().fixed_version == "9-1"


def test_sync_reports_truncated_index_and_tombstones_nothing(export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1"))
    export.put("PyPI", record("P-1", name="x", ecosystem="PyPI"))
    export.sync()
    with zipfile.ZipFile(export.root / "Debian" / "all.zip", "w") as made:
        made.write(export.root / "Debian" / "A-1.json", "A-1.json")
    (export.root / "Debian" / "modified_id.csv").write_text("")
    report = export.sync()
    assert (report.error_count, report.tombstoned, live()) == (1, 0, ["A-1"])


@pytest.mark.parametrize(
    ("name", "version"), [("\U0001f600" * 400, "1"), ("openssl", "\U0001f600" * 400), ("openssl", "1.a" * 300)]
)
def test_sync_reports_record_too_long_for_database_index(export, stored, name, version):
    stored(OPENSSL)
    events = [{"introduced": version}]
    export.put("Debian", record("A-0", name=name, events=events), record("A-1"))
    report = export.sync()
    assert (report.error_count, live()) == (1, ["A-1"])


def test_sync_resumes_after_interruption(export, stored, monkeypatch):
    stored(OPENSSL)
    monkeypatch.setattr(services, "BATCH", 1)
    export.put("Debian", *[record(f"A-{number}") for number in range(4)])
    monkeypatch.setattr(services, "_store", failing_after(2, services._store))
    with pytest.raises(ZeroDivisionError):
        export.sync()
    assert live() == ["A-0", "A-1"]  # each batch is stored with its matches
    monkeypatch.undo()
    assert export.sync().stored == 2
    assert live() == ["A-0", "A-1", "A-2", "A-3"]


def failing_after(calls, function):
    left = [calls]

    def run(*args):
        if not left[0]:
            raise ZeroDivisionError
        left[0] -= 1
        return function(*args)

    return run


def test_sync_refuses_folder_without_export(export):
    export.root.mkdir()
    with pytest.raises(FeedUnreadable):
        export.sync()


def test_sync_writes_audit_event(export):
    export.put("Debian", record("A-1"))
    export.sync()
    rows = [*AuditPending.objects.all(), *AuditEvent.objects.all()]
    assert any("advisories.synced" in str(getattr(row, "action", "")) for row in rows)
