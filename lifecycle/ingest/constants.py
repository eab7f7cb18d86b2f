"""Bounds of what a registry may send us."""

from __future__ import annotations

from typing import Final

HOOK_BODY_MAX_BYTES: Final = 1024 * 1024
EVENTS_MAX: Final = 1000  # in one delivery; Distribution sends one
NAME_MAX: Final = 200  # characters of an instance's or an event's id, as stored
