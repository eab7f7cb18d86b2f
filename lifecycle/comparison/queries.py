"""Comparison of two images: findings, packages, layers, configuration; in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lifecycle import versions
from lifecycle.comparison.types import (
    Change,
    Comparison,
    FindingLine,
    LayerLine,
    PackageLine,
    PlatformPair,
    SettingLine,
)
from lifecycle.core.severities import READING_ORDER
from lifecycle.evidence.findings import AdvisoryChanges, Unjudged, advisory_changes, fixed_keys, unjudged_in
from lifecycle.evidence.judgement import judgement_of
from lifecycle.evidence.open_findings import open_matches_in
from lifecycle.evidence.types import FindingKey, full_name
from lifecycle.registry.models import Image, Layer
from lifecycle.registry.platforms import entries_of_images
from lifecycle.sbom.models import InventoryPackage

_RANK: Final = {word: rank for rank, word in enumerate(READING_ORDER)}
_ORDER: Final = {Change.NEW: 0, Change.UNKNOWN: 1, Change.FIXED: 2, Change.SAME: 3}
# Entries of an image configuration (image-spec config.md) that authors set; the build derives the others.
_SETTINGS: Final = ("User", "Entrypoint", "Cmd", "WorkingDir", "StopSignal", "Healthcheck", "Shell")
_SETS: Final = (("ExposedPorts", "Port"), ("Volumes", "Volume"))
_VALUE_MAX: Final = 300  # characters of one value that are shown


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A package version in an image, with the values that its scheme compares."""

    scheme: str
    version: str  # the version to compare: for a distribution's package, the source package's version


def compare(before: Image | None, after: Image) -> Comparison:
    """Return the changes when `after` replaces `before`; `before` is None when there is no earlier image."""
    images = [after] if before is None else [before, after]
    platforms = entries_of_images(images)
    new_entries = platforms.get(after.pk, [])
    old_entries = platforms.get(before.pk, []) if before is not None else []
    old, new = {child.pk for _, child in old_entries}, {child.pk for _, child in new_entries}
    layers = _layers(old | new)
    is_known = bool(new_entries) and all(child.scanned_at is not None for _, child in [*new_entries, *old_entries])
    if before is not None and not old_entries:
        is_known = False
    versions_by_side: Sides = _package_versions(old, new) if is_known else ({}, {})
    lines, advisories = _findings(old, new, versions_by_side, layers) if is_known else ([], AdvisoryChanges())
    return Comparison(
        before=before,
        after=after,
        is_known=is_known,
        platforms=tuple(_pairs(old_entries, new_entries, layers)),
        packages=tuple(_packages(versions_by_side)),
        findings=tuple(lines),
        advisories=advisories,
        known_before=tuple(judgement_of(child) for _, child in old_entries),
        known_after=tuple(judgement_of(child) for _, child in new_entries),
    )


def _layers(image_ids: Iterable[int]) -> dict[int, list[Layer]]:
    by_image: dict[int, list[Layer]] = defaultdict(list)
    for layer in Layer.objects.filter(image__in=list(image_ids)).order_by("image", "position"):
        by_image[layer.image_id].append(layer)
    return by_image


def _layer_id(layer: Layer) -> str:
    return layer.digest or layer.diff_id


def _pairs(
    old_entries: Sequence[tuple[str, Image]], new_entries: Sequence[tuple[str, Image]], layers: dict[int, list[Layer]]
) -> Iterable[PlatformPair]:
    """Yield the platforms of the later image in its order, then those that only the earlier image has.

    Two single manifests are always compared, even if their platforms differ.
    """
    if len(new_entries) == len(old_entries) == 1:
        yield _pair(new_entries[0][0], old_entries[0][1], new_entries[0][1], layers)
        return
    old = dict(old_entries)
    for platform, image in new_entries:
        yield _pair(platform, old.pop(platform, None), image, layers)
    for platform, image in old.items():
        yield _pair(platform, image, None, layers)


def _pair(platform: str, before: Image | None, after: Image | None, layers: dict[int, list[Layer]]) -> PlatformPair:
    old = {_layer_id(layer) for layer in layers[before.pk]} - {""} if before is not None else set()
    lines = tuple(
        LayerLine(layer.position + 1, _layer_id(layer), layer.size_bytes, layer.created_by, _layer_id(layer) in old)
        for layer in (layers[after.pk] if after is not None else [])
    )
    settings = _settings(before, after) if before is not None and after is not None else ()
    return PlatformPair(platform, before, after, lines, tuple(settings))


def _settings(before: Image, after: Image) -> list[SettingLine]:
    old, new = _flat(before), _flat(after)
    return [
        SettingLine(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(image: Image) -> dict[str, str]:
    """Return the configuration that authors set, as {name: value}. Malformed entries are skipped."""
    config = image.config.get("config") if isinstance(image.config, dict) else None
    if not isinstance(config, dict):
        return {}
    settings = {name: _as_text(config[name]) for name in _SETTINGS if config.get(name)}
    for entry in config.get("Env") or []:
        name, _, value = str(entry).partition("=")
        settings[f"Env {name}"] = value[:_VALUE_MAX]
    for field, word in _SETS:
        settings |= {f"{word} {name}": "set" for name in config.get(field) or {}}
    labels = config.get("Labels")
    if isinstance(labels, dict):
        settings |= {f"Label {name}": str(value)[:_VALUE_MAX] for name, value in labels.items()}
    return settings


def _as_text(value: Any) -> str:
    return " ".join(map(str, value))[:_VALUE_MAX] if isinstance(value, list) else str(value)[:_VALUE_MAX]


Sides = tuple[dict[tuple[str, str], dict[str, _Ordered]], dict[tuple[str, str], dict[str, _Ordered]]]


def _package_versions(old: set[int], new: set[int]) -> Sides:
    """Return {(type, full name): {version: ordered version}} of the earlier and of the later image."""
    rows = (
        InventoryPackage.objects.filter(inventory__image_inventories__image__in=old | new)
        .values_list(
            "inventory__image_inventories__image", "package__type", "package__namespace", "package__name",
            "package__version", "package__match_version", "package__scheme",
        )
        .distinct()
    )  # fmt: skip
    before: dict[tuple[str, str], dict[str, _Ordered]] = defaultdict(dict)
    after: dict[tuple[str, str], dict[str, _Ordered]] = defaultdict(dict)
    for image_id, kind, namespace, name, version, match_version, scheme in rows:
        ordered = _Ordered(scheme, match_version)
        for side, ids in ((before, old), (after, new)):
            if image_id in ids:
                side[kind, full_name(namespace, name)][version] = ordered
    return before, after


def _packages(versions_by_side: Sides) -> list[PackageLine]:
    before, after = versions_by_side
    lines = []
    for kind, name in sorted(before.keys() | after.keys(), key=lambda item: (item[1], item[0])):
        first, second = before.get((kind, name), {}), after.get((kind, name), {})
        if first.keys() != second.keys():
            change = _direction(list(first.values()), list(second.values()))
            lines.append(PackageLine(change, kind, _short(kind, name), _join(first), _join(second)))
    return lines


def _join(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _short(kind: str, name: str) -> str:
    """Return a package's short name: a distribution's packages without the distribution."""
    return name.rpartition("/")[2] if kind in {"deb", "rpm", "apk"} else name


def _direction(before: list[_Ordered], after: list[_Ordered]) -> Change:
    if not before:
        return Change.NEW
    if not after:
        return Change.GONE
    if len(before) == len(after) == 1 and before[0].scheme == after[0].scheme:
        try:
            order = versions.compare(before[0].scheme, before[0].version, after[0].version)
        except ValueError:  # no scheme, or an invalid version in this scheme
            return Change.OTHER
        if order:
            return Change.UP if order < 0 else Change.DOWN
    return Change.OTHER


def _findings(
    old: set[int], new: set[int], versions_by_side: Sides, layers: dict[int, list[Layer]]
) -> tuple[list[FindingLine], AdvisoryChanges]:
    path = "package__inventory_packages__inventory__image_inventories"
    rows = (
        open_matches_in(old | new)
        .values_list(
            f"{path}__image", f"{path}__layer_position", "advisory__vulnerability", "advisory__summary",
            "package__type", "package__namespace", "package__name", "severity", "fixed_version",
        )
        .distinct()
    )  # fmt: skip
    before: dict[FindingKey, tuple[Any, ...]] = {}
    after: dict[FindingKey, tuple[Any, ...]] = {}
    for image_id, position, osv_id, summary, kind, namespace, name, severity, fixed in rows:
        key = FindingKey(osv_id, kind, full_name(namespace, name))
        for side, ids in ((before, old), (after, new)):
            if image_id in ids and (key not in side or (fixed and not side[key][2])):
                side[key] = (severity, summary, fixed, image_id, position)
    unjudged = unjudged_in(new) if before.keys() - after.keys() else Unjudged()
    fixed_now = fixed_keys(before, after, unjudged)
    lines = []
    for key in before.keys() | after.keys():
        if key in after:
            change = Change.SAME if key in before else Change.NEW
        elif key in unjudged.decided:
            continue
        else:
            change = Change.FIXED if key in fixed_now else Change.UNKNOWN
        severity, summary, fixed, image_id, position = after.get(key) or before[key]
        first, second = (side.get((key.type, key.name), {}) for side in versions_by_side)
        lines.append(
            FindingLine(
                change=change,
                severity=severity,
                osv_id=key.osv_id,
                summary=summary,
                package=_short(key.type, key.name),
                before=_join(first),
                after=_join(second),
                fixed_version=fixed,
                layer=_layer_words(layers[image_id], position),
            )
        )
    lines.sort(key=lambda x: (_ORDER[x.change], _RANK[x.severity], x.osv_id, x.package))
    return lines, advisory_changes(before, after.keys(), unjudged)


def _layer_words(layers: list[Layer], position: int | None) -> str:
    if position is None:
        return "layer unknown"
    return f"layer {position + 1} of {len(layers)}" if layers else f"layer {position + 1}"
