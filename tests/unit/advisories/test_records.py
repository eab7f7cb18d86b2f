"""Advisory records: parsed fields, severity and refusals."""

from __future__ import annotations

import json

import pytest

from lifecycle.advisories.records import MalformedRecord, parse_record, parse_time
from lifecycle.advisories.severity import severity_of

V4 = {"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}
V3 = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N"}
V2 = {"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:C/I:C/A:C"}
NO_IMPACT = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N"}
BROKEN = {"type": "CVSS_V4", "score": "CVSS:4.0/AV:X"}


def record(**more):
    return {"id": "X-1", "modified": "2026-01-01T00:00:00Z", **more}


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"severity": [V2, V3, V4]}, "critical"),
        ({"severity": [V2, V3]}, "medium"),
        ({"severity": [V2]}, "high"),  # 10.0, but v2 has nothing above high
        ({"severity": [NO_IMPACT]}, "none"),
        ({"severity": [BROKEN, V3]}, "medium"),
        ({"severity": [V3], "database_specific": {"severity": "CRITICAL"}}, "medium"),
        ({"affected": [{"severity": [V4]}]}, "critical"),
        ({"database_specific": {"severity": "MODERATE"}}, "medium"),
        ({"affected": [{"ecosystem_specific": {"urgency": "not yet assigned"}}]}, "unknown"),
        ({"affected": [{"ecosystem_specific": {"urgency": "high**"}}]}, "high"),
        ({"severity": [{"type": "Ubuntu", "score": "negligible"}]}, "low"),
        ({"database_specific": {"cvss_v3": "7.0", "cvss_v2": 9.9}}, "high"),  # RubyGems: scores without a vector
        ({"database_specific": {"cvss_v3": "11"}}, "unknown"),
        ({"database_specific": {"cvss_v3": True}}, "unknown"),
        ({"affected": [{"database_specific": {"cvss": V3["score"]}}]}, "medium"),  # RustSec
        ({"severity": [V3], "database_specific": {"cvss_v3": "9.8"}}, "medium"),
        ({"id": "ALSA-2023:3220", "summary": "Important: kernel security update"}, "high"),
        ({"id": "X-1", "summary": "Important: kernel security update"}, "unknown"),
        ({"id": "RLSA-2023:1", "summary": "new packages: perl"}, "unknown"),
        ({"database_specific": {"impact": "Moderate"}}, "medium"),
        ({"severity": [{"type": "Ubuntu", "score": "untriaged"}]}, "unknown"),
        ({}, "unknown"),
        ({"severity": "high", "affected": "x", "database_specific": [1]}, "unknown"),
    ],
)
def test_severity_comes_from_vector_then_vendor(fields, severity):
    assert severity_of(record(**fields))[0] == severity


def test_record_with_one_unknown_ecosystem_is_kept():
    content = record(
        aliases=["CVE-1"],
        affected=[
            {"package": {"ecosystem": "GHC", "name": "base"}, "versions": ["1"]},
            {
                "package": {"ecosystem": "Debian:12", "name": "openssl"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.0.14-1"}]}],
            },
        ],
    )
    parsed = parse_record(json.dumps(content).encode(), osv_id="X-1")
    assert [(item.ecosystem, item.release, item.name, item.interval.fixed_version) for item in parsed.affected] == [
        ("Debian", "12", "openssl", "3.0.14-1")
    ]
    assert parsed.aliases == ("CVE-1",)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"id":"X-2","modified":"2026"}', b'{"id":"X-1"}'])
def test_malformed_or_wrong_record_is_refused(content):
    with pytest.raises(MalformedRecord, match="X-1"):
        parse_record(content, osv_id="X-1")


def test_nul_is_dropped_and_withdrawal_with_invalid_time_counts():
    parsed = parse_record(json.dumps(record(summary="a\x00b", withdrawn="yes")).encode(), osv_id="X-1")
    assert parsed.summary == "ab"
    assert parsed.withdrawn_at is not None


@pytest.mark.parametrize("text", ["", "2026", "0001-01-01T00:00:00+14:00", "9999-99-99T00:00:00Z", None, 5])
def test_invalid_time_is_none(text):
    assert parse_time(text) is None
