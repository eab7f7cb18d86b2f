"""The figures of the demonstration: what they count, and the exact form that checks rely on."""

from __future__ import annotations

from lifecycle.demo import report
from lifecycle.demo.report import Promoted

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def finding(purl, advisory, state="open"):
    return {"purl": purl, "advisory": advisory, "state": state}


def rebuilt_image():
    before = [
        finding("pkg:deb/debian/libssl3@1", "CVE-1"),
        finding("pkg:deb/debian/openssl@1", "CVE-1"),
        finding("pkg:deb/debian/libssl3@1", "CVE-2"),
        finding("pkg:deb/debian/libssl3@1", "CVE-3", state="not_affected"),
        finding("pkg:generic/odd@1", None, state="unknown"),
        finding("pkg:deb/debian/perl@1", "CVE-4"),
    ]
    after = [finding("pkg:deb/debian/openssl@1", "CVE-1"), finding("pkg:deb/debian/perl@2", "CVE-4")]
    return report.rebuilt_image("shop/api", (OLD, NEW), (before, after), method="build", seconds=12.5)


def test_open_findings_are_counted_and_advisory_is_fixed_when_gone():
    row = rebuilt_image()
    assert (row.findings_before, row.findings_after, row.fixed) == (4, 2, ["CVE-2"])


def test_document_has_exactly_the_keys_that_checks_read():
    promotions = [Promoted(OLD, None, "dev", "succeeded"), Promoted(NEW, "staging", "production", "open")]
    assert report.document(
        web="http://localhost:1", registry="localhost:2", seconds=60.5, images=[rebuilt_image()], promotions=promotions
    ) == {
        "web": "http://localhost:1",
        "registry": "localhost:2",
        "seconds": 60.5,
        "images": [
            {
                "repository": "shop/api",
                "digest_before": OLD,
                "digest_after": NEW,
                "method": "build",
                "findings_before": 4,
                "findings_after": 2,
                "fixed": ["CVE-2"],
                "seconds": 12.5,
            }
        ],
        "promotions": [
            {"digest": OLD, "from": None, "to": "dev", "state": "succeeded"},
            {"digest": NEW, "from": "staging", "to": "production", "state": "open"},
        ],
    }


def test_table_has_line_for_each_image():
    assert report.table([rebuilt_image()]) == [
        "Image     Method  Findings  Advisories fixed  Seconds  New digest",
        "--------  ------  --------  ----------------  -------  -------------------",
        "shop/api  build   4 -> 2    1                 12.5     sha256:bbbbbbbbbbbb",
    ]
