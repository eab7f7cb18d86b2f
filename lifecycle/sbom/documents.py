"""SBOM documents that an image or a person brings: which format it is, its limits, and what it lists.

The readers are our own (docs/adr/0017). They take what matching needs, accept what real tools write, and refuse a
document of another shape with the place of the fault: line and column, or a JSON pointer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.sbom.licences import Licences
from lifecycle.sbom.packages import PURL_MAX, Package

DOCUMENT_MAX: Final = 64 * 1024**2  # bytes
COMPONENTS_MAX: Final = 100_000
DEPTH_MAX: Final = 200  # of components in components, and of XML elements
UNNAMED_SHOWN: Final = 100
_TEXT_MAX: Final = 500
_PARTS_MAX: Final = 4_000_000  # objects and lists of a JSON document
_SUBJECT_PURLS: Final = ("pkg:oci/", "pkg:docker/")  # an image is no package of an image
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_BOM: Final = b"\xef\xbb\xbf"
_TAG_VALUE: Final = re.compile(rb"\s*(?:#[^\n]*\n\s*)*SPDXVersion:")


class DocumentRefused(Malformed):
    """The SBOM cannot be read. The message has the reason and the position."""

    code = "sbom_refused"


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A component that no advisory can be compared with, because it has no package URL."""

    place: str  # JSON pointer, or line of an XML document
    name: str
    version: str


@dataclass(slots=True)
class Document:
    """What an SBOM lists. Packages with a broken purl or without a version are among them: they count as unknown."""

    format: str  # "CycloneDX 1.5 JSON"
    tool: str = ""
    distro: str = ""  # "debian-12"
    packages: list[Package] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)  # of each package: digest or diff id of its layer, or ""
    unnamed: list[Unnamed] = field(default_factory=list)  # the first UNNAMED_SHOWN
    unnamed_count: int = 0
    licences: Licences = field(default_factory=Licences)

    def add(
        self,
        *,
        place: str,
        purl: str,
        name: str,
        version: str,
        source_name: str = "",
        source_version: str = "",
        layer: str = "",
        licences: list[str] | None = None,
    ) -> None:
        """Add one component. Raises DocumentRefused beyond COMPONENTS_MAX."""
        if len(self.packages) + self.unnamed_count >= COMPONENTS_MAX:
            raise DocumentRefused(f"{place}: the document lists more than {COMPONENTS_MAX} components.")
        if purl.startswith(_SUBJECT_PURLS):
            return
        self.licences.add(name, licences or ())
        if not purl.startswith("pkg:") or len(purl.encode()) > PURL_MAX:
            self.unnamed_count += 1
            if len(self.unnamed) < UNNAMED_SHOWN:
                self.unnamed.append(Unnamed(place, name[:_TEXT_MAX], version[:_TEXT_MAX]))
            return
        self.packages.append(
            Package(purl=purl, source_name=source_name, source_version=source_version, version=version)
        )
        self.layers.append(layer)


def read_document(content: bytes) -> Document:
    """Return what an SBOM lists. Raises DocumentRefused with reason and position, LimitExceeded.

    CycloneDX 1.2 to 1.7 (JSON, XML), SPDX 2.2 and 2.3 (JSON), SPDX 3.0 (JSON), or one of these as the predicate of an
    in-toto statement.
    """
    if len(content) > DOCUMENT_MAX:
        raise LimitExceeded(f"The SBOM is larger than {DOCUMENT_MAX // 1024**2} MiB.", limit=DOCUMENT_MAX)
    content = content.removeprefix(_BOM)
    first = content.lstrip()[:1]
    if first == b"<":
        from lifecycle.sbom.cyclonedx_xml import read_xml  # noqa: PLC0415 -- the readers import this module's types

        return read_xml(content)
    if first != b"{":
        raise DocumentRefused(_why_not_json(content))
    return read_value(_json(content))


def read_value(value: Mapping[str, Any]) -> Document:
    """Return what a parsed JSON document lists. Raises DocumentRefused."""
    from lifecycle.sbom import cyclonedx, spdx  # noqa: PLC0415 -- the readers import this module's types

    if str(value.get("_type", "")).startswith("https://in-toto.io/Statement/"):
        value = inner(value, "predicate", "")
        if isinstance(value.get("Data"), dict):  # cosign wraps the SBOM since 2.0, as syft does
            value = inner(value, "Data", "/predicate")
    readers: tuple[tuple[str, Callable[[Mapping[str, Any]], Document]], ...] = (
        ("bomFormat", cyclonedx.read_json),
        ("spdxVersion", spdx.read_json),
        ("@graph", spdx.read_json_ld),
    )
    for key, reader in readers:
        if key in value:
            return reader(value)
    raise DocumentRefused(
        "/: this is no SBOM that can be read. It has none of bomFormat (CycloneDX), spdxVersion (SPDX 2) and @graph "
        "(SPDX 3)."
    )


def _json(content: bytes) -> dict[str, Any]:
    # Before anything is built from it: empty objects take two bytes here and seventy in memory.
    if content.count(b"{") + content.count(b"[") > _PARTS_MAX:
        raise DocumentRefused(f"More than {_PARTS_MAX:,} objects and lists. Send the packages only, without files.")
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise DocumentRefused(
            f"Line {error.lineno}, column {error.colno}: {error.msg.partition(': line')[0]}."
        ) from None
    if not isinstance(value, dict):
        raise DocumentRefused("/ is not an object.")
    return value


def _why_not_json(content: bytes) -> str:
    if not content.strip():
        return "The document is empty."
    if _TAG_VALUE.match(content):
        return "Line 1: SPDX tag-value documents are not read. Convert it to SPDX JSON, or send CycloneDX."
    return "Line 1, column 1: neither a JSON object nor XML."


def inner(value: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    """Return the object at `key`, {} without one. Raises DocumentRefused for another type."""
    found = value.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DocumentRefused(f"{place}/{key} is not an object.")
    return found


def entries(value: Mapping[str, Any], key: str, place: str) -> list[dict[str, Any]]:
    """Return the objects of the list at `key`, [] without one. Raises DocumentRefused for other types."""
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise DocumentRefused(f"{place}/{key} is not a list.")
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise DocumentRefused(f"{place}/{key}/{number} is not an object.")
    return found


def text(value: Mapping[str, Any], key: str, place: str) -> str:
    """Return the text at `key` as it can be stored, "" without one. Raises DocumentRefused for another type."""
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise DocumentRefused(f"{place}/{key} is not a string.")
    return storable(found)


def storable(found: str) -> str:
    """Return a text without what the database cannot hold."""
    return _UNSTORABLE.sub("\ufffd", found).strip()
