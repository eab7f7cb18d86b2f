"""What a quarantine means for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lifecycle.core.errors import NotPermitted, PolicyBlocked


class SecondPersonNeeded(NotPermitted):
    """Another person has to do this: whoever quarantined the image, or asked for its release, cannot."""

    code: ClassVar[str] = "second_person_needed"


class Quarantined(PolicyBlocked):
    """A quarantine covers the image."""

    code: ClassVar[str] = "quarantined"


@dataclass(frozen=True, slots=True)
class Cover:
    """One live quarantine that covers an image."""

    quarantine_id: int
    reason: str  # "" for readers who may not know it
    is_direct: bool  # the digest itself is quarantined, or it is the index or a platform of the digest
    is_withdrawn: bool = False  # and only users with image.quarantine can pull it from the managed registry

    @property
    def name(self) -> str:
        return f"Q-{self.quarantine_id}"

    @property
    def words(self) -> str:
        """The sentence for pages and refusals."""
        if not self.reason:
            return self.short
        return f"{self.short[:-1]}: {self.reason.strip().rstrip('.')[:300]}."

    @property
    def short(self) -> str:
        """The sentence without the reason, for people who may not see the image."""
        how = "The image is" if self.is_direct else "The image is built on an image that is"
        return f"{how} quarantined ({self.name})."
