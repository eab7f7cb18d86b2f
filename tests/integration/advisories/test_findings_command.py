"""`manage.py findings` and `sync_advisories` as a check calls them."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from lifecycle.pages.registry.findings import findings_by_layer, findings_of
from lifecycle.registry.models import Image
from tests.factories.advisories import record
from tests.factories.dock import carry, image, index

pytestmark = pytest.mark.django_db

OPENSSL = "pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12&upstream=openssl"
UNJUDGED = "pkg:deb/debian/libssl3@3.0.11-1"


def findings(*arguments: str) -> list[dict[str, object]]:
    out = io.StringIO()
    call_command("findings", *arguments, "--json", stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def feed(export):
    export.put(
        "Debian",
        record("DEB-1", upstream=["CVE-1"], aliases=["GHSA-1"], database_specific={"severity": "HIGH"}),
        record("DEB-2", events=[{"introduced": "0"}]),
        record("DEB-3", withdrawn="2026-01-01T00:00:00Z"),
    )
    export.put(
        "PyPI",
        record("GHSA-1", name="a", ecosystem="PyPI", aliases=["PYSEC-1"], fixed="2"),
        record("PYSEC-2", name="a", ecosystem="PyPI", aliases=["PYSEC-1"], fixed="2", related=["CVE-9"]),
        record("PYSEC-3", name="a", ecosystem="PyPI", aliases=["PYSEC-1", "X-9"], withdrawn="2026-01-01T00:00:00Z"),
    )
    export.sync()
    return export


def test_findings_of_a_purl_say_aliases_fix_severity_and_state(feed):
    assert findings("--purl", OPENSSL) == [
        {
            "purl": OPENSSL,
            "advisory": "DEB-1",
            "aliases": ["CVE-1", "GHSA-1", "PYSEC-1", "PYSEC-2"],
            "fixed_version": "3.0.14-1",
            "severity": "high",
            "state": "open",
        },
        {
            "purl": OPENSSL,
            "advisory": "DEB-2",
            "aliases": [],
            "fixed_version": None,
            "severity": "unknown",
            "state": "open",
        },
    ]


def test_findings_of_a_clean_purl_are_none(feed):
    assert findings("--purl", OPENSSL.replace("3.0.11", "3.0.99").replace("upstream=openssl", "upstream=perl")) == []


def test_findings_say_why_a_package_cannot_be_judged(feed):
    (line,) = findings("--purl", UNJUDGED)
    reason = line.pop("reason")
    assert line == {
        "purl": UNJUDGED, "advisory": None, "aliases": [], "fixed_version": None,
        "severity": "unknown", "state": "unknown",
    }  # fmt: skip
    assert "distribution" in str(reason)


def test_findings_of_a_file_are_sorted_and_each_pair_comes_once(feed, tmp_path):
    path = tmp_path / "purls.txt"
    path.write_text(f"pkg:pypi/A@1.0\n\n{OPENSSL}\n{OPENSSL}\n{UNJUDGED}\n")
    pairs = [(line["purl"], line["advisory"] or "") for line in findings("--purls", str(path))]
    assert pairs == sorted(set(pairs))
    assert ("pkg:pypi/A@1.0", "GHSA-1") in pairs  # the purl as given
    assert len(pairs) == 5


def test_findings_of_one_id_in_two_feeds_come_once_wherever_they_are_counted(feed, stored):
    made = image("mine")
    carry(made, 0, stored(OPENSSL))
    feed.put("Debian", record("DEB-2", fixed="3.0.20-1", database_specific={"severity": "LOW"}))
    feed.sync("another")  # says more of DEB-2 than the first
    lines = findings("--purl", OPENSSL)
    assert [(line["advisory"], line["fixed_version"], line["severity"]) for line in lines] == [
        ("DEB-1", "3.0.14-1", "high"), ("DEB-2", "3.0.20-1", "low"),
    ]  # fmt: skip
    made.refresh_from_db()
    assert (made.finding_count, made.fixable_count, made.high_count, made.low_count) == (2, 2, 1, 1)
    assert [(row.advisory.osv_id, row.severity) for row in findings_of(made).order_by("advisory__osv_id")] == [
        ("DEB-1", "high"), ("DEB-2", "low"),
    ]  # fmt: skip
    assert [share.count for share in findings_by_layer(made)] == [2]


def test_findings_of_a_file_take_any_line_end_and_a_byte_order_mark(feed, tmp_path):
    path = tmp_path / "purls.txt"
    path.write_bytes(f"\ufeff{OPENSSL}\r\n\r\n  pkg:pypi/a@1.0 \n{OPENSSL}".encode())
    lines = findings("--purls", str(path))
    assert {line["purl"] for line in lines} == {OPENSSL, "pkg:pypi/a@1.0"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_findings_of_a_file_that_cannot_be_read_say_so(feed, tmp_path, content):
    path = tmp_path / "purls.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=r"purls\.txt"):
        findings("--purls", str(path))


def test_findings_of_an_image_that_was_not_scanned_say_that_nothing_is_known(feed):
    made, waiting = image("mine"), image("waiting")
    Image.objects.filter(pk=made.pk).update(scanned_at=timezone.now())
    Image.objects.filter(pk=waiting.pk).update(scanned_at=None)
    err = io.StringIO()
    call_command("findings", "--image", index("all", made, waiting).digest, "--json", stderr=err)
    assert err.getvalue() == f"{waiting.digest}: its packages are not scanned yet\n"


def test_findings_of_an_image_and_of_the_index_that_names_it(feed, stored):
    made = image("mine")
    carry(made, 0, stored(OPENSSL))
    carry(made, 1, stored(UNJUDGED), stored("pkg:generic/x@1"))
    lines = findings("--image", made.digest)
    assert [(line["purl"], line["advisory"], line["state"]) for line in lines] == [
        (UNJUDGED, None, "unknown"),
        (OPENSSL, "DEB-1", "open"),
        (OPENSSL, "DEB-2", "open"),
        ("pkg:generic/x@1", None, "unknown"),
    ]
    assert findings("--image", index("all", made).digest) == lines


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--image", "sha256:" + "0" * 64), 1),
        (("--image", "nonsense"), 1),
        (("--image", ""), 1),
        (("--purl", "openssl"), 2),
        (("--purl", ""), 2),
        (("--purl", "pkg:npm/a%00b@1"), 2),
        (("--purl", "pkg:npm/a\udcff@1"), 2),
    ],
)
def test_findings_exit_codes(feed, arguments, code):
    with pytest.raises(SystemExit) as stopped:
        findings(*arguments)
    assert stopped.value.code == code


def test_findings_of_a_file_with_a_malformed_purl_print_the_rest_and_say_so(feed, tmp_path, capsys):
    path = tmp_path / "purls.txt"
    path.write_text(f"nonsense\npkg:npm/a%00b@1\n{OPENSSL}\n")
    out = io.StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command("findings", "--purls", str(path), "--json", stdout=out)
    assert stopped.value.code == 2
    assert len(out.getvalue().splitlines()) == 2


def test_sync_advisories_names_the_feed_after_its_folder_and_exits_1_when_a_record_is_bad(export):
    export.put("Debian", record("A-1"), record("A-2"))
    out = io.StringIO()
    call_command("sync_advisories", "--from", str(export.root), stdout=out)
    assert out.getvalue().startswith("export: 2 records in 1 folders, 2 stored")
    (export.root / "Debian" / "A-1.json").write_text("no")
    export.folders["Debian"]["A-1"]["modified"] = "2027-01-01T00:00:00Z"
    with (export.root / "Debian" / "modified_id.csv").open("w") as lines:
        lines.write("2027-01-01T00:00:00Z,A-1\n2026-01-01T00:00:00Z,A-2\n")
    with pytest.raises(SystemExit) as stopped:
        call_command("sync_advisories", "--from", str(export.root), stdout=io.StringIO(), stderr=io.StringIO())
    assert stopped.value.code == 1


def test_sync_advisories_exits_1_when_there_is_nothing_to_read(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        call_command("sync_advisories", "--from", str(tmp_path / "none"), stderr=io.StringIO())
    assert stopped.value.code == 1
