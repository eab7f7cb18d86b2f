"""Limits on the data that a registry can send us, and on the work of a crawl."""

from __future__ import annotations

from typing import Final

HOOK_BODY_MAX_BYTES: Final = 1024 * 1024
EVENTS_MAX: Final = 1000  # in one delivery; Distribution sends one
NAME_MAX: Final = 200  # characters of an instance's or an event's id, as stored
SETTLE_S: Final = 60  # time for a notification to name the user who moved a protected tag
PROBLEMS_LOGGED: Final = 100  # lines with problems in the log of one crawl
UNTAGGED_CHECKS: Final = 500  # untagged images that one crawl checks in the registry: some seconds of its time
