"""OpenVEX 0.0.1 and 0.2.0, as go-vex and vexctl write them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.vex import values
from lifecycle.vex.constants import (
    AFFECTED,
    FIXED,
    NAMES_MAX,
    NOT_AFFECTED,
    PRODUCTS_MAX,
    STATEMENTS_MAX,
    SUBCOMPONENTS_MAX,
    UNDER_INVESTIGATION,
)
from lifecycle.vex.types import Parsed, Product, Refused, Said

CONTEXT: Final = "https://openvex.dev/ns"
_STATUSES: Final = (NOT_AFFECTED, AFFECTED, FIXED, UNDER_INVESTIGATION)


def parse(document: Mapping[str, Any], *, is_attached: bool = False) -> Parsed:
    """Return an OpenVEX document. With `is_attached`, its statements need no products: they are about the subjects of
    the attestation.
    """
    context = document.get("@context")
    if not isinstance(context, str) or not context.startswith(CONTEXT):
        raise Malformed(f"@context does not begin with {CONTEXT}.")
    name, author = values.text(document.get("@id"), "@id", 500), values.text(document.get("author"), "author", 300)
    if not name or not author:
        raise Malformed("An OpenVEX document needs @id and author.")
    version = document.get("version", "")
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise Malformed("version is not a number.")
    issued_at = values.moment(document.get("timestamp"), "timestamp")
    said, refused = [], []
    for number, entry in enumerate(values.listed(document.get("statements"), "statements", STATEMENTS_MAX)):
        position = f"statements[{number}]"
        try:
            said.append(_statement(values.mapping(entry, position), position, issued_at, is_attached))
        except Malformed as error:
            refused.append(Refused(position, error.message))
    return Parsed("openvex", name, author, str(version)[:60], issued_at, tuple(said), tuple(refused))


def _statement(entry: Mapping[str, Any], position: str, issued_at: datetime | None, is_attached: bool) -> Said:
    status = entry.get("status")
    if status not in _STATUSES:
        raise Malformed(f"Unknown status {values.shown(status)!r}. Known are: {', '.join(_STATUSES)}.")
    justification = values.text(entry.get("justification"), "justification", 100)
    impact = values.text(entry.get("impact_statement"), "impact_statement")
    action = values.text(entry.get("action_statement"), "action_statement")
    values.check_reasoned(status, justification, impact)
    products = _products(entry)
    if not products and not is_attached:
        raise Malformed("The statement names no product.")
    notes = values.text(entry.get("status_notes"), "status_notes")
    said_at = values.moment(entry.get("timestamp"), "timestamp") or issued_at
    return Said(
        position,
        _names(entry.get("vulnerability")),
        status,
        justification,
        impact or action or notes,
        said_at,
        products,
    )


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):  # 0.0.1
        return values.vulnerability_names([value])
    found = values.mapping(value, "vulnerability")
    aliases = values.listed(found.get("aliases"), "aliases", NAMES_MAX)
    return values.vulnerability_names([found.get("name"), *aliases])


def _products(entry: Mapping[str, Any]) -> tuple[Product, ...]:
    below = _packages(entry.get("subcomponents"))  # 0.0.1 has them beside the products
    found = []
    for value in values.listed(entry.get("products"), "products", PRODUCTS_MAX):
        if isinstance(value, str):
            found.append(_product({"@id": value}, below))
        else:
            product = values.mapping(value, "A product")
            found.append(_product(product, _packages(product.get("subcomponents")) or below))
    return tuple(found)


def _product(value: Mapping[str, Any], packages: tuple[str, ...]) -> Product:
    digests, purl = _identity(value)
    if not digests and not purl:
        raise Malformed(f"The product {values.shown(value.get('@id'))!r} is neither a digest nor a package URL.")
    return Product(digests, purl, packages)


def _packages(value: Any) -> tuple[str, ...]:
    found = []
    for each in values.listed(value, "subcomponents", SUBCOMPONENTS_MAX):
        entry = {"@id": each} if isinstance(each, str) else values.mapping(each, "A subcomponent")
        _, purl = _identity(entry)
        if not purl:
            raise Malformed(f"The subcomponent {values.shown(entry.get('@id'))!r} has no package URL.")
        found.append(purl)
    return tuple(dict.fromkeys(found))


def _identity(value: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return (digests, package URL) of a component."""
    digests = list(values.hashes(value.get("hashes") or {}))
    name = value.get("@id")
    identifiers = values.mapping(value.get("identifiers") or {}, "identifiers")
    purl = values.purl(identifiers["purl"]) if identifiers.get("purl") else ""
    if isinstance(name, str) and name.startswith("pkg:"):
        purl = purl or values.purl(name)
    elif isinstance(name, str) and "sha256:" in name:  # a digest, or an image reference with one
        digests.append(values.digest_of("sha256", name.rpartition("sha256:")[2]))
    if purl and not purl.startswith("pkg:oci/"):
        digests = []  # of the package's file
    return tuple(dict.fromkeys(digests)), purl
