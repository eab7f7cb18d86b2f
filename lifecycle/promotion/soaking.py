"""Soak: how long an image has stayed in the environment before the one that it is promoted to."""

from __future__ import annotations

from datetime import timedelta

from django.db.models.functions import Now

from lifecycle.core import clock
from lifecycle.environments.models import Occupancy, Slot
from lifecycle.environments.queries import previous_environment
from lifecycle.policy.types import SoakFacts
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image

_SKIP = frozenset({PromotionRequest.Kind.ROLLBACK, PromotionRequest.Kind.BREAK_GLASS})


def occupy(slot: Slot, image: Image) -> None:
    """Record that `image` is in the slot from now on. The caller holds the slot's promotion."""
    Occupancy.objects.filter(slot=slot, ended_at=None).update(ended_at=Now())
    Occupancy.objects.create(slot=slot, image=image, started_at=Now())


def soak_of(request: PromotionRequest) -> SoakFacts | None:
    """Return how long the image has soaked; None when the environment requires no soak, or has none before it."""
    required_s = request.environment.soak_s
    before = previous_environment(request.environment) if required_s and request.kind not in _SKIP else None
    if before is None:
        return None
    stays = Occupancy.objects.filter(
        slot__repository=request.repository_id, slot__environment=before, image=request.image_id
    )
    since, longest, needed = None, timedelta(0), timedelta(seconds=required_s)
    for stay in stays:
        if stay.ended_at is None:
            since = stay.started_at
        else:
            longest = max(longest, stay.ended_at - stay.started_at)
    is_done = longest >= needed or (since is not None and clock.now() - since >= needed)
    return SoakFacts(before.slug, required_s, int(longest.total_seconds()), since, is_done)
