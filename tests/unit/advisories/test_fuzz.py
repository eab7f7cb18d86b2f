"""Any JSON is either an OSV record or refused with an error of ours, and what is parsed can be stored."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.advisories.records import OsvRecord, parse_record
from lifecycle.core.errors import Malformed
from lifecycle.versions.ecosystems import SCHEMES
from tests.fuzzing import json_values, mutated

LEAVES = st.sampled_from(
    ["0", "*", "1.2.3", "2.0", "no version", "1:2-3", "SEMVER", "GIT", "Debian:12", "Packagist:https://x.example/8", 7]
)


def record(ecosystem: str) -> dict:
    events = [{"introduced": "0"}, {"fixed": "1.2.3"}, {"introduced": "2.0.0"}, {"last_affected": "2.1.0"}]
    return {
        "id": "X-1", "modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z", "withdrawn": "",
        "aliases": ["CVE-1"], "upstream": [], "related": [], "summary": "s", "details": "d",
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
        "references": [{"type": "WEB", "url": "https://example.org"}],
        "affected": [
            {"package": {"ecosystem": ecosystem, "name": "a"}, "versions": ["1.0.0", "?"],
             "ranges": [{"type": "ECOSYSTEM", "events": events}, {"type": "GIT", "events": []}],
             "database_specific": {"severity": "HIGH"}},
            {"package": {"ecosystem": f"{ecosystem}:12", "name": "a"}, "ranges": [{"type": "", "events": events}]},
        ],
    }  # fmt: skip


def check(document: object) -> None:
    try:
        parsed = parse_record(json.dumps(document).encode(), osv_id="X-1")
    except Malformed:
        return
    assert isinstance(parsed, OsvRecord)
    for item in parsed.affected:
        interval = item.interval
        texts = (item.name, item.release, interval.low_text, interval.high_text, interval.fixed_version,
                 interval.exact_version, interval.problem)  # fmt: skip
        assert all("\0" not in text and len(text) <= 500 for text in texts)
        "".join(texts).encode()  # lone surrogates cannot be stored
        assert bool(interval.problem) == interval.is_unevaluated
        assert not (interval.problem and interval.fixed_version)
        assert len(interval.problem) <= 300


@settings(max_examples=100, deadline=None)
@given(json_values())
def test_any_json_is_a_record_or_refused(document):
    check(document)
    if isinstance(document, dict):
        check({**document, "id": "X-1", "modified": "2026-01-01T00:00:00Z"})


@pytest.mark.parametrize("ecosystem", sorted(SCHEMES))
def test_any_changed_record_is_a_record_or_refused(ecosystem):
    @settings(max_examples=25, deadline=None)
    @given(mutated(record(ecosystem), LEAVES))
    def changed(document):
        check(document)

    changed()


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_are_refused(content):
    with pytest.raises(Malformed):
        parse_record(content, osv_id="X-1")
