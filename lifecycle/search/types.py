"""What a search finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Kinds of hits, in the order of the result.
KINDS: Final = ("request", "release set", "wave", "quarantine", "image", "repository", "tag", "advisory", "package")


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that a search found: what it is, and the page that shows it."""

    kind: str  # one of KINDS
    name: str
    detail: str
    page: str  # the name of a URL of the pages
    page_args: tuple[str | int, ...]
