"""The changes from one image to another: one object for all pages, the API and the evidence of votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lifecycle.evidence.findings import AdvisoryChanges
from lifecycle.evidence.judgement import Judgement, Known
from lifecycle.registry.models import Image


class Change(StrEnum):
    """How an item of the later image differs from the earlier one."""

    NEW = "new"
    GONE = "gone"
    UP = "up"
    DOWN = "down"
    OTHER = "other"  # another version, and their order is unknown
    FIXED = "fixed"
    SAME = "same"
    UNKNOWN = "unknown"  # a finding of the earlier image whose package cannot be judged in the later one


@dataclass(frozen=True, slots=True)
class FindingLine:
    """A finding of one or both images."""

    change: Change  # FIXED, NEW, SAME or UNKNOWN
    severity: str
    osv_id: str  # the vulnerability's name: its CVE id if it has one
    summary: str
    package: str
    before: str  # package versions in the earlier image; "" when it has none
    after: str
    fixed_version: str
    layer: str  # the layer that added the package, for example "layer 2 of 5"


@dataclass(frozen=True, slots=True)
class AdvisoryLine:
    """One vulnerability, with the packages that have it."""

    severity: str
    osv_id: str  # "" for findings without an advisory
    packages: tuple[str, ...]  # names


@dataclass(frozen=True, slots=True)
class PackageLine:
    """A package whose versions differ."""

    change: Change
    type: str
    name: str
    before: str  # versions, joined by ", "; "" when absent
    after: str


@dataclass(frozen=True, slots=True)
class LayerLine:
    """One layer of the later image."""

    number: int  # the first base layer is 1
    digest: str
    size_bytes: int
    created_by: str
    is_shared: bool  # also in the earlier image


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One different entry of the image configuration."""

    name: str  # "Env PATH", "Label org.example", "User"
    before: str | None  # None: not set
    after: str | None


@dataclass(frozen=True, slots=True)
class PlatformPair:
    """The manifests of one platform in both images; None when an image does not have the platform."""

    platform: str
    before: Image | None
    after: Image | None
    layers: tuple[LayerLine, ...]  # of the later image, base first
    settings: tuple[SettingLine, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The changes from `before` to `after`. When there is no earlier image, `before` is None and everything is new."""

    before: Image | None
    after: Image
    is_known: bool  # all platforms of both are scanned; else `findings` and `packages` are empty
    platforms: tuple[PlatformPair, ...]
    packages: tuple[PackageLine, ...]
    findings: tuple[FindingLine, ...]  # new, unknown, fixed, same; worst severity first in each
    advisories: AdvisoryChanges = field(default_factory=AdvisoryChanges)
    known_before: tuple[Judgement, ...] = ()  # of each platform of `before`
    known_after: tuple[Judgement, ...] = ()

    def findings_that_are(self, change: Change) -> tuple[FindingLine, ...]:
        return tuple(line for line in self.findings if line.change == change)

    @property
    def new(self) -> tuple[FindingLine, ...]:
        return self.findings_that_are(Change.NEW)

    @property
    def fixed(self) -> tuple[FindingLine, ...]:
        return self.findings_that_are(Change.FIXED)

    def advisories_that_are(self, change: Change) -> tuple[AdvisoryLine, ...]:
        """The findings with this change, each vulnerability once, in the order of `findings`.

        A distribution splits one source package into many binary packages: each has a finding of the same advisory.
        """
        lines: dict[str, list[FindingLine]] = {}
        for line in self.findings_that_are(change):
            lines.setdefault(line.osv_id or line.package, []).append(line)
        return tuple(
            AdvisoryLine(
                rows[0].severity,
                rows[0].osv_id,
                tuple(dict.fromkeys(row.package for row in rows)),
            )
            for rows in lines.values()
        )

    @property
    def new_advisories(self) -> tuple[AdvisoryLine, ...]:
        return self.advisories_that_are(Change.NEW)

    @property
    def fixed_advisories(self) -> tuple[AdvisoryLine, ...]:
        return self.advisories_that_are(Change.FIXED)

    @property
    def same(self) -> tuple[FindingLine, ...]:
        return self.findings_that_are(Change.SAME)

    @property
    def unknown(self) -> tuple[FindingLine, ...]:
        return self.findings_that_are(Change.UNKNOWN)

    @property
    def unjudged_count(self) -> int:
        """Number of packages of the later image that could not be judged."""
        return sum(known.unjudged_count for known in self.known_after)

    @property
    def is_none_open(self) -> bool:
        """Whether all of the later image was judged, and it has no open finding."""
        return bool(self.known_after) and all(known.state == Known.NONE for known in self.known_after)

    @property
    def unknown_words(self) -> str:
        """What could not be judged in the later image, as a phrase; "" when nothing."""
        return "; ".join(dict.fromkeys(known.why for known in self.known_after if known.why))

    @property
    def changed_findings(self) -> tuple[FindingLine, ...]:
        return tuple(line for line in self.findings if line.change != Change.SAME)

    @property
    def package_counts(self) -> Mapping[Change, int]:
        """Number of packages for each kind of change; 0 for a change that does not occur."""
        counts = dict.fromkeys((Change.UP, Change.DOWN, Change.OTHER, Change.NEW, Change.GONE), 0)
        for line in self.packages:
            counts[line.change] += 1
        return counts

    @property
    def package_words(self) -> str:
        """Counts of changed packages in words: "23 up, 2 new", or "none"."""
        words = {Change.OTHER: "changed"}
        counts = [
            f"{count} {words.get(change, change.value)}" for change, count in self.package_counts.items() if count
        ]
        return ", ".join(counts) or "none"

    @property
    def size_bytes(self) -> int:
        """Compressed size of all platforms of the later image, in bytes."""
        return sum(pair.after.size_bytes for pair in self.platforms if pair.after is not None)

    @property
    def size_change_bytes(self) -> int:
        return self.size_bytes - sum(pair.before.size_bytes for pair in self.platforms if pair.before is not None)

    @property
    def layer_count(self) -> int:
        return sum(len(pair.layers) for pair in self.platforms)

    @property
    def new_layer_count(self) -> int:
        return sum(not layer.is_shared for pair in self.platforms for layer in pair.layers)

    @property
    def settings_count(self) -> int:
        return sum(len(pair.settings) for pair in self.platforms)

    @property
    def is_nothing(self) -> bool:
        """Whether both sides are the same image."""
        return self.before is not None and self.before.pk == self.after.pk

    def as_json(self) -> dict[str, Any]:
        """Return the object that the API and the command line print."""
        return {
            "before": self.before.digest if self.before else None,
            "after": self.after.digest,
            "is_known": self.is_known,
            "summary": {
                "advisories": {
                    "fixed": len(self.advisories.fixed),
                    "new": len(self.advisories.new),
                    "same": len(self.advisories.same),
                    "unknown": len(self.advisories.unknown),
                },
                "findings": {
                    "fixed": len(self.fixed),
                    "new": len(self.new),
                    "same": len(self.same),
                    "unknown": len(self.unknown),
                },
                "unjudged": {
                    "before": sum(known.unjudged_count for known in self.known_before),
                    "after": self.unjudged_count,
                    "why": self.unknown_words,
                },
                "packages": {change.value: count for change, count in self.package_counts.items()},
                "size_bytes": self.size_bytes,
                "size_change_bytes": self.size_change_bytes,
                "layers": {"total": self.layer_count, "new": self.new_layer_count},
                "settings": self.settings_count,
            },
            "findings": [
                {
                    "change": line.change.value,
                    "severity": line.severity,
                    "advisory": line.osv_id,
                    "package": line.package,
                    "before": line.before or None,
                    "after": line.after or None,
                    "fixed_version": line.fixed_version or None,
                }
                for line in self.findings
            ],
            "packages": [
                {
                    "change": line.change.value,
                    "type": line.type,
                    "name": line.name,
                    "before": line.before or None,
                    "after": line.after or None,
                }
                for line in self.packages
            ],
            "platforms": [
                {
                    "platform": pair.platform,
                    "before": pair.before.digest if pair.before else None,
                    "after": pair.after.digest if pair.after else None,
                    "layers": [
                        {"digest": layer.digest, "size_bytes": layer.size_bytes, "is_shared": layer.is_shared}
                        for layer in pair.layers
                    ],
                    "settings": [
                        {"name": line.name, "before": line.before, "after": line.after} for line in pair.settings
                    ],
                }
                for pair in self.platforms
            ],
        }
