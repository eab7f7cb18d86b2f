"""The events: frozen classes that carry ids and plain values, so that this package needs no model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a service did, in the transaction that is still open."""


@dataclass(frozen=True, slots=True)
class ImageIngested(Event):
    """The content of a platform manifest was stored for the first time."""

    image_id: int


@dataclass(frozen=True, slots=True)
class UnscannedImagePushed(Event):
    """An image whose last scan failed was pushed again."""

    image_id: int


@dataclass(frozen=True, slots=True)
class BaseDeclared(Event):
    """An index was stored, or an index declared the base of an image that was stored before it."""

    image_id: int


@dataclass(frozen=True, slots=True)
class RepositoriesCreated(Event):
    """Repositories got their rows: they were pushed to, imported or crawled for the first time."""

    repository_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TagMoved(Event):
    """A tag was created, or moved to another image."""

    repository_id: int
    tag: str
    image_id: int


@dataclass(frozen=True, slots=True)
class ImagesScanned(Event):
    """The package lists of these images were stored. Package versions in `new_package_ids` were never seen before."""

    image_ids: tuple[int, ...]
    new_package_ids: tuple[int, ...]
    actor_id: int  # on whose behalf follow-up jobs run


@dataclass(frozen=True, slots=True)
class ImagesImported(Event):
    """Images came from an inventory file. Subscribers do all their work now: an import may run without workers."""

    image_ids: tuple[int, ...]
    new_package_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DerivationsChanged(Event):
    """The immediate bases of these images changed."""

    image_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class MatchesChanged(Event):
    """Advisories were matched to these package versions, or no longer match them."""

    package_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class RightsChanged(Event):
    """Role grants of these users changed, or their accounts were activated or deactivated."""

    user_ids: tuple[int, ...]
