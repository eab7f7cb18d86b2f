"""Parse syft's output into packages that can be stored."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from lifecycle.sbom.scanner import read_document


def test_nul_characters_are_removed():
    package = {"purl": "pkg:deb/debian/a@1", "version": "1\0", "upstreams": [{"name": "b\0c", "version": "\0"}]}
    document = {"artifacts": [package], "distro": {"id": "debian\0", "versionID": "12"}}
    content = read_document(json.dumps(document).encode(), [], [])
    assert content.distro == "debian-12"
    assert [(found.version, found.source_name, found.source_version) for found in content.packages] == [("1", "bc", "")]


def test_licences_are_read_as_declared():
    entries = [
        [{"value": "MIT", "spdxExpression": "MIT"}, {"value": "GPL-2 or\n later"}],
        ["MIT", {"value": ""}, 3],
        [],
        None,
        [{"value": "x" * 900}],
    ]
    artifacts = [
        {"purl": f"pkg:deb/debian/p{n}@1", "name": f"p{n}", "licenses": given} for n, given in enumerate(entries)
    ]
    artifacts += [{"purl": f"pkg:npm/q{n}@1", "name": f"q{n}", "licenses": ["ISC"]} for n in range(30)]
    found = read_document(json.dumps({"artifacts": artifacts}).encode(), [], []).licences
    assert found.packages["MIT"] == ["p0", "p1"]
    assert found.packages["GPL-2 or later"] == ["p0"]
    assert found.packages["x" * 300] == ["p4"]
    assert len(found.packages["ISC"]) == 20
    assert found.undeclared_count == 2


def layer(path, files):
    with tarfile.open(path, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def artifact(purl, kind, *paths, layer_id="one"):
    name = purl.partition("?")[0].partition("@")[0].rpartition("/")[2]
    locations = [{"path": path, "layerID": layer_id, "annotations": {"evidence": "primary"}} for path in paths]
    return {"id": purl + layer_id, "purl": purl, "type": kind, "name": name, "locations": locations}


DEBIAN = "pkg:deb/debian/python3-hull@1.0-1%2Bdeb12u4?arch=all&distro=debian-12&upstream=hull"
OWN = "/usr/lib/python3/dist-packages/hull-1.0.egg-info/PKG-INFO"
PIP = "/usr/local/lib/python3.11/site-packages/hull-1.0.dist-info/METADATA"


def owners(tmp_path, artifacts, relationships=(), *, above=None):
    """Return (purl, owner) of the packages of languages in an image of two layers; the first has Debian's list."""
    lists = {"var/lib/dpkg/info/python3-hull.list": f"/.\n{OWN}\n"}
    layers = [layer(tmp_path / "1", lists), layer(tmp_path / "2", above or {})]
    document = {"artifacts": artifacts, "artifactRelationships": list(relationships)}
    content = read_document(json.dumps(document).encode(), ["one", "two"], layers)
    return [(found.purl, found.owner) for found in content.packages if not found.purl.startswith("pkg:deb/")]


def test_package_whose_files_dpkg_lists_is_owned_and_a_copy_beside_it_is_not(tmp_path):
    owned, copied = artifact("pkg:pypi/hull@1.0", "python", OWN), artifact("pkg:pypi/hull@1.0", "python", PIP)
    assert owners(tmp_path, [artifact(DEBIAN, "deb"), owned, copied]) == [
        ("pkg:pypi/hull@1.0", DEBIAN), ("pkg:pypi/hull@1.0", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "purl", "path"),
    [
        ("gem", "pkg:gem/hull@1.0", "/usr/share/rubygems-integration/all/specifications/hull.gemspec"),
        ("npm", "pkg:npm/hull@1.0.0", "/usr/share/nodejs/hull/package.json"),
        ("java-archive", "pkg:maven/org.hull/hull@1.0", "/usr/share/java/hull.jar"),
        ("go-module", "pkg:golang/example.com/hull@v1.0.0", "/usr/bin/hull"),
        ("rust-crate", "pkg:cargo/hull@1.0.0", "/usr/bin/hull"),
        ("php-composer", "pkg:composer/hull/hull@1.0", "/usr/share/php/hull/installed.json"),
    ],
)
@pytest.mark.parametrize("owner", ["deb/debian/hull@1.0-1", "rpm/rocky/hull@1.0-1.el9", "apk/alpine/hull@1.0-r0"])
def test_relationship_of_syft_makes_an_owner_for_each_language_and_package_manager(tmp_path, kind, purl, path, owner):
    parent = artifact(f"pkg:{owner}?distro=x-1", owner[:3])
    child = artifact(purl, kind, path)
    other = artifact(f"{purl}-other", kind, f"{path}.other")
    relation = {"parent": parent["id"], "child": child["id"], "type": "ownership-by-file-overlap",
                "metadata": {"files": [path]}}  # fmt: skip
    document = {"artifacts": [parent, child, other], "artifactRelationships": [relation]}
    packages = read_document(json.dumps(document).encode(), [], []).packages
    assert [found.owner for found in packages] == ["", parent["purl"], ""]


def test_file_that_a_later_layer_replaced_is_not_owned(tmp_path):
    replaced = artifact("pkg:pypi/hull@1.0", "python", OWN, layer_id="two")
    assert owners(tmp_path, [artifact(DEBIAN, "deb"), replaced]) == [("pkg:pypi/hull@1.0", "")]
    upgraded = {"var/lib/dpkg/info/python3-hull.list": f"{OWN}\n"}  # dpkg itself wrote it there
    assert owners(tmp_path, [artifact(DEBIAN, "deb"), replaced], above=upgraded) == [("pkg:pypi/hull@1.0", DEBIAN)]


def test_package_is_owned_only_if_all_of_its_evidence_is(tmp_path):
    both = artifact("pkg:pypi/hull@1.0", "python", OWN, PIP)
    assert owners(tmp_path, [artifact(DEBIAN, "deb"), both]) == [("pkg:pypi/hull@1.0", "")]


def test_removed_owner_and_other_relationships_make_no_owner(tmp_path):
    owned = artifact("pkg:pypi/hull@1.0", "python", OWN)
    assert owners(tmp_path, [owned]) == [("pkg:pypi/hull@1.0", "")]  # dpkg's list is there, the package is not
    library = artifact("pkg:pypi/dock@1.0", "python", PIP)
    relations = [
        {"parent": library["id"], "child": owned["id"], "type": "ownership-by-file-overlap"},
        {"parent": "?", "child": owned["id"], "type": "ownership-by-file-overlap"},
        {"parent": artifact(DEBIAN, "deb")["id"], "child": library["id"], "type": "contains"},
    ]
    found = owners(tmp_path, [artifact(DEBIAN, "deb"), owned, library], relations)
    assert found == [("pkg:pypi/hull@1.0", DEBIAN), ("pkg:pypi/dock@1.0", "")]
