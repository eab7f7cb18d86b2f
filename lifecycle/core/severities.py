"""The words for how bad a finding is, and the orders in which they stand."""

from __future__ import annotations

from typing import Final

CRITICAL, HIGH, MEDIUM, LOW, NONE, UNKNOWN = "critical", "high", "medium", "low", "none", "unknown"

# Worst first. A record that says nothing yields to one that says anything.
SEVERITIES: Final = (CRITICAL, HIGH, MEDIUM, LOW, NONE, UNKNOWN)

# As a reader takes them: what is not known may be bad; "none" is a record's own word that it does no harm.
READING_ORDER: Final = (CRITICAL, HIGH, MEDIUM, LOW, UNKNOWN, NONE)

# Those an image has a stored count of, `<word>_count`; that of the unknown ones holds "none" too.
COUNTED: Final = READING_ORDER[:-1]


def worse(severity: str, other: str | None) -> str:
    """Return the worse of two severities; `other` may be missing."""
    return severity if other is None or SEVERITIES.index(severity) < SEVERITIES.index(other) else other
