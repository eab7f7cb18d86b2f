"""What is known of an image's findings, in three values: open, none, unknown. Nothing unknown may look like none.

Pages, API, metrics and gates ask this module, so that no list shows "none open" for an image that nobody could judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from django.db.models import Case, F, Q, QuerySet, Value, When

from lifecycle.registry.models import Image
from lifecycle.registry.platforms import PlatformEntry, entries_of_images

NOT_SCANNED = "not scanned yet"
NO_PACKAGES = "no packages recognised"
NO_PLATFORMS = "no platform that can be read"


class Known(StrEnum):
    """The three values."""

    OPEN = "open"  # at least one open finding; packages can be unjudged as well
    NONE = "none"  # every package was judged, and none has an open finding
    UNKNOWN = "unknown"  # no open finding is known, but something could not be judged


class Counted(Protocol):
    """The stored counts of a platform manifest: an `Image`, or a row with the same columns."""

    @property
    def scanned_at(self) -> datetime | None: ...
    @property
    def scan_problem(self) -> str: ...
    @property
    def package_count(self) -> int: ...
    @property
    def dropped_count(self) -> int: ...
    @property
    def unjudged_count(self) -> int: ...
    @property
    def unjudged_reasons(self) -> Mapping[str, int] | None: ...
    @property
    def finding_count(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """The knowledge about the findings of one platform manifest."""

    state: Known
    open_count: int | None  # None while the image is not scanned
    unjudged_count: int
    package_count: int  # packages that the scan saw, judged or not
    reasons: Mapping[str, int]  # why packages could not be judged, and how many; most first
    why: str  # what is unknown, as a phrase without a full stop; "" when nothing is

    @property
    def judged_count(self) -> int:
        """Number of packages that were compared with advisories."""
        return self.package_count - self.unjudged_count


def judgement_of(image: Counted) -> Judgement:
    """Return what is known of the findings of a platform manifest, from its stored counts."""
    if image.scanned_at is None:
        why = f"scan failed: {image.scan_problem}" if image.scan_problem else NOT_SCANNED
        return Judgement(Known.UNKNOWN, None, 0, 0, {}, why.rstrip("."))
    seen = image.package_count + image.dropped_count
    reasons = dict(sorted((image.unjudged_reasons or {}).items(), key=lambda item: (-item[1], item[0])))
    parts = [unjudged_words(image.unjudged_count, seen, reasons)]
    if not seen:
        parts.append(NO_PACKAGES)
    if image.scan_problem:
        parts.append(image.scan_problem.rstrip("."))
    why = "; ".join(part for part in parts if part)
    state = Known.OPEN if image.finding_count else Known.UNKNOWN if why else Known.NONE
    return Judgement(state, image.finding_count, image.unjudged_count, seen, reasons, why)


@dataclass(frozen=True, slots=True)
class OfIndex:
    """The knowledge about all platforms of an index."""

    worst: Image | None  # the platform with the most severe counts; None while no platform is scanned
    platform_count: int
    judgement: Judgement  # the counts of `worst`; `why` names each platform of which something is unknown


def add_platforms(images: Iterable[Image]) -> None:
    """Set `platform_entries` on each index in `images`, for `judgement_of_index`. No query without an index."""
    indexes = [image for image in images if image.kind == Image.Kind.INDEX]
    entries = entries_of_images(indexes) if indexes else {}
    for image in indexes:
        image.platform_entries = entries[image.pk]  # type: ignore[attr-defined]  # only lists need it


def judgement_of_index(entries: Sequence[PlatformEntry]) -> OfIndex:
    """Return what is known of the findings of an index. Its platforms are mostly the same software, so the counts are
    those of the worst one: a sum would count a finding once for each platform.
    """
    known = [(entry, judgement_of(entry.child)) for entry in entries]
    unknown = [f"{entry.platform or entry.child.short_digest}: {one.why}" for entry, one in known if one.why]
    why = "; ".join(unknown) if entries else NO_PLATFORMS
    scanned = [(entry.child, one) for entry, one in known if one.open_count is not None]
    if not scanned:
        return OfIndex(None, len(entries), Judgement(Known.UNKNOWN, None, 0, 0, {}, why))
    worst, its = max(scanned, key=lambda item: _severity_of(item[0]))
    state = Known.OPEN if its.open_count else Known.UNKNOWN if why else Known.NONE
    judgement = Judgement(state, its.open_count, its.unjudged_count, its.package_count, its.reasons, why)
    return OfIndex(worst, len(entries), judgement)


def _severity_of(image: Image) -> tuple[int, ...]:
    return (image.critical_count, image.high_count, image.medium_count, image.low_count, image.unknown_count)


def unjudged_words(count: int, total: int, reasons: Mapping[str, int]) -> str:
    """Return "2 of 80 packages could not be judged: <reason> (2)", with at most three reasons; "" for none."""
    if not count:
        return ""
    named = [f"{reason} ({number:,})" for reason, number in list(reasons.items())[:3]]
    if len(reasons) > len(named):
        named.append(f"{len(reasons) - len(named)} other reasons")
    words = f"{count:,} of {total:,} package{'' if total == 1 else 's'} could not be judged"
    return f"{words}: {', '.join(named)}" if named else words


def with_known(images: QuerySet[Image]) -> QuerySet[Image]:
    """Annotate platform manifests with `known`, the value of `judgement_of` in SQL, for counts over many images."""
    findings = F("critical_count") + F("high_count") + F("medium_count") + F("low_count") + F("unknown_count")
    nothing_seen = Q(package_count=0, dropped_count=0)
    return images.annotate(all_findings=findings).annotate(
        known=Case(
            When(scanned_at=None, then=Value(Known.UNKNOWN.value)),
            When(all_findings__gt=0, then=Value(Known.OPEN.value)),
            When(nothing_seen | Q(unjudged_count__gt=0) | ~Q(scan_problem=""), then=Value(Known.UNKNOWN.value)),
            default=Value(Known.NONE.value),
        )
    )
