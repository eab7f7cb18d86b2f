"""Pairs of package version and advisory, decided twice: by our SQL, and by the schema with tools that are not ours.

The feeds beside the checkout, or those of the demonstration. Each package gets the versions that its advisories name,
which are the bounds of all their ranges: at most VERSIONS_MAX of them, because a thousand advisories of Linux are
decided for each.
"""

from __future__ import annotations

import csv
import json
import random
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from accounts.queries import system_user
from lifecycle.advisories.matching import match_packages
from lifecycle.advisories.models import Match
from lifecycle.advisories.services import sync_feed
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import version_key
from lifecycle.versions.ecosystems import SCHEMES, match_name, split_ecosystem
from tests.native_versions import Ranks, missing, orders
from tests.plain_osv import is_affected

pytestmark = pytest.mark.django_db
SHARED = Path(__file__).parents[4] / "shared" / "data" / "osv"
DEMO = Path(__file__).parents[3] / "lifecycle" / "advisories" / "data" / "demo"
VERSIONS_MAX = 60
Key = tuple[str, str]  # ecosystem without release, name as it is matched


@dataclass
class Wanted:
    """A package: its versions, its releases, and the entries of advisories about it."""

    texts: set[str] = field(default_factory=set)
    releases: set[str] = field(default_factory=set)
    entries: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)  # (id, release, entry of `affected`)


def records(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (folder, record) of all that a tool on this machine can judge."""
    for archive in sorted(root.glob("*/all.zip")):
        if SCHEMES.get(archive.parent.name) in orders():
            with zipfile.ZipFile(archive) as opened:
                for name in sorted(opened.namelist()):
                    if name.endswith(".json"):
                        yield archive.parent.name, json.loads(opened.read(name))


def key_of(entry: dict[str, Any]) -> tuple[Key, str]:
    ecosystem, release = split_ecosystem(entry.get("package", {}).get("ecosystem", ""))
    return (ecosystem, match_name(ecosystem, entry.get("package", {}).get("name", ""))), release


def packages_of(chosen: list[dict[str, Any]]) -> dict[Key, Wanted]:
    found: dict[Key, Wanted] = defaultdict(Wanted)
    for record in chosen:
        for entry in record.get("affected", []):
            key, release = key_of(entry)
            if SCHEMES.get(key[0]) not in orders():
                continue
            row = found[key]
            row.releases.add(release)
            if not record.get("withdrawn"):
                row.entries.append((record["id"], release, entry))
            ranges = [item for item in entry.get("ranges", []) if item["type"] != "GIT"]
            row.texts |= {text for item in ranges for event in item["events"] for text in event.values()}
            row.texts |= set(entry.get("versions") or [])
            row.texts -= {"0", "*", ""}
    return found


def ranks_of(wanted: dict[Key, Wanted]) -> dict[Key, dict[str, int]]:
    by_scheme: dict[str, dict[str, list[str]]] = defaultdict(dict)
    names = {"\x1f".join(key): key for key in wanted}
    for name, key in names.items():
        by_scheme[SCHEMES[key[0]]][name] = sorted(wanted[key].texts)
    found: Ranks = {}
    for scheme, groups in by_scheme.items():
        found |= orders()[scheme](groups)
    return {names[name]: ranks for name, ranks in found.items()}


def stored(wanted: dict[Key, Wanted], ranks: dict[Key, dict[str, int]]) -> dict[int, tuple[Key, str, str]]:
    """Store the package versions; return {id: (package, release, version)}."""
    rows: list[PackageVersion] = []
    about: list[tuple[Key, str, str]] = []
    for key, row in wanted.items():
        scheme = SCHEMES[key[0]]
        texts = sorted(ranks[key])
        step = max(1, len(texts) // VERSIONS_MAX)
        for release in sorted(row.releases):
            for text in texts[::step]:
                about.append((key, release, text))
                rows.append(
                    PackageVersion(
                        purl=f"pkg:generic/{len(rows)}",
                        type="generic",
                        name=key[1][:255],
                        version=text,
                        ecosystem=key[0],
                        release=release,
                        match_name=key[1],
                        match_version=text,
                        scheme=scheme,
                        version_key=version_key(scheme, text),
                    )
                )
    made = PackageVersion.objects.bulk_create(rows, batch_size=2000)
    return {row.pk: each for row, each in zip(made, about, strict=True)}


def compared(chosen: list[dict[str, Any]]) -> tuple[int, int, list[Any]]:
    """Decide all pairs twice; return (pairs, affected ones, differences). What the tool cannot order is no pair."""
    wanted = packages_of(chosen)
    ranks = ranks_of(wanted)
    versions = stored(wanted, ranks)
    match_packages(list(versions))
    live = Match.objects.filter(valid_to=None, state="open").values_list("package_id", "advisory__osv_id")
    ours: dict[int, set[str]] = defaultdict(set)
    for package_id, osv_id in live.iterator(chunk_size=20_000):
        ours[package_id].add(osv_id)
    pairs = affected = 0
    differing: list[Any] = []
    for pk, (key, release, text) in versions.items():
        verdicts: dict[str, list[bool | None]] = defaultdict(list)
        for osv_id, of_release, entry in wanted[key].entries:
            if of_release in {"", release}:
                verdicts[osv_id].append(is_affected(entry, text, ranks[key]))
        for osv_id, found in verdicts.items():
            if True not in found and None in found:
                continue
            pairs += 1
            affected += True in found
            if (True in found) != (osv_id in ours[pk]):
                differing.append((osv_id, key, release, text, True in found))
        if strange := ours[pk] - verdicts.keys():
            differing.append((sorted(strange)[:3], key, release, text, "no entry"))
    return pairs, affected, differing


def exported(chosen: list[tuple[str, dict[str, Any]]], folder: Path) -> Path:
    """Write records as an export, and return its folder."""
    by_folder: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, record in chosen:
        by_folder[name].append(record)
    for name, found in by_folder.items():
        (folder / name).mkdir(parents=True)
        with (folder / name / "modified_id.csv").open("w") as index:
            csv.writer(index).writerows([record["modified"], record["id"]] for record in found)
        for record in found:
            (folder / name / f"{record['id']}.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("root", [DEMO, SHARED], ids=["demonstration", "feeds"])
def test_some_packages_are_decided_as_the_schema_says(root: Path, tmp_path: Path) -> None:
    if not root.is_dir():
        pytest.skip("../shared/data/osv is not there")
    every = list(records(root))
    names: dict[str, set[Key]] = defaultdict(set)
    for _, record in every:
        for entry in record.get("affected", [])[:20]:
            names[SCHEMES.get(key_of(entry)[0][0], "")].add(key_of(entry)[0])
    chance = random.Random(7)
    some: set[Key] = set()
    for scheme in sorted(orders()):
        some |= set(chance.sample(sorted(names[scheme]), min(6, len(names[scheme]))))
    chosen = [
        (folder, record)
        for folder, record in every
        if any(key_of(entry)[0] in some for entry in record.get("affected", [])[:20])
    ][:600]
    report = sync_feed(str(exported(chosen, tmp_path / "export")), feed_name="some", actor=system_user())
    assert report.error_count == 0
    pairs, affected, differing = compared([record for _, record in chosen])
    assert differing == []
    assert pairs > 300
    assert 0.05 < affected / pairs < 0.95  # both answers occur often


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_whole_database_is_decided_as_the_schema_says() -> None:
    if not SHARED.is_dir():
        pytest.skip("../shared/data/osv is not there")
    if absent := [reason for reason in missing().values() if reason]:
        pytest.skip(f"{', '.join(sorted(set(absent)))}")
    every = list(records(SHARED))
    report = sync_feed(str(SHARED), feed_name="all", actor=system_user())
    assert report.errors == []
    pairs, affected, differing = compared([record for _, record in every])
    assert differing == []
    assert pairs > 500_000
    assert 0.05 < affected / pairs < 0.95
