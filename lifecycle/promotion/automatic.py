"""Why a ready request does not run by itself, in words; and which requests a newer one replaces."""

from __future__ import annotations

from typing import Final

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from lifecycle.environments.models import Environment
from lifecycle.promotion.holds import words_of_hold
from lifecycle.promotion.models import MOVES_ON, PromotionRequest, ReleaseSet
from lifecycle.promotion.opening import closed_words, opening_for

State, Kind = PromotionRequest.State, PromotionRequest.Kind
# A newer request in one of these states replaces older ones where the latest wins.
WINNING_STATES: Final = (State.READY, State.EXECUTING, State.VERIFYING, State.SUCCEEDED)


def of_slot(request: PromotionRequest) -> QuerySet[PromotionRequest]:
    """Return the other requests of the same repository for the same environment."""
    rows = PromotionRequest.objects.filter(repository=request.repository_id, environment=request.environment_id)
    return rows.exclude(pk=request.pk)


def newer_than(request: PromotionRequest) -> PromotionRequest | None:
    """Return the newest request that replaces `request`, where the latest wins; None when none does."""
    if request.environment.queue_policy != Environment.QueuePolicy.LATEST_WINS or request.kind not in MOVES_ON:
        return None
    rows = of_slot(request).filter(pk__gt=request.pk, state__in=WINNING_STATES, kind__in=MOVES_ON)
    return rows.exclude(waits_for_set()).order_by("-pk").first()


def waits_for_set() -> Q:
    """Return the condition that a ready request cannot run, because other members of its set are not ready."""
    return Q(state=State.READY, release_set__state=ReleaseSet.State.OPEN)


def why_not_automatic(request: PromotionRequest) -> str:
    """Return why a ready request does not run without a user now, as a sentence; "" when it does."""
    if not request.environment.auto_execute:
        return f"{request.environment} runs nothing without a user."
    if request.kind == Kind.BREAK_GLASS:
        return "Break-glass is always run by a user."
    if request.release_set_id is not None:
        return f"It runs with RS-{request.release_set_id}, when all of it is ready."
    if request.failure:
        return "The last run failed, so a user must run it again."
    if words := words_of_hold(request):
        return words
    return closed_words(opening_for(request)) or _why_later(request)


def why_member_waits(member: PromotionRequest) -> str:
    """Return what holds a member of a ready set back from running without a user; "" when nothing does."""
    return words_of_hold(member) or _why_later(member)


def _why_later(request: PromotionRequest) -> str:
    """Return what runs before the request; "" when it is its turn."""
    others = of_slot(request)
    if busy := others.filter(state__in=(State.EXECUTING, State.VERIFYING)).first():
        return f"{busy} is running."
    if request.kind == Kind.ROLLBACK:
        return ""
    ready = others.filter(state=State.READY, failure="").exclude(waits_for_set())
    if rollback := ready.filter(kind=Kind.ROLLBACK).first():
        return f"{rollback} is a rollback and runs first."
    if newer := newer_than(request):
        return f"{newer} is newer, and the latest wins here."
    if request.environment.queue_policy == Environment.QueuePolicy.QUEUE:
        # In the queue, a whole set has the place of its last member.
        turn = request.release_set.decided_at if request.release_set is not None else request.decided_at
        queue = ready.exclude(kind=Kind.BREAK_GLASS).annotate(turn=Coalesce("release_set__decided_at", "decided_at"))
        before = Q(turn__lt=turn) | Q(turn=turn, pk__lt=request.pk)
        if older := queue.filter(before).order_by("turn", "pk").first():
            return f"{older} was ready before and runs first."
    return ""
