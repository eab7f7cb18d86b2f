"""What is known of an image's findings, in three values: open, none, unknown. Nothing unknown may look like none.

Pages, API, metrics and gates ask this module, so that no list shows "none open" for an image that nobody could judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from django.db.models import Case, F, Q, QuerySet, Value, When

from lifecycle.registry.models import Image

NOT_SCANNED = "not scanned yet"
NO_PACKAGES = "no packages recognised"


class Known(StrEnum):
    """The three values."""

    OPEN = "open"  # at least one open finding; packages can be unjudged as well
    NONE = "none"  # every package was judged, and none has an open finding
    UNKNOWN = "unknown"  # no open finding is known, but something could not be judged


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


def judgement_of(image: Image) -> Judgement:
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
