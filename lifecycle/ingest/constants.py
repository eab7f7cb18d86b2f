"""Bounds of what a registry may send us."""

from __future__ import annotations

from typing import Final

HOOK_BODY_MAX_BYTES: Final = 1024 * 1024
EVENTS_MAX: Final = 1000  # in one delivery; Distribution sends one
NAME_MAX: Final = 200  # characters of an instance's or an event's id, as stored
SETTLE_S: Final = 60  # how long a protected tag's unnamed mover may take to be named, by the push's notification
UNTAGGED_CHECKS: Final = 500  # images without a tag that one crawl asks for: some seconds of a crawl's time
