"""The documents of one platform image in a registry, checked once, with the values that a rebase needs.

Field names and types: image-spec 1.1, config.md. The documents themselves are kept as served, unknown keys included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from lifecycle.core.errors import MalformedManifest
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.constants import CONFIG_MAX_BYTES
from lifecycle.oci.manifests import load_json, parse_manifest
from lifecycle.oci.types import Descriptor, ManifestContent

# The settings that are maps. A label is a text; ports and volumes are sets, written as maps of empty objects.
MAPS: Final = ("Labels", "ExposedPorts", "Volumes")


@dataclass(frozen=True, slots=True)
class Settings:
    """The `config` object of an image configuration. Absent and null values are both read as empty."""

    document: Mapping[str, Any]
    env: Mapping[str, str]  # the last of several values of one variable
    maps: Mapping[str, Mapping[str, Any]]  # one for each of MAPS


@dataclass(frozen=True, slots=True)
class Loaded:
    """One platform manifest with its configuration. It has as many layers as diff ids, and all types are checked."""

    repository: str
    content: ManifestContent
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    history: tuple[Mapping[str, Any], ...]
    settings: Settings
    platform: tuple[str, str, str]  # (os, architecture, variant), as in the configuration


def load(client: RegistryClient, repository: str, digest: Digest) -> Loaded:
    """Read one platform manifest and its configuration.

    Raises ManifestUnknown, LimitExceeded, or MalformedManifest for an index and for values of a wrong type.
    """
    content = client.get_manifest(repository, digest.text)
    document = parse_manifest(content)
    raw_config = client.get_blob(repository, document.config.digest, max_bytes=CONFIG_MAX_BYTES)
    manifest = load_json(content.content, "manifest")  # an object: parse_manifest has checked that
    config = _object(load_json(raw_config, "configuration"), "configuration")
    _check_writable(manifest, "manifest")
    _check_writable(config, "configuration")
    rootfs = _object(config.get("rootfs"), "rootfs")
    diff_ids = tuple(Digest.parse(text).text for text in _texts(rootfs.get("diff_ids"), "diff_ids"))
    if len(diff_ids) != len(document.layers):
        raise MalformedManifest(
            f"The manifest has {len(document.layers)} layers, but the configuration has {len(diff_ids)} diff ids."
        )
    return Loaded(
        repository=repository,
        content=content,
        manifest=manifest,
        config=config,
        layers=document.layers,
        diff_ids=diff_ids,
        history=tuple(_history_entry(entry) for entry in _array(config.get("history"), "history")),
        settings=_settings(_object(config.get("config"), "config")),
        platform=(
            _text(config.get("os"), "os"),
            _text(config.get("architecture"), "architecture"),
            _text(config.get("variant"), "variant"),
        ),
    )


def _settings(document: dict[str, Any]) -> Settings:
    maps = {name: _object(document.get(name), name) for name in MAPS}
    for value in maps["Labels"].values():
        _text(value, "Labels")
    lines = _texts(document.get("Env"), "Env")
    return Settings(document, dict(line.partition("=")[::2] for line in lines), maps)


def _history_entry(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedManifest("history: an entry is not a JSON object.")
    if not isinstance(value.get("empty_layer"), bool | None):
        raise MalformedManifest("history: empty_layer is not true or false.")
    return value


def _check_writable(document: dict[str, Any], what: str) -> None:
    """Reject values that JSON allows but many programs cannot read: lone surrogates, numbers of more than 64 bits."""
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise MalformedManifest(f"The {what} has a string or a number that cannot be encoded.") from None


def _object(value: object, name: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise MalformedManifest(f"{name}: not a JSON object.")
    return value or {}


def _array(value: object, name: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise MalformedManifest(f"{name}: not a JSON array.")
    return value or []


def _text(value: object, name: str) -> str:
    if value is not None and not isinstance(value, str):
        raise MalformedManifest(f"{name}: not a string.")
    return value or ""


def _texts(value: object, name: str) -> list[str]:
    items = _array(value, name)
    for item in items:
        if not isinstance(item, str):
            raise MalformedManifest(f"{name}: not a list of strings.")
    return items
