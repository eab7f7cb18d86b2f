"""Edges of advisories and package identity: one small record for each kind, and the verdict that is right."""

from __future__ import annotations

import io
import json
import zipfile
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

import pytest
from django.core.management import call_command
from packageurl.validate import DEFINITIONS_BY_TYPE

from lifecycle.advisories.models import Advisory, Match
from lifecycle.advisories.records import parse_record
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions.coordinates import coordinates
from tests.factories.advisories import record

pytestmark = pytest.mark.django_db

SHARED = Path(__file__).parents[4] / "shared"
CASES = SHARED / "cases"
OSV = SHARED / "data" / "osv"
ALMA = "pkg:rpm/almalinux/hull-libs@2.0-1.el9?arch=x86_64&distro=almalinux-9.4"


def lines_of(*purls: str, path: Path) -> list[dict]:
    file = path / "purls.txt"
    file.write_text("\n".join(purls))
    out = io.StringIO()
    call_command("findings", "--purls", str(file), "--json", stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def verdicts(*purls: str, path: Path) -> dict[str, list[tuple[str, str | None, str]]]:
    """Return, for each purl, its (state, fixed version, reason)."""
    found: dict[str, list[tuple[str, str | None, str]]] = {purl: [] for purl in purls}
    for line in lines_of(*purls, path=path):
        found[line["purl"]].append((line["state"], line["fixed_version"], line.get("reason", "")))
    return found


def put(export, ecosystem: str, name: str, events: list[dict], osv_id: str = "SYN-1") -> None:
    export.put(ecosystem.partition(":")[0], record(osv_id, name=name, ecosystem=ecosystem, events=events))


def below(fix: str) -> list[dict]:
    return [{"introduced": "0"}, {"fixed": fix}]


def test_almalinux_advisories_name_binary_packages(export, tmp_path):
    put(export, "AlmaLinux:9", "hull-libs", below("2.0-3.el9"))
    put(export, "AlmaLinux:9", "hull", below("9.9-9.el9"), "SYN-2")
    export.sync()
    with_source = f"{ALMA}&upstream=hull-2.0-1.el9.src.rpm"
    fixed = ALMA.replace("2.0-1", "2.0-3")
    found = verdicts(ALMA, with_source, fixed, path=tmp_path)
    assert found == {ALMA: [("open", "2.0-3.el9", "")], with_source: [("open", "2.0-3.el9", "")], fixed: []}


def test_almalinux_package_keeps_its_own_epoch_and_version(export, tmp_path):
    """A perl module has another version and epoch than the source package perl."""
    put(export, "AlmaLinux:8", "perl-Errno", below("1.28-423.el8"))
    put(export, "AlmaLinux:8", "perl", below("4:5.26.3-423.el8"), "SYN-2")
    export.sync()
    row = coordinates(
        "pkg:rpm/alma/perl-Errno@1.28-423.el8?distro=alma-8.7", source_name="perl", source_version="5.26.3-423.el8"
    )
    assert (row.name, row.version) == ("perl-Errno", "1.28-423.el8")
    old = "pkg:rpm/alma/perl@5.26.3-422.el8?epoch=4&distro=alma-8.7"
    new = "pkg:rpm/alma/perl@5.26.3-423.el8?epoch=4&distro=alma-8.7"
    module = "pkg:rpm/alma/perl-Errno@1.28-423.el8?distro=alma-8.7&upstream=perl-5.26.3-423.el8.src.rpm"
    assert verdicts(old, new, module, path=tmp_path) == {old: [("open", "4:5.26.3-423.el8", "")], new: [], module: []}


def test_rocky_advisories_name_source_packages(export, tmp_path):
    put(export, "Rocky Linux:9", "hull", below("2.0-3.el9"))
    export.sync()
    purl = "pkg:rpm/rocky/hull-libs@2.0-1.el9?distro=rocky-9.4&upstream=hull-2.0-1.el9.src.rpm"
    assert verdicts(purl, path=tmp_path) == {purl: [("open", "2.0-3.el9", "")]}


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(("ecosystem", "kind"), [("Maven", "maven/org.acme/core"), ("PyPI", "pypi/org.acme-core")])
def test_fix_is_the_end_of_overlapping_entries_in_any_order(export, tmp_path, ecosystem, kind, is_reversed):
    name = "org.acme:core" if ecosystem == "Maven" else "org.acme-core"
    made = record("SYN-1", name=name, ecosystem=ecosystem, fixed="2.0")
    made["affected"] += record("SYN-1", name=name, ecosystem=ecosystem, fixed="3.0")["affected"]
    if is_reversed:
        made["affected"].reverse()
    export.put(ecosystem, made)
    export.sync()
    purl = f"pkg:{kind}@1.0"
    assert verdicts(purl, path=tmp_path) == {purl: [("open", "3.0", "")]}


def test_entry_for_all_releases_also_moves_the_fix_of_one_release(export, tmp_path):
    made = record("SYN-1", name="hull", ecosystem="Debian:12", fixed="2.0-1")
    made["affected"] += record("SYN-1", name="hull", ecosystem="Debian", fixed="3.0-1")["affected"]
    export.put("Debian", made)
    export.sync()
    purl = "pkg:deb/debian/hull@1.0-1?distro=debian-12"
    assert verdicts(purl, path=tmp_path) == {purl: [("open", "3.0-1", "")]}


REPOSITORY = "https://packages.example.org/8"
PUBLIC = DEFINITIONS_BY_TYPE["composer"].default_repository_url
ASSUMED = "assumed to be from packages.example.org/8, because the package URL names no repository"


@pytest.mark.parametrize(
    ("purl", "expected"),
    [
        ("pkg:composer/acme/module@1.2.0?repository_url=https://packages.example.org/8", [("open", "1.3.0", "")]),
        ("pkg:composer/acme/module@1.2.0?repository_url=Packages.example.org/8/", [("open", "1.3.0", "")]),
        ("pkg:composer/acme/module@1.2.0", [("open", "1.3.0", ASSUMED)]),
        ("pkg:composer/acme/module@1.3.0", []),
        (f"pkg:composer/acme/module@1.2.0?repository_url={PUBLIC}", []),
        ("pkg:composer/acme/module@1.2.0?repository_url=https://packages.example.org/7", []),
    ],
)
def test_advisory_for_one_repository_matches_packages_that_can_be_from_it(export, tmp_path, purl, expected):
    put(export, f"Packagist:{REPOSITORY}", "acme/module", below("1.3.0"))
    export.put("Packagist", record("SYN-OTHER", name="acme/other", ecosystem="Packagist", fixed="2.0"))
    export.sync()
    assert verdicts(purl, path=tmp_path) == {purl: expected}


def test_advisory_for_its_own_and_another_repository_assumes_nothing(export, tmp_path):
    made = record("SYN-1", name="acme:core", ecosystem="Maven", fixed="1.3")
    made["affected"] += record("SYN-1", name="acme:core", ecosystem="Maven:https://maven.example.org", fixed="1.4")[
        "affected"
    ]
    export.put("Maven", made)
    export.sync()
    plain = "pkg:maven/acme/core@1.2"
    other = "pkg:maven/acme/core@1.3?repository_url=https://maven.example.org/"
    central = f"pkg:maven/acme/core@1.3?repository_url={DEFINITIONS_BY_TYPE['maven'].default_repository_url}"
    assert verdicts(plain, other, central, path=tmp_path) == {
        plain: [("open", "1.4", "")], other: [("open", "1.4", "")], central: [],
    }  # fmt: skip


def test_long_repository_address_is_no_reason_to_skip_an_advisory(export, tmp_path):
    address = "https://packages.example.org/" + "a" * 200
    put(export, f"PyPI:{address}", "hull", below("1.3"))
    export.sync()
    purl = f"pkg:pypi/hull@1.2?repository_url={address}"
    assert verdicts(purl, path=tmp_path) == {purl: [("open", "1.3", "")]}


@pytest.mark.parametrize(
    ("advisory", "purl", "states"),
    [
        (("crates.io", "s", [{"introduced": "0.1"}, {"last_affected": "0.2"}]), "pkg:cargo/s@0.1.5", ["unknown"]),
        (("npm", "short", below("2.0")), "pkg:npm/short@1.9.9", ["unknown"]),
        (("Alpine:v3.14", "bad", below("1.7.5.-r1")), "pkg:apk/alpine/bad@1.7.4-r0?distro=3.14.8", ["unknown"]),
        (("Alpine:v3.14", "tls", below("3.3.4-r0")), "pkg:apk/alpine/tls@3.3.3p1-r2?distro=3.14.8", ["open"]),
        (("Alpine:v3.14", "tls", below("3.3.3p1-r2")), "pkg:apk/alpine/tls@3.3.3p1-r1?distro=3.14.8", ["open"]),
        (("Alpine:v3.14", "tls", below("3.3.3p1-r2")), "pkg:apk/alpine/tls@3.3.3p1-r2?distro=3.14.8", []),
        (("Packagist", "acme/short", below("2.1.0")), "pkg:composer/acme/short@2.1", []),
        (("Packagist", "acme/short", below("2.1.0")), "pkg:composer/acme/short@2.0.9", ["open"]),
        (("Packagist", "a/s", [{"introduced": "0"}, {"last_affected": "2.1"}]), "pkg:composer/a/s@2.1.0", ["open"]),
        (("Packagist", "acme/short", below("2.1")), "pkg:composer/acme/short@2.1.0-rc1", ["open"]),
        (("Maven", "org.acme:core", below("9.0.0-M11")), "pkg:maven/org.acme/core@9.0.0.M4", ["open"]),
    ],
)  # fmt: skip
def test_versions_as_real_packages_have_them(export, tmp_path, advisory, purl, states):
    put(export, *advisory)
    export.sync()
    assert [line["state"] for line in lines_of(purl, path=tmp_path)] == states


@pytest.mark.parametrize(
    ("advisory", "fix", "purl"),
    [
        (("NuGet", "Acme.Core"), "2.0.0", "pkg:dotnet-core/Acme.Core@1.9.0"),
        (("NuGet", "Acme.Core"), "2.0.0", "pkg:dotnet/Acme.Core@1.9.0"),
        (("PyPI", "acme-core"), "2.0", "pkg:python-pkg/Acme_Core@1.9"),
        (("PyPI", "acme-core"), "2.0", "pkg:python/Acme_Core@1.9"),
        (("npm", "@acme/core"), "2.0.0", "pkg:node-pkg/%40acme/core@1.9.0"),
        (("RubyGems", "acme"), "2.0", "pkg:bundler/acme@1.9"),
        (("Maven", "org.acme:core"), "2.0", "pkg:java-archive/org.acme/core@1.9"),
        (("Go", "example.com/acme"), "2.0.0", "pkg:gobinary/example.com/acme@v1.9.0"),
        (("crates.io", "acme"), "2.0.0", "pkg:rust-crate/acme@1.9.0"),
        (("Packagist", "acme/core"), "2.0", "pkg:php-composer/acme/core@1.9"),
        (("Alpine:v3.14", "acme"), "2.0-r0", "pkg:alpine/acme@1.9-r0?arch=x86_64&distro=alpine-3.14.8"),
        (("Debian:12", "acme"), "2.0-1", "pkg:debian/acme@1.9-1?distro=debian-12"),
        (("Debian:12", "acme"), "2.0-1", "pkg:dpkg/debian/acme@1.9-1?distro=debian-12"),
        (("Ubuntu:22.04:LTS", "acme"), "2.0-1", "pkg:ubuntu/acme@1.9-1?distro=ubuntu-22.04"),
        (("AlmaLinux:9", "acme"), "2.0-1", "pkg:alma/acme@1.9-1?distro=alma-9.4"),
        (("Rocky Linux:9", "acme"), "2.0-1", "pkg:rocky/acme@1.9-1?distro=rocky-9.4"),
        (("Wolfi", "acme"), "2.0-r0", "pkg:wolfi/acme@1.9-r0"),
    ],
)
def test_types_of_older_scanners_are_read(export, tmp_path, advisory, fix, purl):
    put(export, *advisory, below(fix))
    export.sync()
    assert verdicts(purl, path=tmp_path) == {purl: [("open", fix, "")]}


def test_type_of_a_distribution_that_is_never_matched_is_not_taken_for_another(export, tmp_path):
    put(export, "AlmaLinux:9", "acme", below("2.0-1"))
    export.sync()
    for purl in ("pkg:redhat/acme@1.9-1?distro=redhat-9.4", "pkg:centos/acme@1.9-1?distro=centos-9"):
        assert [state for state, _, _ in verdicts(purl, path=tmp_path)[purl]] == ["unknown"]


@pytest.mark.parametrize(
    ("purl", "advisories"),
    [
        ("pkg:golang/example.com/pgx@v5.5.0#v5", ["SYN-V5"]),
        ("pkg:golang/example.com/pgx/v5@v5.5.0", ["SYN-V5"]),
        ("pkg:golang/example.com/pgx@v3.6.0", ["SYN-V3"]),
        ("pkg:golang/example.com/sdk@v1.0.0#sdk/storage", ["SYN-SUB"]),
        ("pkg:golang/example.com/sdk@v1.0.0", []),
    ],
)
def test_subpath_of_a_go_purl_is_the_end_of_the_module_path(export, tmp_path, purl, advisories):
    put(export, "Go", "example.com/pgx/v5", below("5.5.4"), "SYN-V5")
    put(export, "Go", "example.com/pgx", below("4.0.0"), "SYN-V3")
    put(export, "Go", "example.com/sdk/sdk/storage", below("1.1.0"), "SYN-SUB")
    export.sync()
    assert [line["advisory"] for line in lines_of(purl, path=tmp_path)] == advisories


def test_upgrade_derives_stored_packages_and_records_again(export, stored):
    """Rows of an older KEY_VERSION: a package with an old key, and a record whose `modified` did not change."""
    export.put("Packagist", record("SYN-1", name="acme/short", ecosystem="Packagist", fixed="2.1.0"))
    export.sync()
    package = stored("pkg:composer/acme/short@2.1")
    PackageVersion.objects.update(version_key=b"\x00", problem="", key_version=1)
    Advisory.objects.update(key_version=1)
    assert export.sync().stored == 1
    package.refresh_from_db()
    assert bytes(package.version_key) == coordinates(package.purl).key
    assert not Match.objects.filter(valid_to=None).exists()
    assert (export.sync().stored, PackageVersion.objects.get().key_version) == (0, 2)


def _sync(location: Path, feed: str) -> None:
    call_command("sync_advisories", "--from", str(location), "--feed", feed, stdout=io.StringIO())


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not on this machine")
def test_cases_from_outside_agree():
    folder = CASES / "advisory-edges"
    _sync(folder / "feed", "edges")
    out = io.StringIO()
    call_command("findings", "--purls", str(folder / "purls.txt"), "--json", stdout=out)
    found = defaultdict(list)
    for line in map(json.loads, out.getvalue().splitlines()):
        found[line["purl"].removeprefix("pkg:").partition("?")[0]].append(
            (line["advisory"], line["state"], line["fixed_version"])
        )
    assert found["rpm/almalinux/libdemo-libs@2.0-1.el9"] == [("SYN-ALMA-1", "open", "2.0-3.el9")] * 2
    assert found["composer/acme/kernel@v5.2.14"] == [("SYN-TOUCH-1", "open", "5.3.12")]
    assert found["pypi/acme-touch@1.5"] == [("SYN-TOUCH-2", "open", "2.4")]
    assert found["maven/org.acme/core@1.0"] == [("SYN-MVN-1", "open", "3.0")]
    assert found["maven/org.acme/core2@1.0"] == [("SYN-MVN-2", "open", "3.0")]
    assert found["cargo/acme-short@0.1.5"] == [("SYN-SEM-1", "unknown", None)]
    assert found["apk/alpine/demobad@1.7.4-r0"] == [("SYN-APKBAD", "unknown", None)]
    assert found["apk/alpine/demotls@3.3.3p1-r2"] == [("SYN-APK-1", "open", "3.3.4-r0")]
    assert found["composer/acme/module@1.2.0"] == [("SYN-REPO-1", "open", "1.3.0")] * 2
    assert found["composer/acme/short@2.1"] == []
    assert found["composer/acme/short2@2.1.0"] == [("SYN-PHP-2", "open", None)]
    assert found["dotnet-core/Acme.Core@1.9.0"] == found["nuget/Acme.Core@1.9.0"] == [("SYN-NUGET", "open", "2.0.0")]
    assert found["alpine/demotls@3.3.3-r2"] == [("SYN-APK-1", "open", "3.3.4-r0")]
    call_command("import_inventory", str(folder / "row.jsonl"), stdout=io.StringIO())
    out = io.StringIO()
    call_command("findings", "--image", "sha256:" + "ab" * 32, "--json", stdout=out)
    assert [json.loads(line)["advisory"] for line in out.getvalue().splitlines()] == ["SYN-ALMA-1"]


@pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not on this machine")
def test_go_case_from_outside_agrees():
    folder = CASES / "go-purl-subpath"
    _sync(folder / "feed", "hb-go")
    out = io.StringIO()
    call_command("findings", "--purls", str(folder / "purls.txt"), "--json", stdout=out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    expected = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
    assert [(line["advisory"], line["purl"]) for line in lines] == [
        (line["advisory"], line["purl"]) for line in expected
    ]


KINDS = {
    "AlmaLinux": "rpm/almalinux", "Alpine": "apk/alpine", "Bitnami": "bitnami", "Debian": "deb/debian", "Go": "golang",
    "Maven": "maven", "NuGet": "nuget", "Packagist": "composer", "PyPI": "pypi", "Rocky Linux": "rpm/rocky",
    "RubyGems": "gem", "Ubuntu": "deb/ubuntu", "Wolfi": "apk/wolfi", "crates.io": "cargo", "npm": "npm",
}  # fmt: skip
IDS = {
    "AlmaLinux": "almalinux-",
    "Alpine": "alpine-",
    "Debian": "debian-",
    "Rocky Linux": "rocky-",
    "Ubuntu": "ubuntu-",
}


def purl_of(ecosystem: str, release: str, name: str, version: str) -> str:
    path = name.replace(":", "/") if ecosystem == "Maven" else name
    distro = f"?distro={IDS[ecosystem]}{release.removeprefix('v')}" if release and ecosystem in IDS else ""
    coded = "/".join(quote(part, safe="") for part in path.split("/"))
    return f"pkg:{KINDS[ecosystem]}/{coded}@{quote(version, safe=':+~')}{distro}"


@pytest.mark.skipif(not OSV.is_dir(), reason="no feeds on this machine")
def test_named_fix_of_real_records_is_never_affected_by_the_same_advisory(tmp_path):
    """Ask `findings` for the version where each interval begins, then for the fixes that it names."""
    asked: dict[str, tuple[str, str, str]] = {}
    for archive in sorted(OSV.glob("*/all.zip")):
        folder = tmp_path / "feed" / archive.parent.name
        folder.mkdir(parents=True)
        with zipfile.ZipFile(archive) as opened:
            names = sorted(opened.namelist())
            for name in names[:: max(1, len(names) // 120)]:
                content = opened.read(name)
                (folder / name).write_bytes(content)
                for item in parse_record(content, osv_id=name.removesuffix(".json")).affected[:40]:
                    if item.ecosystem in KINDS and not item.release.startswith("Pro:"):
                        start = item.interval.low_text or {"apk": "0-r0", "rpm": "0-0"}.get(item.scheme, "0.0.0")
                        package = (item.ecosystem, item.release, item.name)
                        asked[purl_of(*package, start)] = package
    _sync(tmp_path / "feed", "real")
    named: dict[str, set[str]] = defaultdict(set)
    for line in lines_of(*sorted(asked), path=tmp_path):
        if line["state"] == "open" and line["fixed_version"]:
            named[purl_of(*asked[line["purl"]], line["fixed_version"])].add(line["advisory"])
    again = lines_of(*sorted(named), path=tmp_path)
    assert [line for line in again if line["state"] == "open" and line["advisory"] in named[line["purl"]]] == []
    assert len(named) > 400
