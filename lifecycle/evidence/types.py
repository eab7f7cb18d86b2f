"""What a finding is known by, over versions of a package and over images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class FindingKey:
    """One finding as it stays the same over versions: the advisory, and the package by type and full name."""

    osv_id: str
    type: str
    name: str  # with its namespace: "debian/openssl"


def full_name(namespace: str, name: str) -> str:
    """Return a package's name with its namespace, as FindingKey has it."""
    return f"{namespace}/{name}" if namespace else name
