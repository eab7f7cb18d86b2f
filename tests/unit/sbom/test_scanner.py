"""Parse syft's output into packages that can be stored."""

from __future__ import annotations

import json

from lifecycle.sbom.scanner import read_document


def test_nul_characters_are_removed():
    package = {"purl": "pkg:deb/debian/a@1", "version": "1\0", "upstreams": [{"name": "b\0c", "version": "\0"}]}
    document = {"artifacts": [package], "distro": {"id": "debian\0", "versionID": "12"}}
    content = read_document(json.dumps(document).encode(), [], [])
    assert content.distro == "debian-12"
    assert [(found.version, found.source_name, found.source_version) for found in content.packages] == [("1", "bc", "")]
