"""The severities of findings and their sort orders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CRITICAL, HIGH, MEDIUM, LOW, NONE, UNKNOWN = "critical", "high", "medium", "low", "none", "unknown"

# Worst first. A record without a severity comes after all others.
SEVERITIES: Final = (CRITICAL, HIGH, MEDIUM, LOW, NONE, UNKNOWN)

# Order on pages: "unknown" can be severe, while "none" means that the record declares no harm.
READING_ORDER: Final = (CRITICAL, HIGH, MEDIUM, LOW, UNKNOWN, NONE)

# Severities with a stored count at an image, `<severity>_count`. The count of "unknown" includes "none".
COUNTED: Final = READING_ORDER[:-1]


RANKS: Final = {severity: rank for rank, severity in enumerate(SEVERITIES)}  # 0 is critical


def worse(severity: str, other: str | None) -> str:
    """Return the worse of two severities; `other` can be None."""
    return severity if other is None or RANKS[severity] < RANKS[other] else other


def worst(severities: Iterable[str]) -> str:
    """Return the worst of these severities; "unknown" without any."""
    return min(severities, key=RANKS.__getitem__, default=UNKNOWN)


def is_rise(before: str, now: str) -> bool:
    """Return whether a severity rose so that people need to know. A severity that becomes known is one from "high"."""
    return RANKS[now] < RANKS[before] and (before != UNKNOWN or RANKS[now] <= RANKS[HIGH])
