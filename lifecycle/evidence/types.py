"""The identity of a finding across package versions and images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class FindingKey:
    """The identity of a finding, independent of the version: the advisory, and the package by type and full name."""

    osv_id: str  # the vulnerability's name, shared by all its records (Advisory.vulnerability)
    type: str
    name: str  # with the namespace: "debian/openssl"


def full_name(namespace: str, name: str) -> str:
    """Return a package's name with its namespace, for FindingKey."""
    return f"{namespace}/{name}" if namespace else name
