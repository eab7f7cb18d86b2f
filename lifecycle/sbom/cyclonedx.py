"""CycloneDX JSON documents (https://cyclonedx.org/docs/1.7/json/). The XML reader makes the same shape of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from lifecycle.sbom.documents import DEPTH_MAX, Document, DocumentRefused, entries, inner, text

VERSIONS: Final = frozenset({"1.2", "1.3", "1.4", "1.5", "1.6", "1.7"})
# Components that are no packages: the distribution, files, the image itself, and what has no versions in advisories.
_NO_PACKAGES: Final = frozenset({
    "container", "cryptographic-asset", "data", "device", "device-driver", "file", "machine-learning-model",
    "operating-system", "platform",
})  # fmt: skip
# Properties of scanners that say more than the purl: the source package, and the layer.
_SOURCE_NAMES: Final = ("syft:metadata:source", "syft:metadata:originPackage", "aquasecurity:trivy:SrcName")
_SOURCE_VERSIONS: Final = ("syft:metadata:sourceVersion", "aquasecurity:trivy:SrcVersion")
_LAYERS: Final = ("syft:location:0:layerID", "aquasecurity:trivy:LayerDiffID", "aquasecurity:trivy:LayerDigest")
_LOCK_FILE: Final = "aquasecurity:trivy:Type"  # trivy lists each lock file as an application


def read_json(value: Mapping[str, Any]) -> Document:
    """Return what a CycloneDX document lists. Raises DocumentRefused."""
    if value.get("bomFormat") != "CycloneDX":
        raise DocumentRefused("/bomFormat is not CycloneDX.")
    return read(value, "JSON")


def read(value: Mapping[str, Any], encoding: str) -> Document:
    """Return what a CycloneDX document in the shape of JSON lists. Raises DocumentRefused."""
    version = text(value, "specVersion", "")
    if version not in VERSIONS:
        raise DocumentRefused(f"/specVersion {version[:20]!r}: only CycloneDX 1.2 to 1.7 is read.")
    metadata = inner(value, "metadata", "")
    document = Document(f"CycloneDX {version} {encoding}", tool=_tool(metadata))
    for place, component in _walk(value):
        _add(document, component, component["#line"] if encoding == "XML" else place)
    return document


def _walk(value: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (JSON pointer, component) of all components, also of those in components, in the order of the document."""
    stack = [iter(_placed(value, ""))]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        yield found
        place, component = found
        if component.get("components"):
            if len(stack) >= DEPTH_MAX:
                raise DocumentRefused(f"{place}: components are nested deeper than {DEPTH_MAX}.")
            stack.append(iter(_placed(component, place)))


def _placed(value: Mapping[str, Any], place: str) -> Iterable[tuple[str, dict[str, Any]]]:
    return ((f"{place}/components/{number}", entry) for number, entry in enumerate(entries(value, "components", place)))


def _add(document: Document, component: Mapping[str, Any], place: str) -> None:
    kind, purl = text(component, "type", place), text(component, "purl", place)
    name, version = text(component, "name", place), text(component, "version", place)
    properties = _properties(component, place)
    if kind == "operating-system":
        identity = properties.get("syft:distro:id") or name
        release = properties.get("syft:distro:versionID") or version
        document.distro = document.distro or (f"{identity}-{release}" if release else identity)[:60]
    if not purl and (kind in _NO_PACKAGES or (kind == "application" and _LOCK_FILE in properties)):
        return
    group = text(component, "group", place)
    document.add(
        place=place,
        purl=purl,
        name=f"{group}/{name}" if group else name,
        version=version,
        source_name=_first(properties, _SOURCE_NAMES),
        source_version=_first(properties, _SOURCE_VERSIONS),
        layer=_first(properties, _LAYERS),
        licences=_licences(component, place),
    )


def _properties(component: Mapping[str, Any], place: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, entry in enumerate(entries(component, "properties", place)):
        where = f"{place}/properties/{number}"
        found.setdefault(text(entry, "name", where), text(entry, "value", where))
    return found


def _first(properties: Mapping[str, str], names: Iterable[str]) -> str:
    return next((properties[name] for name in names if properties.get(name)), "")


def _licences(component: Mapping[str, Any], place: str) -> list[str]:
    found = []
    for number, entry in enumerate(entries(component, "licenses", place)):
        where = f"{place}/licenses/{number}"
        named = inner(entry, "license", where)
        found.append(
            text(entry, "expression", where)
            or text(named, "id", f"{where}/license")
            or text(named, "name", f"{where}/license")
        )
    return [name for name in found if name]


def _tool(metadata: Mapping[str, Any]) -> str:
    """Return the first tool: a list until 1.4, since 1.5 also an object with components. Its shape is never a fault."""
    tools = metadata.get("tools")
    if isinstance(tools, dict):
        tools = tools.get("components")
    if isinstance(tools, list) and tools and isinstance(tools[0], list):  # the same in XML
        tools = tools[0]
    first = tools[0] if isinstance(tools, list) and tools and isinstance(tools[0], dict) else {}
    words = [str(first.get(key) or "") for key in ("name", "version")]
    return " ".join(word for word in words if word).replace("\x00", "")[:80]
