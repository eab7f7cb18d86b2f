"""CSAF 2.0 with the profiles VEX and security advisory (OASIS CSAF 2.0, sections 4.4 and 4.5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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
    TREE_MAX,
    UNDER_INVESTIGATION,
)
from lifecycle.vex.types import Parsed, Product, Refused, Said

CATEGORIES: Final = ("csaf_vex", "csaf_security_advisory")
_STATUSES: Final = {
    "known_not_affected": NOT_AFFECTED,
    "fixed": FIXED,
    "first_fixed": FIXED,
    "known_affected": AFFECTED,
    "first_affected": AFFECTED,
    "last_affected": AFFECTED,
    "under_investigation": UNDER_INVESTIGATION,
}
_NO_STATUS: Final = frozenset({"recommended"})
# Where a component of one product is in another product (section 3.2.3.1).
_INSIDE: Final = frozenset({"default_component_of", "optional_component_of", "external_component_of"})
_ON: Final = frozenset({"installed_on", "installed_with"})


def parse(document: Mapping[str, Any], *, is_attached: bool = False) -> Parsed:
    """Return the product states of a CSAF document, one statement for each vulnerability, state and justification."""
    head = values.mapping(document.get("document"), "document")
    category = head.get("category")
    if category not in CATEGORIES:
        raise Malformed(f"document.category is {values.shown(category)!r}. Only {' and '.join(CATEGORIES)} are VEX.")
    if head.get("csaf_version") != "2.0":
        raise Malformed("document.csaf_version is not 2.0.")
    tracking = values.mapping(head.get("tracking"), "document.tracking")
    if tracking.get("status") == "draft":
        raise Malformed("The document is a draft (document.tracking.status).")
    issued_at = values.moment(tracking.get("current_release_date"), "current_release_date")
    publisher = values.mapping(head.get("publisher"), "document.publisher")
    name, author = values.text(tracking.get("id"), "tracking.id", 500), values.text(publisher.get("name"), "name", 300)
    if not name or not author:
        raise Malformed("A CSAF document needs document.tracking.id and document.publisher.name.")
    tree = values.mapping(document.get("product_tree") or {}, "product_tree")
    known = _Tree(_product_tree(tree), _groups_of(tree), issued_at)
    said: list[Said] = []
    refused: list[Refused] = []
    for number, entry in enumerate(values.listed(document.get("vulnerabilities"), "vulnerabilities", STATEMENTS_MAX)):
        position = f"vulnerabilities[{number}]"
        try:
            found = values.mapping(entry, position)
            names = _names(found)
            said += _read(found, position, names, known, refused)
        except Malformed as error:
            refused.append(Refused(position, error.message))
        if len(said) > STATEMENTS_MAX:
            raise Malformed(f"The document has more than {STATEMENTS_MAX:,} statements.")
    version = values.text(tracking.get("version"), "tracking.version", 60)
    return Parsed("csaf", name, author, version, issued_at, tuple(said), tuple(refused))


def _names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    ids = [each.get("text") for each in values.listed(entry.get("ids"), "ids", NAMES_MAX) if isinstance(each, dict)]
    known = [name for name in ids if isinstance(name, str) and " " not in name]
    return values.vulnerability_names([*([entry["cve"]] if entry.get("cve") else []), *known])


def _product_tree(tree: Mapping[str, Any]) -> dict[str, Product | str]:
    """Return {product id: the product, or why it cannot be matched}."""
    known: dict[str, Product | str] = {}
    waiting: list[Any] = list(values.listed(tree.get("branches"), "branches", TREE_MAX))
    for each in values.listed(tree.get("full_product_names"), "full_product_names", TREE_MAX):
        _add(known, each)
    count = 0
    while waiting:
        branch = values.mapping(waiting.pop(), "A branch")
        count += 1
        if count > TREE_MAX:
            raise Malformed(f"The product tree has more than {TREE_MAX:,} branches.")
        waiting += values.listed(branch.get("branches"), "branches", TREE_MAX)
        if branch.get("product") is not None:
            _add(known, branch["product"])
    relations = values.listed(tree.get("relationships"), "relationships", TREE_MAX)
    # A relationship can name the product of another one, in any order. Each round resolves one level.
    for _ in range(5):
        left = [each for each in relations if not _relate(known, values.mapping(each, "A relationship"))]
        if len(left) == len(relations):
            break
        relations = left
    for each in relations:
        product = each.get("full_product_name")
        if isinstance(product, dict) and isinstance(product.get("product_id"), str):
            known[product["product_id"]] = "its relationship names products that the tree does not have"
    return known


def _add(known: dict[str, Product | str], value: Any) -> None:
    product = values.mapping(value, "A product")
    key = product.get("product_id")
    if not isinstance(key, str):
        raise Malformed("A product of the tree has no product_id.")
    if key in known:
        raise Malformed(f"The product id {values.shown(key)!r} stands twice in the tree.")
    known[key] = _own(product)


def _own(product: Mapping[str, Any]) -> Product | str:
    helper = product.get("product_identification_helper")
    if not isinstance(helper, dict):
        return "it has neither a package URL nor a digest"
    digests: list[str] = []
    try:
        for group in values.listed(helper.get("hashes"), "hashes", 100):
            for each in values.listed(values.mapping(group, "hashes").get("file_hashes"), "file_hashes", 100):
                found = values.mapping(each, "file_hashes")
                if digest := values.digest_of(str(found.get("algorithm", "")).lower().replace("-", ""), found["value"]):
                    digests.append(digest)
        purl = values.purl(helper["purl"]) if helper.get("purl") else ""
    except (Malformed, KeyError) as error:
        return error.message if isinstance(error, Malformed) else "a hash has no value"
    if not digests and not purl:
        return "it has neither a package URL nor a digest"
    is_package = purl and not purl.startswith("pkg:oci/")
    return Product(() if is_package else tuple(dict.fromkeys(digests)), purl)


def _relate(known: dict[str, Product | str], relation: Mapping[str, Any]) -> bool:
    """Add the product that a relationship makes; return whether both of its products are known."""
    first, second = relation.get("product_reference"), relation.get("relates_to_product_reference")
    made = values.mapping(relation.get("full_product_name"), "full_product_name")
    key = made.get("product_id")
    if not isinstance(key, str) or not isinstance(first, str) or not isinstance(second, str):
        raise Malformed("A relationship lacks a product_id or a reference.")
    if first not in known or second not in known:
        return False
    known[key] = _combined(known[first], known[second], relation.get("category"))
    return True


def _combined(part: Product | str, whole: Product | str, category: Any) -> Product | str:
    """Return a package in an image, or on an operating system."""
    if not isinstance(category, str) or category not in _INSIDE | _ON:
        return f"the relationship {values.shown(category)!r} is unknown"
    if isinstance(part, str) or not part.purl:
        return f"its component cannot be matched: {part if isinstance(part, str) else 'it has no package URL'}"
    if isinstance(whole, Product) and (whole.digests or whole.purl.startswith("pkg:oci/")):
        return Product(whole.digests, whole.purl, (part.purl,))
    if part.packages:
        return "it is nested too deeply"
    # On an operating system, or in a product that is no image: the package, wherever it is. Its package URL names the
    # distribution, and matching asks for exactly this version where it has one.
    if "@" not in part.purl.partition("?")[0]:
        return "its component has no version, and its platform is not an image"
    return part


def _groups_of(tree: Mapping[str, Any]) -> dict[str, list[str]]:
    found = {}
    for each in values.listed(tree.get("product_groups"), "product_groups", TREE_MAX):
        group = values.mapping(each, "A product group")
        ids = values.listed(group.get("product_ids"), "product_ids", TREE_MAX)
        found[str(group.get("group_id"))] = [one for one in ids if isinstance(one, str)]
    return found


@dataclass(frozen=True, slots=True)
class _Tree:
    products: Mapping[str, Product | str]  # by product id: the product, or why it cannot be matched
    groups: Mapping[str, list[str]]
    issued_at: datetime | None


def _read(
    entry: Mapping[str, Any], position: str, names: tuple[str, ...], tree: _Tree, refused: list[Refused]
) -> Iterator[Said]:
    """Yield the statements about one vulnerability: products with the same state and reason together."""
    flags, threats, fixes = (_by_product(entry, name, tree.groups) for name in ("flags", "threats", "remediations"))
    grouped: dict[tuple[str, str, str, datetime | None], list[Product]] = defaultdict(list)
    for key, statuses in _states_of(entry, position, refused).items():
        where = f"{position}.product_status: {values.shown(key)}"
        product = tree.products.get(key, "it is not in the product tree")
        if isinstance(product, str):
            refused.append(Refused(where, f"The product cannot be matched: {product}."))
            continue
        if len(statuses) > 1:  # mandatory test 6.1.6
            refused.append(Refused(where, f"The product has contradictory states: {', '.join(sorted(statuses))}."))
            continue
        (status,) = statuses
        flag = next((each for each in flags[key] if each.get("label")), {})
        texts = [each.get("details") for each in threats[key] if each.get("category") == "impact"]
        if status in {AFFECTED, FIXED}:
            texts = [each.get("details") for each in fixes[key]]
        try:
            reason = values.text(next((each for each in texts if each), ""), "details")
            justification = values.text(flag.get("label"), "label", 100) if status == NOT_AFFECTED else ""
            values.check_reasoned(status, justification, reason)
            said_at = values.moment(flag.get("date"), "flags.date")
        except Malformed as error:
            refused.append(Refused(where, error.message))
            continue
        # Each release of a document says all of it again.
        newest = max((each for each in (said_at, tree.issued_at) if each is not None), default=None)
        grouped[status, justification, reason, newest].append(product)
    for (status, justification, reason, at), found in grouped.items():
        for start in range(0, len(found), PRODUCTS_MAX):
            part = tuple(found[start : start + PRODUCTS_MAX])
            yield Said(position, names, status, justification, reason, at, part)


def _states_of(entry: Mapping[str, Any], position: str, refused: list[Refused]) -> dict[str, set[str]]:
    """Return {product id: its states}."""
    found: dict[str, set[str]] = defaultdict(set)
    for word, ids in values.mapping(entry.get("product_status") or {}, "product_status").items():
        if word in _NO_STATUS:
            continue
        if word not in _STATUSES:
            refused.append(Refused(f"{position}.product_status", f"Unknown product status {values.shown(word)!r}."))
            continue
        for key in values.listed(ids, word, TREE_MAX):
            if not isinstance(key, str):
                raise Malformed(f"{word} names something that is no product id.")
            found[key].add(_STATUSES[word])
    return found


def _by_product(
    entry: Mapping[str, Any], name: str, groups: Mapping[str, Iterable[str]]
) -> dict[str, list[Mapping[str, Any]]]:
    """Return {product id: its flags, threats or remediations}."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for value in values.listed(entry.get(name), name, TREE_MAX):
        each = values.mapping(value, name)
        ids = [*values.listed(each.get("product_ids"), "product_ids", TREE_MAX)]
        for group in values.listed(each.get("group_ids"), "group_ids", TREE_MAX):
            ids += groups.get(group if isinstance(group, str) else "", ())
        for key in ids:
            if isinstance(key, str):
                found[key].append(each)
    return found
