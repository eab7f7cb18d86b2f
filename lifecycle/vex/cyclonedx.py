"""VEX in CycloneDX 1.4 to 1.7 JSON: a document of its own, or inside an SBOM."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from lifecycle.core.errors import Malformed
from lifecycle.vex import values
from lifecycle.vex.constants import (
    AFFECTED,
    FALSE_POSITIVE,
    FIXED,
    NAMES_MAX,
    NOT_AFFECTED,
    PRODUCTS_MAX,
    STATEMENTS_MAX,
    TREE_MAX,
    UNDER_INVESTIGATION,
)
from lifecycle.vex.types import Parsed, Product, Refused, Said

VERSIONS: Final = ("1.4", "1.5", "1.6", "1.7")
_STATES: Final = {
    "resolved": FIXED,
    "resolved_with_pedigree": FIXED,
    "exploitable": AFFECTED,
    "in_triage": UNDER_INVESTIGATION,
    "false_positive": FALSE_POSITIVE,
    "not_affected": NOT_AFFECTED,
}
# The nearest justification of OpenVEX. The original word stays in the text.
_JUSTIFICATIONS: Final = {
    "code_not_present": "vulnerable_code_not_present",
    "code_not_reachable": "vulnerable_code_not_in_execute_path",
    "requires_configuration": "vulnerable_code_not_in_execute_path",
    "requires_dependency": "component_not_present",
    "requires_environment": "vulnerable_code_not_in_execute_path",
    "protected_by_compiler": "inline_mitigations_already_exist",
    "protected_at_runtime": "inline_mitigations_already_exist",
    "protected_at_perimeter": "inline_mitigations_already_exist",
    "protected_by_mitigating_control": "inline_mitigations_already_exist",
}
_KINDS_OF_IMAGES: Final = ("container",)


def parse(document: Mapping[str, Any], *, is_attached: bool = False) -> Parsed:
    """Return the analyses in a CycloneDX document. Vulnerabilities without an analysis are no statements."""
    if document.get("bomFormat") != "CycloneDX" or document.get("specVersion") not in VERSIONS:
        raise Malformed(f"The document is not CycloneDX {', '.join(VERSIONS)}.")
    metadata = values.mapping(document.get("metadata") or {}, "metadata")
    issued_at = values.moment(metadata.get("timestamp"), "metadata.timestamp")
    serial = values.text(document.get("serialNumber"), "serialNumber", 200)
    known = _components(document, metadata)
    said, refused = [], []
    entries = values.listed(document.get("vulnerabilities"), "vulnerabilities", STATEMENTS_MAX)
    for number, entry in enumerate(entries):
        position = f"vulnerabilities[{number}]"
        try:
            found = values.mapping(entry, position)
            if found.get("analysis") is not None:
                said.append(_statement(found, position, issued_at, known, is_attached))
        except Malformed as error:
            refused.append(Refused(position, error.message))
    version = document.get("version", 1)
    if isinstance(version, bool) or not isinstance(version, int):
        raise Malformed("version is not a number.")
    author = _author(metadata)
    return Parsed("cyclonedx", serial, author, str(version), issued_at, tuple(said), tuple(refused))


def _author(metadata: Mapping[str, Any]) -> str:
    for name in ("manufacturer", "supplier", "manufacture"):
        found = metadata.get(name)
        if isinstance(found, dict) and found.get("name"):
            return values.text(found["name"], f"metadata.{name}.name", 300)
    for author in values.listed(metadata.get("authors"), "metadata.authors", 1000):
        if isinstance(author, dict) and (author.get("name") or author.get("email")):
            return values.text(author.get("name") or author.get("email"), "metadata.authors", 300)
    return ""


def _components(document: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Product]:
    """Return {bom-ref: what it is}. A component inside of another one is a package of its own."""
    top = metadata.get("component")
    root = _own(values.mapping(top, "metadata.component")) if top is not None else None
    known: dict[str, Product] = {}
    waiting = list(values.listed(document.get("components"), "components", TREE_MAX))
    if isinstance(top, dict):
        waiting += values.listed(top.get("components"), "metadata.component.components", TREE_MAX)
        if root is not None and isinstance(top.get("bom-ref"), str):
            known[top["bom-ref"]] = root
    count = 0
    while waiting:
        component = waiting.pop()
        count += 1
        if count > TREE_MAX:
            raise Malformed(f"The document has more than {TREE_MAX:,} components.")
        if not isinstance(component, dict):
            continue
        waiting += values.listed(component.get("components"), "components", TREE_MAX)
        own = _own(component)
        reference = component.get("bom-ref")
        if not isinstance(reference, str) or own is None:
            continue
        if root is not None and (root.digests or root.purl) and own.purl and not own.digests:
            own = Product(root.digests, root.purl, (own.purl,))  # a package of the image that the document describes
        known[reference] = own
    return known


def _own(component: Mapping[str, Any]) -> Product | None:
    digests: list[str] = []
    is_image = component.get("type") in _KINDS_OF_IMAGES
    if is_image:
        for name in ("version", "name", "bom-ref"):
            value = component.get(name)
            if isinstance(value, str) and value.rpartition("@")[2].startswith("sha256:"):
                digests.append(values.digest_of("sha256", value.rpartition("sha256:")[2]))
        for entry in values.listed(component.get("hashes"), "hashes", 100):
            found = values.mapping(entry, "A hash")
            if digest := values.digest_of(str(found.get("alg", "")).lower().replace("-", ""), found.get("content")):
                digests.append(digest)
    purl = component.get("purl")
    if not digests and not purl:
        return None
    return Product(tuple(dict.fromkeys(digests)), values.purl(purl) if purl else "")


def _statement(
    entry: Mapping[str, Any], position: str, issued_at: datetime | None, known: Mapping[str, Product], is_attached: bool
) -> Said:
    analysis = values.mapping(entry["analysis"], "analysis")
    state = analysis.get("state")
    if not isinstance(state, str) or state not in _STATES:
        raise Malformed(f"Unknown analysis state {values.shown(state)!r}. Known are: {', '.join(_STATES)}.")
    word = values.text(analysis.get("justification"), "justification", 100)
    if word and word not in _JUSTIFICATIONS:
        raise Malformed(f"Unknown justification {values.shown(word)!r}. Known are: {', '.join(_JUSTIFICATIONS)}.")
    detail = values.text(analysis.get("detail"), "detail")
    values.check_reasoned(_STATES[state], _JUSTIFICATIONS.get(word, ""), detail)
    aliases = []
    for reference in values.listed(entry.get("references"), "references", NAMES_MAX):
        if isinstance(reference, dict) and isinstance(reference.get("id"), str):
            aliases.append(reference["id"])
    said_at = values.moment(analysis.get("lastUpdated") or analysis.get("firstIssued"), "lastUpdated")
    said_at = said_at or values.moment(entry.get("updated") or entry.get("published"), "updated") or issued_at
    products = tuple(
        _affected(values.mapping(each, "affects"), known)
        for each in values.listed(entry.get("affects"), "affects", PRODUCTS_MAX)
    )
    if not products and not is_attached:
        raise Malformed("The statement names no product (affects).")
    reason = f"{detail} ({word})" if detail and word else detail or word
    names = values.vulnerability_names([entry.get("id"), *aliases])
    return Said(position, names, _STATES[state], _JUSTIFICATIONS.get(word, ""), reason, said_at, products)


def _affected(value: Mapping[str, Any], known: Mapping[str, Product]) -> Product:
    reference = value.get("ref")
    if not isinstance(reference, str) or len(reference) > values.PURL_MAX:
        raise Malformed("affects has no ref.")
    if value.get("versions"):
        raise Malformed("affects names versions. Only components by their reference or package URL can be judged.")
    name = unquote(reference.partition("#")[2]) if reference.startswith("urn:cdx:") else reference
    if (product := known.get(name) or known.get(reference)) is not None:
        return product
    if name.startswith("pkg:"):
        return Product((), values.purl(name))
    if name.startswith("sha256:"):
        return Product((values.digest_of("sha256", name.removeprefix("sha256:")),))
    raise Malformed(f"affects names {values.shown(reference)!r}, which is no component of the document.")
