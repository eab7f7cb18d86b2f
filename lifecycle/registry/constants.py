"""Names and limits of our own in repositories."""

from __future__ import annotations

from typing import Final

PROTECTED_PATTERNS_MAX: Final = 50  # of one repository


# What the tags begin with that our own workers push beside an image's own: results before they count, build contexts.
# Nobody builds on them, and pages leave them out unless asked.
OWN_TAGS: Final = ("rebuild-", "build-context-")
