"""The base of the details that are stored with audit events, and those that many areas share."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Details:
    """Base of all details. Field names are the stored keys; no field may contain a secret."""

    def as_json(self) -> dict[str, Any]:
        """Return the details as they are stored."""
        return {field.name: _as_json(getattr(self, field.name)) for field in fields(self)}


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _as_json(getattr(value, field.name)) for field in fields(value)}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class UserDetails(Details):
    """The name of the account concerned; "unknown" for a sign-in without an account."""

    user: str


@dataclass(frozen=True, slots=True)
class TagDetails(Details):
    """The name of the tag concerned."""

    tag: str
