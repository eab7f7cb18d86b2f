"""Compares two images: findings, packages, layers, configuration. A fixed number of queries, whatever they hold."""

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
from lifecycle.evidence.open_findings import open_matches
from lifecycle.evidence.types import FindingKey, full_name
from lifecycle.registry.models import Image, Layer
from lifecycle.registry.platforms import entries_of_images
from lifecycle.sbom.models import InventoryPackage

_RANK: Final = {word: rank for rank, word in enumerate(READING_ORDER)}
_ORDER: Final = {Change.NEW: 0, Change.FIXED: 1, Change.SAME: 2}
# Entries of an image configuration (image-spec config.md) that people set; the rest follows from the build.
_SETTINGS: Final = ("User", "Entrypoint", "Cmd", "WorkingDir", "StopSignal", "Healthcheck", "Shell")
_SETS: Final = (("ExposedPorts", "Port"), ("Volumes", "Volume"))
_VALUE_MAX: Final = 300  # characters shown of one value


@dataclass(frozen=True, slots=True)
class _Held:
    """How a package version in an image is ordered."""

    scheme: str
    version: str  # as its scheme orders it: for a distribution's package, the source's


def compare(before: Image | None, after: Image) -> Comparison:
    """Return what changes when `after` takes the place of `before` (None: nothing was there)."""
    images = [after] if before is None else [before, after]
    platforms = entries_of_images(images)
    here = platforms.get(after.pk, [])
    there = platforms.get(before.pk, []) if before is not None else []
    old, new = {child.pk for _, child in there}, {child.pk for _, child in here}
    layers = _layers(old | new)
    is_known = bool(here) and all(child.scanned_at is not None for _, child in [*here, *there])
    if before is not None and not there:
        is_known = False
    held: Sides = _held_packages(old, new) if is_known else ({}, {})
    return Comparison(
        before=before,
        after=after,
        is_known=is_known,
        platforms=tuple(_pairs(there, here, layers)),
        packages=tuple(_packages(held)),
        findings=tuple(_findings(old, new, held, layers)) if is_known else (),
    )


def _layers(image_ids: Iterable[int]) -> dict[int, list[Layer]]:
    found: dict[int, list[Layer]] = defaultdict(list)
    for layer in Layer.objects.filter(image__in=list(image_ids)).order_by("image", "position"):
        found[layer.image_id].append(layer)
    return found


def _layer_id(layer: Layer) -> str:
    return layer.digest or layer.diff_id


def _pairs(
    there: Sequence[tuple[str, Image]], here: Sequence[tuple[str, Image]], layers: dict[int, list[Layer]]
) -> Iterable[PlatformPair]:
    """Yield the platforms of the later image in its order, then those that only the earlier one has.

    Two single manifests are compared whatever their platforms are called.
    """
    if len(here) == len(there) == 1:
        yield _pair(here[0][0], there[0][1], here[0][1], layers)
        return
    old = dict(there)
    for platform, image in here:
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
    """Return the configuration that people set, one entry a name; what is not of the expected shape is left out."""
    config = image.config.get("config") if isinstance(image.config, dict) else None
    if not isinstance(config, dict):
        return {}
    found = {name: _words(config[name]) for name in _SETTINGS if config.get(name)}
    for entry in config.get("Env") or []:
        name, _, value = str(entry).partition("=")
        found[f"Env {name}"] = value[:_VALUE_MAX]
    for field, word in _SETS:
        found |= {f"{word} {name}": "set" for name in config.get(field) or {}}
    labels = config.get("Labels")
    if isinstance(labels, dict):
        found |= {f"Label {name}": str(value)[:_VALUE_MAX] for name, value in labels.items()}
    return found


def _words(value: Any) -> str:
    return " ".join(map(str, value))[:_VALUE_MAX] if isinstance(value, list) else str(value)[:_VALUE_MAX]


Sides = tuple[dict[tuple[str, str], dict[str, _Held]], dict[tuple[str, str], dict[str, _Held]]]


def _held_packages(old: set[int], new: set[int]) -> Sides:
    """Return, for the earlier and the later image, {(type, full name): {version: ...}}."""
    rows = (
        InventoryPackage.objects.filter(inventory__image_inventories__image__in=old | new)
        .values_list(
            "inventory__image_inventories__image", "package__type", "package__namespace", "package__name",
            "package__version", "package__match_version", "package__scheme",
        )
        .distinct()
    )  # fmt: skip
    before: dict[tuple[str, str], dict[str, _Held]] = defaultdict(dict)
    after: dict[tuple[str, str], dict[str, _Held]] = defaultdict(dict)
    for image_id, kind, namespace, name, version, ordered, scheme in rows:
        held = _Held(scheme, ordered)
        for side, ids in ((before, old), (after, new)):
            if image_id in ids:
                side[kind, full_name(namespace, name)][version] = held
    return before, after


def _packages(held: Sides) -> list[PackageLine]:
    before, after = held
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
    """Return a package's name as people say it: a distribution's packages go without the distribution."""
    return name.rpartition("/")[2] if kind in {"deb", "rpm", "apk"} else name


def _direction(before: list[_Held], after: list[_Held]) -> Change:
    if not before:
        return Change.NEW
    if not after:
        return Change.GONE
    if len(before) == len(after) == 1 and before[0].scheme == after[0].scheme:
        try:
            order = versions.compare(before[0].scheme, before[0].version, after[0].version)
        except ValueError:  # no scheme, or a version that is invalid in its scheme
            return Change.OTHER
        if order:
            return Change.UP if order < 0 else Change.DOWN
    return Change.OTHER


def _findings(old: set[int], new: set[int], held: Sides, layers: dict[int, list[Layer]]) -> list[FindingLine]:
    path = "package__inventory_packages__inventory__image_inventories"
    rows = (
        open_matches().filter(**{f"{path}__image__in": old | new})
        .values_list(
            f"{path}__image", f"{path}__layer_position", "advisory__osv_id", "advisory__summary", "package__type",
            "package__namespace", "package__name", "severity", "fixed_version",
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
    lines = []
    for key in before.keys() | after.keys():
        change = Change.SAME if key in before and key in after else Change.NEW if key in after else Change.FIXED
        severity, summary, fixed, image_id, position = after.get(key) or before[key]
        first, second = held[0].get((key.type, key.name), {}), held[1].get((key.type, key.name), {})
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
    return sorted(lines, key=lambda x: (_ORDER[x.change], _RANK[x.severity], x.osv_id, x.package))


def _layer_words(layers: list[Layer], position: int | None) -> str:
    if position is None:
        return "layer not known"
    return f"layer {position + 1} of {len(layers)}" if layers else f"layer {position + 1}"
