"""The events: frozen classes with ids and plain values, so that this package imports no model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """A change made by a service, in the transaction that is still open."""


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
    """Repositories were stored, after the first push, import or crawl."""

    repository_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TagMoved(Event):
    """A tag was created, or moved to another image."""

    repository_id: int
    tag: str
    image_id: int


@dataclass(frozen=True, slots=True)
class ImagesScanned(Event):
    """The package lists of these images were stored. `new_package_ids` are the package versions that are new."""

    image_ids: tuple[int, ...]
    new_package_ids: tuple[int, ...]
    actor_id: int  # on whose behalf follow-up jobs run


@dataclass(frozen=True, slots=True)
class ImagesImported(Event):
    """Images were imported from an inventory file. Subscribers do all their work now, because workers may not run."""

    image_ids: tuple[int, ...]
    new_package_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DerivationsChanged(Event):
    """The direct base images of these images changed."""

    image_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class MatchesChanged(Event):
    """The advisories that match these package versions changed."""

    package_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class RightsChanged(Event):
    """Role grants of these users changed, or their accounts were activated or deactivated."""

    user_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CoverageChanged(Event):
    """Feeds began or stopped to cover these (ecosystem, release) pairs."""

    pairs: tuple[tuple[str, str], ...]
