"""What counts for the findings of an image, as VEX documents: OpenVEX 0.2.0 and CycloneDX 1.5."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import orjson
from django.conf import settings

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core import clock
from lifecycle.evidence.findings import Finding, findings_of_image
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import platform_ids
from lifecycle.registry.queries import locations_of
from lifecycle.vex.constants import AFFECTED, FALSE_POSITIVE, FIXED, NOT_AFFECTED, UNDER_INVESTIGATION
from lifecycle.vex.queries import Decided

_OF_BASE: Final = "Decided by the owner of a base image."
_HIDDEN: Final = "The reason is only shown to people who can see the decision."
_CYCLONEDX_STATES: Final = {
    NOT_AFFECTED: "not_affected",
    FALSE_POSITIVE: "false_positive",
    FIXED: "resolved",
    UNDER_INVESTIGATION: "in_triage",
    AFFECTED: "exploitable",
}
_CYCLONEDX_JUSTIFICATIONS: Final = {
    "component_not_present": "code_not_present",
    "vulnerable_code_not_present": "code_not_present",
    "vulnerable_code_not_in_execute_path": "code_not_reachable",
    "vulnerable_code_cannot_be_controlled_by_adversary": "requires_environment",
    "inline_mitigations_already_exist": "protected_by_mitigating_control",
}


def openvex(image: Image, reader: User | None) -> Iterator[bytes]:
    """Yield an OpenVEX document. Findings that nobody decided about are not in it: they are open."""
    said = _decided(image, reader)
    at = _changed_at(image)
    product = _openvex_product(image, reader)
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": f"{settings.PUBLIC_URL}/vex/{image.digest}",
        "author": f"Gravingdock at {settings.PUBLIC_URL}",
        "timestamp": at.isoformat(),
        "version": int(at.timestamp()),  # grows with each count of the findings, so with each change
        "statements": [_openvex_statement(finding, statement, product) for finding, statement in said],
    }
    return iter([orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"])


def openvex_of(name: str, images: Sequence[Image], reader: User) -> Iterator[bytes]:
    """Yield an OpenVEX document about several images, image by image."""
    at = max((_changed_at(image) for image in images), default=clock.now())
    head = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": f"{settings.PUBLIC_URL}/vex/{quote(name)}/{int(at.timestamp())}",
        "author": f"Gravingdock at {settings.PUBLIC_URL}",
        "timestamp": at.isoformat(),
        "version": int(at.timestamp()),
    }
    yield orjson.dumps(head)[:-1] + b',"statements":['
    is_first = True
    for image in images:
        product = _openvex_product(image, reader)
        for finding, said in _decided(image, reader):
            yield (b"" if is_first else b",") + orjson.dumps(_openvex_statement(finding, said, product))
            is_first = False
    yield b"]}\n"


def _openvex_product(image: Image, reader: User | None) -> dict[str, Any]:
    hashes = {"hashes": {"sha-256": image.digest.partition(":")[2]}} if image.digest.startswith("sha256:") else {}
    return {"@id": _product(image, reader), **hashes}


def _openvex_statement(finding: Finding, said: Decided, product: dict[str, Any]) -> dict[str, Any]:
    text = said.reason or (_OF_BASE if said.is_inherited else "")
    status = said.status
    statement: dict[str, Any] = {
        "vulnerability": {"name": finding.vulnerability, "aliases": list(finding.aliases)},
        "products": [product | {"subcomponents": [{"@id": finding.purl}]}],
        "timestamp": said.said_at.isoformat(),
    }
    if status == FALSE_POSITIVE:  # OpenVEX has no such status
        status, text = NOT_AFFECTED, f"False positive. {text}".strip()
    if said.justification:
        statement["justification"] = said.justification
    elif status == NOT_AFFECTED and not text:  # OpenVEX wants one of the two
        text = _HIDDEN
    if text:
        names = {NOT_AFFECTED: "impact_statement", AFFECTED: "action_statement"}
        statement[names.get(status, "status_notes")] = text
    return statement | {"status": status}


def cyclonedx_vex(image: Image, reader: User | None) -> Iterator[bytes]:
    """Yield a CycloneDX document with the packages that somebody decided about, and the analyses."""
    said = _decided(image, reader)
    at = _changed_at(image)
    purls = sorted({finding.purl for finding, _ in said})
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": int(at.timestamp()),
        "metadata": {
            "timestamp": at.isoformat(),
            "component": {
                "type": "container", "name": _product(image, reader), "bom-ref": image.digest, "version": image.digest,
            },
        },
        "components": [{"type": "library", "bom-ref": purl, "name": _name(purl), "purl": purl} for purl in purls],
        "vulnerabilities": [_cyclonedx_statement(finding, statement) for finding, statement in said],
    }  # fmt: skip
    return iter([orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"])


def cyclonedx_vex_of(name: str, images: Sequence[Image], reader: User) -> Iterator[bytes]:
    """Yield a CycloneDX document about several images: each is a component with the packages that were decided about.

    The analyses stand first, so that each image is read once. They name a package in an image by `<digest>#<purl>`.
    """
    at = max((_changed_at(image) for image in images), default=clock.now())
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": int(at.timestamp()),
        "metadata": {
            "timestamp": at.isoformat(),
            "component": {"type": "application", "name": name, "bom-ref": "gravingdock"},
        },
    }
    yield orjson.dumps(head)[:-1] + b',"vulnerabilities":['
    components: list[dict[str, Any]] = []
    is_first = True
    for image in images:
        purls: dict[str, None] = {}
        for finding, said in _decided(image, reader):
            purls[finding.purl] = None
            row = _cyclonedx_statement(finding, said) | {"affects": [{"ref": f"{image.digest}#{finding.purl}"}]}
            yield (b"" if is_first else b",") + orjson.dumps(row)
            is_first = False
        inside = [
            {"type": "library", "bom-ref": f"{image.digest}#{purl}", "name": _name(purl), "purl": purl}
            for purl in sorted(purls)
        ]
        product = {
            "type": "container",
            "name": _product(image, reader),
            "bom-ref": image.digest,
            "version": image.digest,
        }
        components.append(product | ({"components": inside} if inside else {}))
    yield b'],"components":' + orjson.dumps(components) + b"}\n"


def _cyclonedx_statement(finding: Finding, said: Decided) -> dict[str, Any]:
    analysis: dict[str, Any] = {"state": _CYCLONEDX_STATES[said.status], "lastUpdated": said.said_at.isoformat()}
    if said.justification:
        analysis["justification"] = _CYCLONEDX_JUSTIFICATIONS[said.justification]
    if text := said.reason or (_OF_BASE if said.is_inherited else ""):
        analysis["detail"] = text
    return {
        "id": finding.vulnerability,
        "references": [{"id": name, "source": {"name": name.partition("-")[0]}} for name in finding.aliases],
        "analysis": analysis,
        "affects": [{"ref": finding.purl}],
    }


def _decided(image: Image, reader: User | None) -> Sequence[tuple[Finding, Decided]]:
    found = findings_of_image(image, reader=reader)
    return [(finding, finding.vex) for finding in found if finding.vex is not None]


def _changed_at(image: Image) -> datetime:
    """Return when the findings of an image were last counted: they are after each change of a statement."""
    times = Image.objects.filter(pk__in=platform_ids(image), risk_at__isnull=False).values_list("risk_at", flat=True)
    return max((at for at in times if at is not None), default=clock.now())


def _product(image: Image, reader: User | None) -> str:
    """Return the package URL of an image, with a repository that the reader can see if there is one."""
    place = None if reader is None else locations_of([image.pk], repositories_visible_to(reader)).get(image.pk)
    version = quote(image.digest, safe="")
    if place is None:
        return f"pkg:oci/image@{version}"
    name = place.repository.name
    url = quote(f"{place.repository.registry.host}/{name}", safe="")
    return f"pkg:oci/{name.rpartition('/')[2]}@{version}?repository_url={url}"


def _name(purl: str) -> str:
    return purl.partition("?")[0].partition("@")[0].rpartition("/")[2] or purl
