"""Domain events: a service publishes what happened, and higher packages subscribe. No signals."""

from lifecycle.events.bus import collected, publish, subscribe, subscriptions
from lifecycle.events.types import (
    BaseDeclared,
    CoverageChanged,
    DerivationsChanged,
    Event,
    ImageIngested,
    ImagesImported,
    ImagesScanned,
    MatchesChanged,
    RepositoriesCreated,
    RightsChanged,
    TagMoved,
    UnscannedImagePushed,
)

__all__ = [
    "BaseDeclared",
    "CoverageChanged",
    "DerivationsChanged",
    "Event",
    "ImageIngested",
    "ImagesImported",
    "ImagesScanned",
    "MatchesChanged",
    "RepositoriesCreated",
    "RightsChanged",
    "TagMoved",
    "UnscannedImagePushed",
    "collected",
    "publish",
    "subscribe",
    "subscriptions",
]
