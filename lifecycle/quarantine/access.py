"""Quarantines and images by the ids in a request: check that the actor can see them, and lock."""

from __future__ import annotations

from django.db.models import F

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.access import image_for
from lifecycle.authority.queries import images_visible_to, repositories_visible_to
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covers_of, quarantines_visible_to
from lifecycle.registry.models import Image, Repository, RepositoryImage


def quarantine_for(actor: User, quarantine_id: int, *, locked: bool = False) -> Quarantine:
    """Return a quarantine that `actor` can see, perhaps locked; raises NotFound."""
    rows = quarantines_visible_to(actor).filter(pk=quarantine_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("Quarantine not found, or you don't have access.")
    return row


def lock_quarantine_over(actor: User, quarantine_id: int, image: Image) -> Quarantine:
    """Return a quarantine, locked, that `actor` can see or that covers `image`; raises NotFound.

    So the owners of an image can exempt it, even if they cannot see the base that is quarantined.
    """
    if not covers_of([image.pk], quarantine_id=quarantine_id):
        return quarantine_for(actor, quarantine_id, locked=True)
    rows = Quarantine.objects.select_related("image", "team", "created_by").select_for_update(of=("self",))
    return rows.get(pk=quarantine_id)


def image_to_judge(actor: User, digest: str) -> Image:
    """Return the image or Helm chart `digest` if `actor` can see it; raises NotFound, also for a signature."""
    image = image_for(actor, digest)
    if not image.is_content:
        raise NotFound("Image not found, or you don't have access.")
    return image


def place_of(actor: User, image: Image) -> Repository | None:
    """Return a repository with the image on which `actor` has image.quarantine, a source before a target; or None."""
    held = RepositoryImage.objects.filter(image=image, removed_at=None).values("repository")
    rows = repositories_visible_to(actor, Verb.IMAGE_QUARANTINE).filter(pk__in=held).select_related("team")
    return rows.order_by(F("environment").asc(nulls_first=True), "pk").first()


def why_not_quarantine(actor: User, image: Image) -> Reason | None:
    """Return why `actor` cannot quarantine, release or exempt an image: no repository with it gives the right."""
    if images_visible_to(actor, Verb.IMAGE_QUARANTINE).filter(pk=image.pk).exists():
        return None
    return Reason(
        "You need image.quarantine on a repository that has this image. Ask an owner of its team to grant it."
    )
