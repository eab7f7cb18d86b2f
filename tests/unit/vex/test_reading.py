"""The three formats of VEX as statements, and what is refused with its position and reason."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

import pytest

from lifecycle.core.errors import Malformed
from lifecycle.vex.products import Package, Target, applies, names_package
from lifecycle.vex.reading import parse, parse_document
from lifecycle.vex.types import Product

SHA = "a" * 64
OPENVEX = {
    "@context": "https://openvex.dev/ns/v0.2.0", "@id": "https://x.example/1", "author": "X",
    "timestamp": "2026-01-02T03:04:05.123456789-06:00", "version": 2,
    "statements": [
        {
            "vulnerability": {"name": "CVE-2026-1", "aliases": ["GHSA-x"]},
            "products": [
                {
                    "@id": f"pkg:oci/app@sha256%3A{SHA}?repository_url=registry.example.com%2Fteam%2Fapp",
                    "hashes": {"sha-256": SHA.upper(), "md5": "x"},
                    "subcomponents": [{"@id": "pkg:deb/debian/openssl@3.0.1-1"}],
                }
            ],
            "status": "not_affected", "justification": "vulnerable_code_not_in_execute_path",
        },
        {"vulnerability": "CVE-2026-2", "products": ["pkg:apk/wolfi/git"], "subcomponents": ["pkg:apk/wolfi/curl"],
         "status": "fixed", "timestamp": "2025-01-01T00:00:00Z"},
    ],
}  # fmt: skip
CYCLONEDX = {
    "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": "urn:uuid:1", "version": 3,
    "metadata": {
        "timestamp": "2026-01-02T03:04:05Z", "supplier": {"name": "Shop"},
        "component": {"type": "container", "bom-ref": "image", "name": "app", "version": f"sha256:{SHA}"},
    },
    "components": [
        {"type": "library", "bom-ref": "1", "name": "openssl", "purl": "pkg:deb/debian/openssl@3.0.1-1",
         "components": [{"type": "library", "bom-ref": "2", "name": "x", "purl": "pkg:npm/x@1"}]}
    ],
    "vulnerabilities": [
        {"id": "CVE-2026-1", "references": [{"id": "GHSA-x"}], "affects": [{"ref": "1"}, {"ref": "urn:cdx:u/1#2"}],
         "analysis": {"state": "not_affected", "justification": "code_not_reachable", "detail": "Never called."}},
        {"id": "CVE-2026-2", "affects": [{"ref": "image"}], "analysis": {"state": "false_positive"}},
        {"id": "CVE-2026-3", "affects": [{"ref": "1"}]},
    ],
}  # fmt: skip
CSAF = {
    "document": {
        "category": "csaf_vex", "csaf_version": "2.0", "publisher": {"name": "Vendor"},
        "tracking": {"id": "V-1", "version": "1", "status": "final", "current_release_date": "2026-01-02T03:04:05Z"},
    },
    "product_tree": {
        "branches": [
            {"category": "vendor", "name": "V", "branches": [
                {"category": "product_version", "name": "image", "product": {
                    "product_id": "IMAGE", "name": "image",
                    "product_identification_helper": {"purl": f"pkg:oci/app@sha256:{SHA}"}}},
                {"category": "product_version", "name": "os", "product": {"product_id": "OS", "name": "Linux 9"}},
            ]},
        ],
        "full_product_names": [
            {"product_id": "SSL", "name": "ssl",
             "product_identification_helper": {"purl": "pkg:rpm/redhat/openssl@3.0.1-1?arch=src"}},
        ],
        "relationships": [
            {"category": "default_component_of", "product_reference": "SSL", "relates_to_product_reference": "IMAGE",
             "full_product_name": {"product_id": "IMAGE:SSL", "name": "ssl in image"}},
            {"category": "default_component_of", "product_reference": "SSL", "relates_to_product_reference": "OS",
             "full_product_name": {"product_id": "OS:SSL", "name": "ssl on Linux 9"}},
        ],
        "product_groups": [{"group_id": "G", "product_ids": ["IMAGE:SSL", "OS:SSL"]}],
    },
    "vulnerabilities": [
        {"cve": "CVE-2026-1", "ids": [{"system_name": "GitHub", "text": "GHSA-x"}],
         "product_status": {"known_not_affected": ["IMAGE:SSL", "OS:SSL", "OS", "GONE"], "recommended": ["SSL"]},
         "flags": [{"label": "component_not_present", "group_ids": ["G"]}]},
        {"cve": "CVE-2026-2", "product_status": {"fixed": ["OS:SSL"], "known_affected": ["OS:SSL"], "odd": ["SSL"]}},
        {"cve": "CVE-2026-3", "product_status": {"known_not_affected": ["IMAGE"], "under_investigation": ["SSL"]}},
    ],
}  # fmt: skip


def changed(document, path, value):
    """Return a copy of a document with one value replaced, or removed for None."""
    copy = json.loads(json.dumps(document))
    at = copy
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copy


def test_openvex_is_read_in_both_versions():
    found = parse(json.dumps(OPENVEX).encode())
    first, second = found.statements
    assert (found.format, found.name, found.version, found.refused) == ("openvex", "https://x.example/1", "2", ())
    assert first.said_at == datetime(2026, 1, 2, 9, 4, 5, 123456, tzinfo=UTC)
    assert (first.names, first.status) == (("CVE-2026-1", "GHSA-x"), "not_affected")
    (product,) = first.products
    assert product.digests == (f"sha256:{SHA}",)
    assert product.packages == ("pkg:deb/debian/openssl@3.0.1-1",)
    assert second.products == (Product((), "pkg:apk/wolfi/git", ("pkg:apk/wolfi/curl",)),)
    assert second.said_at == datetime(2025, 1, 1, tzinfo=UTC)
    bare = changed(OPENVEX, ["statements", 1, "products"], None)
    assert parse_document(bare).refused[0].reason == "The statement names no product."
    assert parse_document(bare, is_attached=True).statements[1].products == ()


def test_cyclonedx_is_read_with_its_components():
    found = parse(json.dumps(CYCLONEDX).encode())
    image = f"sha256:{SHA}"
    assert [(each.names, each.status, each.justification, each.text) for each in found.statements] == [
        (("CVE-2026-1", "GHSA-x"), "not_affected", "vulnerable_code_not_in_execute_path",
         "Never called. (code_not_reachable)"),
        (("CVE-2026-2",), "false_positive", "", ""),
    ]  # fmt: skip
    assert [each.products for each in found.statements] == [
        (Product((image,), "", ("pkg:deb/debian/openssl@3.0.1-1",)), Product((image,), "", ("pkg:npm/x@1",))),
        (Product((image,)),),
    ]
    assert (found.name, found.author, found.version) == ("urn:uuid:1", "Shop", "3")


def test_csaf_is_read_with_its_product_tree():
    found = parse(json.dumps(CSAF).encode())
    ssl = "pkg:rpm/redhat/openssl@3.0.1-1?arch=src"
    assert [(each.names, each.status, each.justification, each.products) for each in found.statements] == [
        (("CVE-2026-1", "GHSA-x"), "not_affected", "component_not_present",
         (Product((), f"pkg:oci/app@sha256:{SHA}", (ssl,)), Product((), ssl))),
        (("CVE-2026-3",), "under_investigation", "", (Product((), ssl),)),
    ]  # fmt: skip
    reasons = {each.position: each.reason for each in found.refused}
    assert "neither a package URL nor a digest" in reasons["vulnerabilities[0].product_status: OS"]
    assert "not in the product tree" in reasons["vulnerabilities[0].product_status: GONE"]
    assert "contradictory" in reasons["vulnerabilities[1].product_status: OS:SSL"]
    assert "Unknown product status 'odd'" in reasons["vulnerabilities[1].product_status"]
    assert "needs a justification" in reasons["vulnerabilities[2].product_status: IMAGE"]


@pytest.mark.parametrize(
    ("document", "path", "value", "reason"),
    [
        (OPENVEX, ["statements", 0, "status"], "maybe", "Unknown status 'maybe'"),
        (OPENVEX, ["statements", 0, "justification"], "trust_me", "Unknown justification 'trust_me'"),
        (OPENVEX, ["statements", 0, "justification"], None, "needs a justification"),
        (OPENVEX, ["statements", 0, "vulnerability"], {}, "no name of a vulnerability"),
        (OPENVEX, ["statements", 0, "products", 0, "hashes", "sha-256"], "zz", "not a digest"),
        (OPENVEX, ["statements", 0, "products", 0, "subcomponents", 0, "@id"], "pkg:", "cannot be read"),
        (OPENVEX, ["statements", 1, "products", 0], "my app", "neither a digest nor a package URL"),
        (OPENVEX, ["statements", 1, "timestamp"], "yesterday", "is not a time"),
        (CYCLONEDX, ["vulnerabilities", 0, "analysis", "state"], "fine", "Unknown analysis state 'fine'"),
        (CYCLONEDX, ["vulnerabilities", 0, "analysis", "justification"], "no", "Unknown justification 'no'"),
        (CYCLONEDX, ["vulnerabilities", 0, "affects", 0, "ref"], "9", "no component of the document"),
        (CSAF, ["vulnerabilities", 0, "flags", 0, "label"], "no", "Unknown justification 'no'"),
    ],
)
def test_statement_that_cannot_be_used_is_refused_with_its_position(document, path, value, reason):
    whole = parse_document(document)
    found = parse_document(changed(document, path, value))
    assert reason in found.refused[0].reason
    assert found.refused[0].position.startswith(f"{path[0]}[{path[1]}]")
    assert len(found.statements) < len(whole.statements)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "neither OpenVEX"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested deeper"),
        (json.dumps(changed(OPENVEX, ["author"], None)).encode(), "needs @id and author"),
        (json.dumps(changed(OPENVEX, ["statements"], [{}] * 20_001)).encode(), "The limit is 20,000"),
        (json.dumps(changed(CYCLONEDX, ["specVersion"], "1.2")).encode(), "not CycloneDX"),
        (json.dumps(changed(CSAF, ["document", "category"], "csaf_base")).encode(), "Only csaf_vex"),
        (json.dumps(changed(CSAF, ["document", "tracking", "status"], "draft")).encode(), "draft"),
    ],
)
def test_document_that_cannot_be_used_is_refused(content, reason):
    with pytest.raises(Malformed, match=reason):
        parse(content)


def test_random_damage_is_refused_and_never_crashes():
    """Replace random values of all three documents by odd ones: the result is a document or Malformed."""
    random.seed(20261130)
    odd = [None, True, -1, 1e308, "", "x" * 5000, "pkg:", "\ud800", "\x00", [], {}, [[]], {"@id": {}}, ["x", None, {}]]

    def damage(value, depth=0):
        if random.random() < 0.06 and depth:
            return random.choice(odd)
        if isinstance(value, dict):
            return {key: damage(each, depth + 1) for key, each in value.items()}
        return [damage(each, depth + 1) for each in value] if isinstance(value, list) else value

    usable = 0
    for _ in range(400):
        for document in (OPENVEX, CYCLONEDX, CSAF):
            try:
                found = parse_document(damage(document))
            except Malformed:
                continue
            usable += bool(found.statements)
            assert all(each.names and each.status for each in found.statements)
    assert usable > 100


SSL = Package("pkg:deb/debian/libssl3@3.0.1-1?arch=amd64&distro=debian-12", "openssl", "3.0.1-1", "3.0.1-1")


@pytest.mark.parametrize(
    ("pattern", "is_named"),
    [
        ("pkg:deb/debian/libssl3", True),
        ("pkg:deb/debian/libssl3@3.0.1-1", True),
        ("pkg:deb/debian/libssl3@3.0.1-1?distro=debian-12", True),
        ("pkg:deb/debian/libssl3@3.0.2-1", False),
        ("pkg:deb/debian/libssl3?distro=debian-13", False),
        ("pkg:deb/ubuntu/libssl3", False),
        ("pkg:deb/debian/openssl", False),
        ("pkg:deb/debian/openssl@3.0.1-1?arch=source", True),
        ("pkg:deb/debian/openssl@3.0.2-1?arch=source", False),
        ("pkg:npm/libssl3", False),
    ],
)
def test_package_url_names_a_package(pattern, is_named):
    assert names_package(pattern, SSL) is is_named


@pytest.mark.parametrize(
    ("product", "is_about"),
    [
        (Product((f"sha256:{SHA}",)), True),
        (Product((f"sha256:{'b' * 64}",), "pkg:deb/debian/libssl3"), False),
        (Product((), f"pkg:oci/other@sha256:{SHA}"), True),
        (Product((), f"pkg:oci/app@sha256:{'b' * 64}"), False),
        (Product((), "pkg:oci/app"), True),
        (Product((), "pkg:oci/ap"), False),
        (Product((), "pkg:oci/app?repository_url=index.docker.io/team/app"), True),
        (Product((), "pkg:oci/app?repository_url=https://quay.io/team/app"), False),
        (Product((), "pkg:oci/app?repository_url=docker.io/team/app&tag=1"), False),
        (Product((), "pkg:oci/app?arch=arm64"), False),
        (Product((), "pkg:oci/app", ("pkg:deb/debian/tar", "pkg:deb/debian/libssl3")), True),
        (Product((), "pkg:oci/app", ("pkg:deb/debian/tar",)), False),
        (Product((), "pkg:deb/debian/libssl3"), True),
        (Product((), "pkg:deb/debian/libssl3", ("pkg:npm/x",)), False),
        (Product((), "pkg:deb/debian/tar"), False),
        (Product(), True),
    ],
)
def test_product_is_an_image_or_a_package(product, is_about):
    target = Target(frozenset({f"sha256:{SHA}"}), frozenset({"docker.io/team/app"}), "amd64")
    assert applies(product, target, SSL) is is_about


def test_text_that_never_ends_is_read_once():
    """Each of its quotes started another search to the end: 200 kB took minutes."""
    with pytest.raises(Malformed, match="not JSON"):
        parse(b'{"' + b'\\"' * 1_000_000)
