"""Roll an environment back to an image that was there before: a short path with at most one approval."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.rights import may
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment, Slot
from lifecycle.promotion.access import promotable_image
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import MOVING_STATES
from lifecycle.promotion.refusals import why_not_from, why_not_request
from lifecycle.promotion.services import create_request, lock_slot, replace_live
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.registry.models import Image, Repository

State, Kind = PromotionRequest.State, PromotionRequest.Kind
EARLIER_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Earlier:
    """An image that was promoted to the environment before: its last tag there, and when that was."""

    image: Image
    tag: str
    at: datetime | None


def earlier_images(repository: Repository, environment: Environment) -> list[Earlier]:
    """Return the images that were promoted there before the present one, the latest first, each once."""
    slot = Slot.objects.filter(repository=repository, environment=environment).first()
    done = PromotionRequest.objects.filter(repository=repository, environment=environment, state=State.SUCCEEDED)
    done = done.exclude(image=slot.image_id if slot is not None else None).select_related("image")
    found: dict[int, Earlier] = {}
    for row in done.order_by("-finished_at", "-pk")[: EARLIER_MAX * 5]:
        found.setdefault(row.image_id, Earlier(row.image, row.tag, row.finished_at))
    return list(found.values())[:EARLIER_MAX]


def why_not_roll_back(actor: User, repository: Repository, environment: Environment) -> Reason | None:
    """Return why `actor` cannot roll back: who may run promotions there can, and who may request them."""
    decision = may(actor, Verb.PROMOTION_EXECUTE, repository=repository, environment=environment)
    return why_not_from(repository, environment) if decision else why_not_request(actor, repository, environment)


@transaction.atomic
def request_rollback(
    repository: Repository, environment: Environment, *, actor: User, reason: str, digest: str = ""
) -> PromotionRequest:
    """Request a rollback to `digest`, or to the image before the present one.

    An unfinished rollback to the same image is returned instead, and a waiting request of another kind for it is
    superseded. Raises NotPermitted, Malformed, NotFound when the image was never promoted there, Conflict.
    """
    refuse_if(why_not_roll_back(actor, repository, environment))
    if not reason.strip():
        raise Malformed("Enter a reason: others need to know what is wrong with the present image.")
    slot = lock_slot(repository, environment)
    wanted = Digest.parse(digest).text if digest else ""
    if slot.image is not None and slot.image.digest == wanted:
        raise Conflict(f"This image is already deployed in {environment.slug}.")
    earlier = earlier_images(repository, environment)
    chosen = next((row for row in earlier if not wanted or row.image.digest == wanted), None)
    if chosen is None:
        what = "This image was" if wanted else "No earlier image was"
        raise NotFound(f"{what} {'never ' if wanted else ''}promoted to {environment.slug}.")
    image = promotable_image(repository, chosen.image.digest)
    refuse_if(why_quarantined(image))
    same = PromotionRequest.objects.filter(
        image=image, repository=repository, environment=environment, state__in=PromotionRequest.NEXT
    ).first()
    if same is not None and same.kind == Kind.ROLLBACK:
        return same
    old = None
    if same is not None:
        old = replace_live(same, "a rollback") if same.state not in MOVING_STATES else None
        if old is None:
            raise Conflict(f"{same} is about to bring this image. Try again when it has finished.")
    request = create_request(slot, image, tag=chosen.tag, kind=Kind.ROLLBACK, actor=actor, reason=reason)
    if old is not None:
        PromotionRequest.objects.filter(pk=old.pk).update(superseded_by=request)
    return request
