"""Mark requests: those that something changed for are due for judgement, and results that their requester saw."""

from __future__ import annotations

from collections.abc import Collection

from accounts.models import User
from lifecycle.core import clock
from lifecycle.promotion.due import judge_soon
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import LIVE_STATES, unseen_results_of
from lifecycle.quarantine.queries import covers_of


def mark_for_judgement(voter_ids: Collection[int]) -> None:
    """Make the live requests that these users voted on due for the next evaluation round."""
    voted_on = PromotionRequest.objects.filter(state__in=LIVE_STATES, votes__voter__in=list(voter_ids))
    judge_soon(voted_on)


def mark_for_quarantine(quarantine_id: int) -> None:
    """Make the live requests of images that a quarantine covers due for the next evaluation round."""
    live = PromotionRequest.objects.filter(state__in=LIVE_STATES)
    covered = covers_of(set(live.values_list("image_id", flat=True)), quarantine_id=quarantine_id)
    judge_soon(live.filter(image__in=covered))


def mark_for_policy(team_id: int | None, environment_id: int | None) -> None:
    """Make the live requests of the site, of a team, or of one environment due for the next evaluation round."""
    rows = PromotionRequest.objects.filter(state__in=LIVE_STATES)
    if team_id is not None:
        rows = rows.filter(environment__team=team_id)
    if environment_id is not None:
        rows = rows.filter(environment=environment_id)
    judge_soon(rows)


def mark_for_answer(image_id: int, repository_id: int) -> None:
    """Make the live requests of an image of a source repository due: a service answered an external check about it."""
    judge_soon(PromotionRequest.objects.filter(state__in=LIVE_STATES, image=image_id, repository=repository_id))


def mark_results_seen(actor: User, promotion_id: int | None = None) -> None:
    """Record that `actor` saw how their requests ended: one request, or all. No audit event: nothing else changes."""
    rows = unseen_results_of(actor)
    rows = rows.filter(pk=promotion_id) if promotion_id is not None else rows
    ids = list(rows.values_list("pk", flat=True))
    if ids:
        PromotionRequest.objects.filter(pk__in=ids, seen_at=None).update(seen_at=clock.now())
