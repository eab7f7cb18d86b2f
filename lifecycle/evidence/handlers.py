"""Reactions to events that change the finding counts of images."""

from __future__ import annotations

from lifecycle import events
from lifecycle.events import subscribe
from lifecycle.evidence.risk import images_with_packages, refresh_risk


@subscribe(events.ImagesScanned)
def count_scanned(event: events.ImagesScanned) -> None:
    """Count the findings of newly scanned images."""
    refresh_risk(event.image_ids)


@subscribe(events.MatchesChanged)
def count_matched(event: events.MatchesChanged) -> None:
    """Count the findings of every image that contains one of these package versions."""
    refresh_risk(images_with_packages(event.package_ids))
