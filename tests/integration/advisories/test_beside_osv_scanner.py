"""Findings beside those of osv-scanner, on the same records: each difference has a known kind.

osv-scanner is built outside the clone (CONTRIBUTING.md names the variable). docs/explanation/differences.md explains
the kinds.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
import zipfile
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from django.core.management import call_command

from lifecycle.versions.ecosystems import SCHEMES, match_name, split_ecosystem
from tests.integration.advisories.test_real_records import TYPES, purl_of, read, versions_of
from tests.unit.advisories.test_ranges import SHARED
from tests.unit.advisories.test_versions import is_valid

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not os.environ.get("OSV_SCANNER"), reason="OSV_SCANNER does not name osv-scanner"),
]
PER_FOLDER = 150  # records of each ecosystem of a bulk export
LANGUAGES = {
    "maven": "Maven", "pypi": "PyPI", "composer": "Packagist", "gem": "RubyGems", "cargo": "crates.io",
    "golang": "Go", "npm": "npm", "nuget": "NuGet",
}  # fmt: skip
Pair = tuple[tuple[str, str, str], str]  # (ecosystem, name, version), record


def records() -> list[tuple[str, dict]]:
    """Return (folder, record), each id once: the tests', and some of each ecosystem of an export, if one is there."""
    found: dict[str, tuple[str, dict]] = {}
    for archive in sorted(SHARED.glob("*/all.zip")) if SHARED.is_dir() else ():
        with zipfile.ZipFile(archive) as opened:
            names = sorted(opened.namelist())
            for name in names[:: max(1, len(names) // PER_FOLDER)]:
                record = json.loads(opened.read(name))
                found.setdefault(record["id"], (archive.parent.name, record))
    for item in read():
        found.setdefault(item["record"]["id"], (item["directory"], item["record"]))
    return list(found.values())


def write(root: Path, rows: list[tuple[str, dict]]) -> list[str]:
    """Write an export and the same records as osv-scanner's database; return the purls to judge."""
    entries: dict[tuple[str, str, str], list[tuple[str, dict]]] = {}
    folders: dict[str, list[dict]] = {}
    for directory, record in rows:
        folders.setdefault(directory, []).append(record)
        for entry in record.get("affected", []):
            ecosystem, release = split_ecosystem(entry.get("package", {}).get("ecosystem", ""))
            if ecosystem in TYPES:
                key = (ecosystem, release, match_name(ecosystem, entry["package"]["name"]))
                entries.setdefault(key, []).append((record["id"], entry))
    for directory, each in folders.items():
        (root / "feed" / directory).mkdir(parents=True)
        for record in each:
            (root / "feed" / directory / f"{record['id']}.json").write_text(json.dumps(record))
    _write_database(root / "db" / "osv-scanner", [record for _, record in rows])
    return sorted(
        {
            purl_of(ecosystem, release, name, version)
            for (ecosystem, release, name), found in entries.items()
            for version in versions_of(SCHEMES[ecosystem], found)
        }
    )


def _write_database(root: Path, rows: list[dict]) -> None:
    """Write an archive for each ecosystem. A record about several is in each of theirs, as OSV exports it."""
    by_ecosystem: dict[str, dict[str, dict]] = {}
    for record in rows:
        for entry in record.get("affected", []):
            ecosystem, _ = split_ecosystem(entry.get("package", {}).get("ecosystem", ""))
            by_ecosystem.setdefault(ecosystem, {})[record["id"]] = record
    for ecosystem, records in by_ecosystem.items():
        if ecosystem:
            (root / ecosystem).mkdir(parents=True)
            with zipfile.ZipFile(root / ecosystem / "all.zip", "w") as opened:
                for osv_id, record in records.items():
                    opened.writestr(f"{osv_id}.json", json.dumps(record))


def findings_of_osv_scanner(root: Path, purls: list[str]) -> set[Pair]:
    """Return the findings of osv-scanner in an SBOM with these packages."""
    sbom = root / "bom.cdx.json"
    components = [
        {"type": "library", "name": purl.partition("@")[0].rpartition("/")[2], "version": "1", "purl": purl,
         "bom-ref": str(number)}
        for number, purl in enumerate(purls)
    ]  # fmt: skip
    sbom.write_text(
        json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components})
    )
    ran = subprocess.run(
        [
            os.environ["OSV_SCANNER"],
            "scan",
            "source",
            "--offline",
            "--format",
            "json",
            "--all-packages",
            "-L",
            str(sbom),
        ],
        env=os.environ | {"OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY": str(root / "db")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode in {0, 1}, ran.stderr[-2000:]
    return {
        (tuple(package["package"].get(name, "") for name in ("ecosystem", "name", "version")), vulnerability["id"])
        for result in json.loads(ran.stdout)["results"]
        for package in result["packages"]
        for vulnerability in package.get("vulnerabilities", ())
    }


def key_of(purl: str) -> tuple[str, str, str] | None:
    """Return what osv-scanner prints for a package of a language; None for one that it does not read from an SBOM."""
    kind, _, rest = purl.removeprefix("pkg:").partition("/")
    if kind not in LANGUAGES:
        return None
    path, _, version = rest.partition("?")[0].rpartition("@")
    name = unquote(path)
    return LANGUAGES[kind], name.replace("/", ":") if kind == "maven" else name, unquote(version)


def kind_of(pair: Pair, entries: list[dict]) -> str:
    """Return why the two differ about a package and a record with these entries about it; "" when nobody knows."""
    (ecosystem, name, version), _ = pair
    names = {entry["package"]["name"] for entry in entries}
    types = [item["type"] for entry in entries for item in entry.get("ranges", ())]
    if names and name not in names:
        return "name in another case"
    if "GIT" in types:
        return "range after a GIT range"
    if ecosystem == "Maven":
        return "order of Maven qualifiers"
    if ecosystem == "npm" and not is_valid("semver", version):
        return "version that is no SemVer"
    return {"Packagist": "zeros at the end", "RubyGems": "pre-release with a dash"}.get(ecosystem, "")


def test_each_difference_is_of_a_known_kind(tmp_path):
    rows = records()
    purls = write(tmp_path, rows)
    call_command("sync_advisories", "--from", str(tmp_path / "feed"), stdout=io.StringIO())
    (tmp_path / "purls.txt").write_text("\n".join(purls))
    out = io.StringIO()
    started = time.monotonic()
    call_command("findings", "--purls", str(tmp_path / "purls.txt"), "--json", stdout=out)
    ours_s = time.monotonic() - started
    ours: set[Pair] = set()
    for line in map(json.loads, out.getvalue().splitlines()):
        if line["state"] == "open" and (key := key_of(line["purl"])) is not None:
            ours.add((key, line["advisory"]))
    started = time.monotonic()
    theirs = findings_of_osv_scanner(tmp_path, purls)
    theirs_s = time.monotonic() - started
    asked = {key_of(purl) for purl in purls}
    theirs = {(key, osv_id) for key, osv_id in theirs if key in asked}
    entries: dict[tuple[str, str, str], list[dict]] = {}
    for _, record in rows:
        for entry in record.get("affected", []):
            ecosystem, _ = split_ecosystem(entry.get("package", {}).get("ecosystem", ""))
            if ecosystem in TYPES:
                name = match_name(ecosystem, entry["package"]["name"])
                entries.setdefault((record["id"], ecosystem, name), []).append(entry)
    kinds = Counter()
    for pair in ours ^ theirs:
        (ecosystem, name, _), osv_id = pair
        side = "only ours" if pair in ours else "only theirs"
        kinds[side, kind_of(pair, entries.get((osv_id, ecosystem, name), []))] += 1
    # With `-s`: the figures of docs/explanation/differences.md.
    print(f"{len(ours & theirs)} findings in both, {ours_s:.1f} s here, {theirs_s:.1f} s there")  # noqa: T201 -- figures
    print("\n".join(f"{count:5} {side}: {kind}" for (side, kind), count in sorted(kinds.items())))  # noqa: T201 -- figures
    assert len(ours & theirs) > 200
    assert not [kind for kind in kinds if not kind[1]]
    # A finding that only osv-scanner has would be one that we miss.
    assert {kind for side, kind in kinds if side == "only theirs"} <= {
        "order of Maven qualifiers", "version that is no SemVer", "pre-release with a dash",
    }  # fmt: skip
