"""SBOM documents of others: what they list, and what is refused with its reason and place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.core.errors import LifecycleError, LimitExceeded
from lifecycle.sbom import documents
from lifecycle.sbom.documents import DocumentRefused, Unnamed, read_document, read_value
from tests.fuzzing import json_values, mutated

SHARED = Path(__file__).parents[4] / "shared" / "data" / "sboms"
LAYER = "sha256:" + "a" * 64
CYCLONEDX = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "metadata": {"tools": {"components": [{"name": "syft", "version": "1.18.1"}]}},
    "components": [
        {"type": "operating-system", "name": "debian", "version": "12"},
        {"type": "library", "name": "openssl", "version": "3.0.11-1", "purl": "pkg:deb/debian/openssl@3.0.11-1",
         "properties": [{"name": "syft:metadata:source", "value": "openssl-src"},
                        {"name": "syft:location:0:layerID", "value": LAYER}],
         "licenses": [{"license": {"id": "Apache-2.0"}}, {"expression": "MIT OR ISC"}],
         "components": [{"type": "library", "group": "org.x", "name": "inner"}]},
        {"type": "file", "name": "/etc/passwd"},
        {"type": "application", "name": "package-lock.json",
         "properties": [{"name": "aquasecurity:trivy:Type", "value": "npm"}]},
        {"type": "library", "name": "broken", "version": "1", "purl": "npm/broken@1"},
        {"type": "library", "name": "loose", "purl": "pkg:npm/loose"},
        {"type": "container", "name": "app", "purl": "pkg:oci/app@sha256:1"},
    ],
}  # fmt: skip
SPDX = {
    "spdxVersion": "SPDX-2.3",
    "creationInfo": {"creators": ["Organization: x", "Tool: trivy-0.50"]},
    "packages": [
        {"SPDXID": "SPDXRef-1", "name": "debian", "versionInfo": "12", "primaryPackagePurpose": "OPERATING-SYSTEM"},
        {"SPDXID": "SPDXRef-2", "name": "musl", "versionInfo": "1.2.3-r0", "licenseDeclared": "MIT",
         "sourceInfo": "built package from: musl-src 1.2.3-r0", "attributionTexts": [f"LayerDiffID: {LAYER}"],
         "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:apk/alpine/musl@1.2.3-r0"}]},
        {"SPDXID": "SPDXRef-3", "name": "sha256:" + "b" * 64},
        {"SPDXID": "SPDXRef-4", "name": "left", "versionInfo": "NOASSERTION"},
    ],
}  # fmt: skip
SPDX_3 = {
    "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
    "@graph": [
        {"type": "CreationInfo", "specVersion": "3.0.1"},
        {"type": "Tool", "name": "syft"},
        {"type": "software_Package", "spdxId": "urn:1", "name": "a", "software_packageVersion": "1",
         "software_packageUrl": "pkg:pypi/a@1"},
        {"type": "software_Package", "spdxId": "urn:2", "name": "b",
         "externalIdentifier": [{"externalIdentifierType": "packageUrl", "identifier": "pkg:pypi/b@2"}]},
        {"type": "software_Package", "spdxId": "urn:3", "name": "c", "software_packageVersion": "3"},
        {"type": "simplelicensing_LicenseExpression", "spdxId": "urn:l", "simplelicensing_licenseExpression": "MIT"},
        {"type": "Relationship", "relationshipType": "hasDeclaredLicense", "from": "urn:1", "to": ["urn:l"]},
    ],
}  # fmt: skip
XML = """<?xml version="1.0"?>
<bom xmlns="http://cyclonedx.org/schema/bom/1.6" version="1">
  <metadata><tools><tool><vendor>x</vendor><name>maker</name><version>2</version></tool></tools>
    <component type="container"><name>the image</name></component></metadata>
  <components>
    <component type="library"><group>g</group><name>a</name><version>1</version><purl>pkg:maven/g/a@1</purl>
      <licenses><license><id>MIT</id></license></licenses><pedigree><ancestors><component type="library">
      <name>not in the image</name></component></ancestors></pedigree>
      <properties><property name="syft:location:0:layerID">%s</property></properties>
      <components><component type="library"><name>inner</name></component></components>
    </component>
  </components>
</bom>
""".replace("%s", LAYER)


def _read(value: object) -> documents.Document:
    return read_document(value.encode() if isinstance(value, str) else json.dumps(value).encode())


def test_documents_list_packages_with_their_source_layer_and_licence():
    cyclonedx = _read(CYCLONEDX)
    assert (cyclonedx.format, cyclonedx.tool, cyclonedx.distro) == ("CycloneDX 1.5 JSON", "syft 1.18.1", "debian-12")
    assert [package.purl for package in cyclonedx.packages] == ["pkg:deb/debian/openssl@3.0.11-1", "pkg:npm/loose"]
    assert (cyclonedx.packages[0].source_name, cyclonedx.layers) == ("openssl-src", [LAYER, ""])
    assert cyclonedx.unnamed == [
        Unnamed("/components/1/components/0", "org.x/inner", ""), Unnamed("/components/4", "broken", "1"),
    ]  # fmt: skip
    assert cyclonedx.licences.packages == {"Apache-2.0": ["openssl"], "MIT OR ISC": ["openssl"]}
    spdx = _read(SPDX)
    assert (spdx.format, spdx.tool, spdx.distro) == ("SPDX 2.3 JSON", "trivy-0.50", "debian-12")
    assert [(one.purl, one.source_name) for one in spdx.packages] == [("pkg:apk/alpine/musl@1.2.3-r0", "musl-src")]
    assert (spdx.layers, spdx.unnamed) == ([LAYER], [Unnamed("/packages/3", "left", "")])
    three = _read(SPDX_3)
    assert (three.format, three.tool) == ("SPDX 3.0.1 JSON", "syft")
    assert [package.purl for package in three.packages] == ["pkg:pypi/a@1", "pkg:pypi/b@2"]
    assert (three.unnamed, three.licences.packages) == ([Unnamed("/@graph/4", "c", "3")], {"MIT": ["a"]})
    xml = _read(XML)
    assert (xml.format, xml.tool, xml.layers) == ("CycloneDX 1.6 XML", "maker 2", [LAYER])
    assert [package.purl for package in xml.packages] == ["pkg:maven/g/a@1"]
    assert xml.unnamed == [Unnamed("line 10", "inner", "")]
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicate": CYCLONEDX}
    assert _read(statement).packages == cyclonedx.packages


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "The document is empty."),
        ("SPDXVersion: SPDX-2.3\n", "Line 1: SPDX tag-value documents are not read."),
        ("hello", "Line 1, column 1: neither a JSON object nor XML."),
        ('{"bomFormat": "CycloneDX",\n "components": [}', "Line 2, column 17: unexpected character"),
        ('{"a":' * 3000, "Line 1, column"),
        ({"hello": 1}, "/: this is no SBOM that can be read."),
        ({"bomFormat": "CycloneDX", "specVersion": "2.0"}, "/specVersion '2.0': only CycloneDX 1.2 to 1.7 is read."),
        ({"spdxVersion": "SPDX-2.1"}, "/spdxVersion 'SPDX-2.1': only SPDX 2.2, 2.3 and 3.0 are read."),
        ({"@graph": []}, "/@graph: specVersion 'missing'"),
        ({**CYCLONEDX, "components": {}}, "/components is not a list."),
        ({**CYCLONEDX, "components": [1]}, "/components/0 is not an object."),
        ({**CYCLONEDX, "components": [{"name": "a", "purl": 1}]}, "/components/0/purl is not a string."),
        (XML.replace("<bom ", "<!DOCTYPE bom><bom "), "Line 2, column 14: document types and entities are not"),
        (XML.replace("</bom>", ""), "Line 14, column 1: no element found."),
        (XML.replace("bom/1.6", "bom/9"), "/specVersion '9'"),
        ("<html/>", "Line 1, column 1: the first element is not a bom of CycloneDX."),
        ("<a>" * 500, "Line 1, column 1: the first element"),
        (XML.replace('"1.0"', '"1.0" encoding="utf-99"'), "the encoding of the document is not known"),
    ],
)  # fmt: skip
def test_a_bad_document_is_refused_with_its_reason_and_place(document, reason):
    with pytest.raises(DocumentRefused) as refused:
        _read(document)
    assert reason in refused.value.message


def test_documents_are_bounded(monkeypatch):
    nested: dict = {"type": "library", "name": "x"}
    for _ in range(documents.DEPTH_MAX + 1):
        nested = {"type": "library", "name": "x", "components": [nested]}
    with pytest.raises(DocumentRefused, match="nested deeper than 200"):
        read_value({**CYCLONEDX, "components": [nested]})
    with pytest.raises(DocumentRefused, match="elements are nested deeper than 400"):
        _read(XML.replace("<pedigree>", "<pedigree>" * 500))
    monkeypatch.setattr(documents, "COMPONENTS_MAX", 3)
    with pytest.raises(DocumentRefused, match=r"/components/5: the document lists more than 3 components"):
        _read(CYCLONEDX)
    monkeypatch.setattr(documents, "DOCUMENT_MAX", 10)
    with pytest.raises(LimitExceeded, match="larger than"):
        _read(CYCLONEDX)


@settings(max_examples=200, deadline=None)
@given(st.one_of(json_values(), *(mutated(one, json_values()) for one in (CYCLONEDX, SPDX, SPDX_3))))
def test_any_json_is_read_or_refused(value):
    try:
        document = read_value(value) if isinstance(value, dict) else _read(value)
    except (LifecycleError, UnicodeEncodeError):  # lone surrogates cannot be sent
        return
    assert len(document.packages) == len(document.layers)
    assert all("\0" not in package.purl + package.version for package in document.packages)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(XML)), st.integers(0, 40), st.text(alphabet='<>&/="\0 abcomponents!', max_size=8))
def test_any_xml_is_read_or_refused(start, length, words):
    try:
        read_document((XML[:start] + words + XML[start + length :]).encode())
    except LifecycleError:
        return


# Number of packages, and of components without a package URL; a text is the reason of the refusal.
REAL = {
    "syft-cyclonedx-docker.io-library-alpine.latest.json": (14, 0),
    "syft-cyclonedx-docker.io-library-busybox.latest.json": (0, 0),
    "syft-cyclonedx-docker.io-library-debian.latest.json": (96, 0),
    "syft-cyclonedx-docker.io-library-nginx.latest.json": (143, 0),
    "syft-cyclonedx-docker.io-library-redis.latest.json": (99, 0),
    "cern-lhc-vdm-editor-e564943__bom.json": (43, 0),
    "cern-lhc-vdm-editor-e564943__bom.xml": (43, 0),
    "keycloak-10.0.2__bom.json": (903, 0),
    "ascii-boxes-sbom-cdx.json": (0, 2),
    "flux_0.26.3_sbom.spdx": "SPDX tag-value documents are not read",
    "flux_0.26.3_sbom.spdx.json": (244, 0),
    "julia.spdx.json": (0, 34),
    "usbutils.spdx": "SPDX tag-value documents are not read",
    "spdx-bom-bitnami_oras": (0, 0), "spdx-bom-grafana_loki": (0, 0), "spdx-bom-hashicorp_http-echo": (0, 0),
    "spdx-syft-bitnami_oras": (15, 0), "spdx-syft-grafana_loki": (219, 1), "spdx-syft-hashicorp_http-echo": (0, 0),
    "spdx-tern-bitnami_oras": (0, 1), "spdx-tern-grafana_loki": (0, 17), "spdx-tern-hashicorp_http-echo": (0, 1),
    "spdx-trivy-bitnami_oras": (14, 0), "spdx-trivy-grafana_loki": (218, 0), "spdx-trivy-hashicorp_http-echo": (0, 0),
}  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real SBOMs are not on this machine")
def test_real_documents_load_or_are_refused_for_the_right_reason():
    found = {}
    for path in sorted(SHARED.glob("*/*")):
        if path.suffix == ".tsv":
            continue
        try:
            document = read_document(path.read_bytes())
            found[path.name.partition("-sha256")[0]] = (len(document.packages), document.unnamed_count)
        except DocumentRefused as error:
            found[path.name] = error.message.partition(": ")[2].partition(".")[0]
    assert found == REAL
