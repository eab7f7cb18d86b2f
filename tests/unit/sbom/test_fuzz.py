"""Any JSON is either parsed or refused with an error of ours: SBOM documents of syft, and rows of inventories."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.core.errors import LifecycleError
from lifecycle.sbom import inventories
from lifecycle.sbom.packages import key_of, owner_of
from lifecycle.sbom.scanner import read_document
from lifecycle.sbom.services import Content
from tests.fuzzing import json_values, mutated

PURLS = st.sampled_from(
    [
        "pkg:deb/debian/a@1?distro=debian-12",
        "pkg:pypi/a@1",
        "pkg:golang/a/b@v1#v5",
        "pkg:npm/%40a/b",
        "pkg:",
        "a\0",
        "é",
    ]
)
DOCUMENT = {
    "artifacts": [
        {"id": "1", "name": "a", "version": "1", "type": "deb", "purl": "pkg:deb/debian/a@1?distro=debian-12",
         "locations": [{"path": "/var/lib/dpkg/status", "layerID": "sha256:1"}], "upstreams": [{"name": "b"}],
         "metadata": {"source": "b", "sourceVersion": "2"}},
        {"id": "2", "name": "a", "version": "1", "type": "python", "purl": "pkg:pypi/a@1",
         "locations": [{"path": "/a", "layerID": "sha256:1", "annotations": {"evidence": "primary"}}]},
    ],
    "artifactRelationships": [
        {"parent": "1", "child": "2", "type": "ownership-by-file-overlap", "metadata": {"files": ["/a"]}}
    ],
    "distro": {"id": "debian", "versionID": "12"},
    "descriptor": {"name": "syft", "version": "1.18.1"},
}  # fmt: skip
ROW = {
    "repository": "shop/api", "registry": "registry.example.com", "tags": ["1"], "platform": "linux/arm64/v8",
    "manifest_digest": "sha256:" + "a" * 64, "image_id": "sha256:" + "b" * 64, "created": "2026-01-01T00:00:00Z",
    "diff_ids": ["sha256:" + "c" * 64], "layers": [None], "layer_sizes": [1], "os": {"name": "debian", "version": "12"},
    "packages": [{"purl": "pkg:pypi/a@1", "layer": 0, "version": "1", "source_name": "b", "owner": "pkg:deb/debian/a"}],
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(json_values() | mutated(DOCUMENT, PURLS))
def test_any_document_is_read_or_refused(document):
    try:
        content = read_document(json.dumps(document).encode(), ["sha256:1"], [])
    except LifecycleError:
        return
    assert isinstance(content, Content)
    assert all(isinstance(value, str) for item in content.packages for value in (item.purl, item.version, item.owner))


@settings(max_examples=150, deadline=None)
@given(json_values() | mutated(ROW, PURLS))
def test_any_row_is_read_or_refused(row):
    try:
        parsed = inventories._parse(1, json.dumps(row).encode(), inventories._Packages())
    except LifecycleError:
        return
    for package in parsed.packages or ():
        key_of(package)
        owner_of(package)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_are_refused(content):
    for parse in (
        lambda: read_document(content, [], []),
        lambda: inventories._parse(1, content, inventories._Packages()),
    ):
        try:
            parse()
        except LifecycleError:
            continue
