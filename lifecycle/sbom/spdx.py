"""SPDX JSON documents: 2.2 and 2.3 (https://spdx.github.io/spdx-spec/v2.3/), and 3.0 as JSON-LD.

Both list the image itself, its layers, files and the distribution as packages too. These are not counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from lifecycle.sbom.documents import Document, DocumentRefused, entries, inner, text

VERSIONS: Final = frozenset({"SPDX-2.2", "SPDX-2.3"})
_VERSION_3: Final = re.compile(r"3\.0(?:\.[0-9]+)?")
_NOTHING: Final = frozenset({"NOASSERTION", "NONE", ""})
_NO_PACKAGES: Final = frozenset({"CONTAINER", "FILE", "OPERATING-SYSTEM", "OPERATINGSYSTEM"})
# What trivy before 0.40 lists without a purpose: the image, the distribution, and each lock file or binary.
_TRIVY: Final = ("SPDXRef-ContainerImage-", "SPDXRef-OperatingSystem-", "SPDXRef-Application-")
_LAYER: Final = re.compile(r"(?:sha256:)?[a-f0-9]{64}")
_BUILT_FROM: Final = re.compile(r"built package from: (\S+)(?: (\S+))?")  # trivy
_LAYER_ID: Final = re.compile(r"LayerDiffID: (sha256:[a-f0-9]{64})")


def read_json(value: Mapping[str, Any]) -> Document:
    """Return what an SPDX 2 document lists. Raises DocumentRefused."""
    version = text(value, "spdxVersion", "")
    if version not in VERSIONS:
        raise DocumentRefused(f"/spdxVersion {version[:20]!r}: only SPDX 2.2, 2.3 and 3.0 are read.")
    document = Document(f"SPDX {version.removeprefix('SPDX-')} JSON", tool=_tool(value))
    for number, package in enumerate(entries(value, "packages", "")):
        place = f"/packages/{number}"
        name, release = text(package, "name", place), text(package, "versionInfo", place)
        identity = text(package, "SPDXID", place)
        purpose = text(package, "primaryPackagePurpose", place)
        if purpose == "OPERATING-SYSTEM" or identity.startswith(_TRIVY[1]):
            document.distro = document.distro or f"{name}-{release}"[:60]
        purl = _purl(package, place)
        if not purl and (purpose in _NO_PACKAGES or identity.startswith(_TRIVY) or _LAYER.fullmatch(name)):
            continue
        source = _BUILT_FROM.search(text(package, "sourceInfo", place))
        layer = _LAYER_ID.search(_joined(package.get("attributionTexts")))
        declared = text(package, "licenseDeclared", place)
        document.add(
            place=place,
            purl=purl,
            name=name,
            version="" if release in _NOTHING else release,
            source_name=source[1] if source else "",
            source_version=source[2] or "" if source else "",
            layer=layer[1] if layer else "",
            licences=[] if declared in _NOTHING else [declared],
        )
    return document


def _joined(texts: object) -> str:
    return " ".join(map(str, texts)) if isinstance(texts, list) else ""


def _purl(package: Mapping[str, Any], place: str) -> str:
    for number, entry in enumerate(entries(package, "externalRefs", place)):
        where = f"{place}/externalRefs/{number}"
        if text(entry, "referenceType", where) == "purl":
            return text(entry, "referenceLocator", where)
    return ""


def _tool(value: Mapping[str, Any]) -> str:
    creators = inner(value, "creationInfo", "").get("creators")
    for creator in creators if isinstance(creators, list) else ():
        if isinstance(creator, str) and creator.startswith("Tool:"):
            return creator.removeprefix("Tool:").strip().replace("\x00", "")[:80]
    return ""


def read_json_ld(value: Mapping[str, Any]) -> Document:
    """Return what an SPDX 3.0 document lists. Raises DocumentRefused."""
    elements = entries(value, "@graph", "")
    versions = [str(entry.get("specVersion")) for entry in elements if entry.get("type") == "CreationInfo"]
    if not versions or not all(map(_VERSION_3.fullmatch, versions)):
        named = versions[0][:20] if versions else "missing"
        raise DocumentRefused(f"/@graph: specVersion {named!r}: only SPDX 2.2, 2.3 and 3.0 are read.")
    tools = [str(entry.get("name") or "") for entry in elements if entry.get("type") == "Tool"]
    document = Document(f"SPDX {versions[0]} JSON", tool=tools[0].replace("\x00", "")[:80] if tools else "")
    declared = _declared(elements)
    for number, element in enumerate(elements):
        if element.get("type") == "software_Package":
            _add(document, element, f"/@graph/{number}", declared)
    return document


def _add(document: Document, element: Mapping[str, Any], place: str, declared: Mapping[str, list[str]]) -> None:
    name, release = text(element, "name", place), text(element, "software_packageVersion", place)
    purpose = text(element, "software_primaryPurpose", place).upper()
    if purpose == "OPERATINGSYSTEM":
        document.distro = document.distro or f"{name}-{release}"[:60]
    purl = text(element, "software_packageUrl", place)
    for order, entry in enumerate(entries(element, "externalIdentifier", place)):
        where = f"{place}/externalIdentifier/{order}"
        if not purl and text(entry, "externalIdentifierType", where) == "packageUrl":
            purl = text(entry, "identifier", where)
    if not purl and (purpose in _NO_PACKAGES or _LAYER.fullmatch(name)):
        return
    source = _BUILT_FROM.search(text(element, "software_sourceInfo", place))
    document.add(
        place=place,
        purl=purl,
        name=name,
        version=release,
        source_name=source[1] if source else "",
        source_version=source[2] or "" if source else "",
        licences=declared.get(text(element, "spdxId", place), []),
    )


def _declared(elements: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return {id of a package: the licence expressions that it declares}."""
    expressions = {
        str(entry.get("spdxId")): str(entry.get("simplelicensing_licenseExpression") or "")
        for entry in elements
        if entry.get("type") == "simplelicensing_LicenseExpression"
    }
    found: dict[str, list[str]] = {}
    for entry in elements:
        if entry.get("type") != "Relationship" or entry.get("relationshipType") != "hasDeclaredLicense":
            continue
        targets = entry.get("to")
        names = [expressions.get(str(target), "") for target in targets] if isinstance(targets, list) else []
        found.setdefault(str(entry.get("from")), []).extend(name for name in names if name not in _NOTHING)
    return found
