"""Real records of thirteen ecosystems: the lines of `findings` agree with the OSV schema."""

from __future__ import annotations

import io
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from django.core.management import call_command

from lifecycle.versions.ecosystems import SCHEMES, match_name, split_ecosystem
from tests.unit.advisories.test_ranges import is_affected_by_schema, versions_near_bounds
from tests.unit.advisories.test_versions import is_valid

pytestmark = pytest.mark.django_db

RECORDS = Path(__file__).parents[2] / "data" / "advisories" / "records.jsonl"
TYPES = {
    "AlmaLinux": "rpm/almalinux", "Alpine": "apk/alpine", "Bitnami": "bitnami", "Go": "golang", "Maven": "maven",
    "NuGet": "nuget", "Packagist": "composer", "PyPI": "pypi", "Rocky Linux": "rpm/rocky", "RubyGems": "gem",
    "Wolfi": "apk/wolfi", "crates.io": "cargo", "npm": "npm",
}  # fmt: skip
IDS = {"AlmaLinux": "almalinux-", "Alpine": "alpine-", "Rocky Linux": "rocky-"}
PER_ENTRY = 12  # versions to check


def read() -> list[dict]:
    with RECORDS.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def purl_of(ecosystem: str, release: str, name: str, version: str) -> str:
    path = "/".join(
        quote(part, safe="") for part in (name.replace(":", "/") if ecosystem == "Maven" else name).split("/")
    )
    distro = f"?distro={IDS[ecosystem]}{release.removeprefix('v')}" if release else ""
    return f"pkg:{TYPES[ecosystem]}/{path}@{quote(version, safe=':+~')}{distro}"


def versions_of(scheme: str, entries: list[tuple[str, dict]]) -> set[str]:
    """Return versions around the bounds of these entries, plus up to two below nearly all of them."""
    low = [version for version in ("0.0.1", "0-r0") if is_valid(scheme, version)]
    return {version for _, entry in entries for version in versions_near_bounds(scheme, entry)[:PER_ENTRY]} | set(low)


def test_findings_around_real_bounds_agree_with_the_schema(tmp_path):
    entries: dict[tuple[str, str, str], list[tuple[str, dict]]] = {}
    for item in read():
        folder = tmp_path / "feed" / item["directory"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{item['record']['id']}.json").write_text(json.dumps(item["record"]))
        for entry in item["record"]["affected"]:
            ecosystem, release = split_ecosystem(entry["package"]["ecosystem"])
            if ecosystem in TYPES and not item["record"].get("withdrawn"):
                key = (ecosystem, release, match_name(ecosystem, entry["package"]["name"]))
                entries.setdefault(key, []).append((item["record"]["id"], entry))
    expected: set[tuple[str, str]] = set()
    purls: list[str] = []
    for (ecosystem, release, name), records in sorted(entries.items()):
        scheme = SCHEMES[ecosystem]
        for version in sorted(versions_of(scheme, records)):
            purl = purl_of(ecosystem, release, name, version)
            purls.append(purl)
            expected |= {(purl, osv_id) for osv_id, entry in records if is_affected_by_schema(scheme, entry, version)}
    call_command("sync_advisories", "--from", str(tmp_path / "feed"), stdout=io.StringIO())
    purl_file = tmp_path / "purls.txt"
    purl_file.write_text("\n".join(purls))
    out = io.StringIO()
    call_command("findings", "--purls", str(purl_file), "--json", stdout=out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    unknown = [line for line in lines if line["state"] == "unknown"]
    assert {(line["purl"], line["advisory"]) for line in lines if line["state"] == "open"} == expected
    assert len(lines) - len(unknown) == len(expected)
    assert {line["advisory"] for line in unknown} == {"ALPINE-CVE-2019-16935"}  # fixed in 2.7.16-33, which apk refuses
    assert all("fixed 2.7.16-33" in line["reason"] for line in unknown)
    assert (len(purls) > 600, len(expected) > 250) == (True, True)
    kinds = {f"pkg:{kind.partition('/')[0]}" for kind in TYPES.values()}
    assert {purl.partition("/")[0] for purl, _ in expected} == kinds
