"""SLSA provenance, versions 1 and 0.2: who built, from which source, and from which materials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.signatures.constants import PROVENANCE_V02, PROVENANCE_V1

_MATERIALS_MAX: Final = 1000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TEXT_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a provenance says. "" and () for what it does not say."""

    builder_id: str = ""
    source_uri: str = ""
    image_digests: tuple[str, ...] = ()  # "sha256:<hex>" of the images among its materials


def read_provenance(predicate_type: str, predicate: Any) -> Provenance:
    """Return what a SLSA provenance says. It never raises: a signed document of odd shape says nothing."""
    if not isinstance(predicate, Mapping):
        return Provenance()
    if predicate_type.partition("?")[0].startswith(PROVENANCE_V1):
        definition, details = _object(predicate, "buildDefinition"), _object(predicate, "runDetails")
        workflow = _object(_object(definition, "externalParameters"), "workflow")
        materials = definition.get("resolvedDependencies")
        source = _text(workflow, "repository") or _source_of(materials)
        return Provenance(_text(_object(details, "builder"), "id"), source, _images(materials))
    if predicate_type == PROVENANCE_V02:
        materials = predicate.get("materials")
        source = _text(_object(_object(predicate, "invocation"), "configSource"), "uri") or _source_of(materials)
        return Provenance(_text(_object(predicate, "builder"), "id"), source, _images(materials))
    return Provenance()


def _images(materials: object) -> tuple[str, ...]:
    """Return the digests of materials that are images: by their `pkg:docker`, `pkg:oci` or `oci://` address."""
    digests = []
    for material in materials[:_MATERIALS_MAX] if isinstance(materials, list) else ():
        if not isinstance(material, Mapping):
            continue
        uri, value = _text(material, "uri"), _text(_object(material, "digest"), "sha256")
        if uri.startswith(("pkg:docker/", "pkg:oci/", "oci://", "docker://")) and _SHA256.fullmatch(value):
            digests.append(f"sha256:{value}")
    return tuple(dict.fromkeys(digests))


def _source_of(materials: object) -> str:
    for material in materials[:_MATERIALS_MAX] if isinstance(materials, list) else ():
        if isinstance(material, Mapping) and _text(material, "uri").startswith("git"):
            return _text(material, "uri")
    return ""


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found[:_TEXT_MAX].replace("\0", "") if isinstance(found, str) else ""
