"""Queries about release sets, and why a user cannot act on one now. Services, pages and the API call the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.rights import may
from lifecycle.core.errors import Conflict, IllegalTransition, NotFound
from lifecycle.core.reasons import Reason
from lifecycle.environments.models import Environment
from lifecycle.promotion.automatic import why_member_waits
from lifecycle.promotion.exclusions import read_ahead
from lifecycle.promotion.models import Evaluation, PromotionRequest, ReleaseSet, Vote
from lifecycle.promotion.opening import closed_words, opening_of
from lifecycle.promotion.queries import (
    RESULT_STATES,
    RESULTS_FOR,
    as_ended,
    decidable_members,
    requests_where,
    with_joins,
)
from lifecycle.promotion.refusals import why_not_cast, why_not_overrule

State = ReleaseSet.State
LIVE = (State.OPEN, State.READY)
MOVING = (State.EXECUTING, State.REVERTING)


def sets_visible_to(actor: User) -> QuerySet[ReleaseSet]:
    """Return the sets of which `actor` can see every member, with the joins that a list needs."""
    return _joined(_without_others(requests_where(actor, Verb.IMAGE_VIEW)))


def _joined(rows: QuerySet[ReleaseSet]) -> QuerySet[ReleaseSet]:
    return rows.select_related("environment__team", "requested_by", "executed_by")


def _without_others(members: QuerySet[PromotionRequest]) -> QuerySet[ReleaseSet]:
    """Return the sets all of whose members are among `members`."""
    others = PromotionRequest.objects.filter(release_set=OuterRef("pk")).exclude(pk__in=members.values("pk"))
    return ReleaseSet.objects.filter(~Exists(others))


def set_for(actor: User, set_id: int) -> ReleaseSet:
    """Return the set if `actor` can see it. Raises NotFound when it is absent or hidden."""
    found = sets_visible_to(actor).filter(pk=set_id).first()
    if found is None:
        raise NotFound("Release set not found, or you don't have access.")
    return found


def sets_decidable_by(actor: User) -> QuerySet[ReleaseSet]:
    """Return the open sets on which `actor` can vote, and has not on every member."""
    waiting = decidable_members(actor).filter(release_set=OuterRef("pk"))
    return sets_visible_to(actor).filter(Exists(waiting), state=State.OPEN)


def sets_executable_by(actor: User) -> QuerySet[ReleaseSet]:
    """Return the ready sets that `actor` is allowed to run."""
    may_run = _without_others(requests_where(actor, Verb.PROMOTION_EXECUTE)).values("pk")
    return sets_visible_to(actor).filter(state=State.READY, pk__in=may_run)


def unseen_sets_of(actor: User) -> QuerySet[ReleaseSet]:
    """Return the sets of `actor` that ended lately, as they have not seen yet."""
    mine = sets_visible_to(actor).filter(requested_by=actor, seen_at=None)
    ended = mine.filter(state__in=[*RESULT_STATES, State.FAILED])
    return ended.filter(finished_at__gt=Now() - RESULTS_FOR)


def sets_for_inbox(actor: User) -> QuerySet[ReleaseSet]:
    """Return the sets that wait for a vote or a run of `actor`, and results that they have not seen."""
    parts = (sets_decidable_by(actor), sets_executable_by(actor), unseen_sets_of(actor))
    wanted = Q()
    for part in parts:
        wanted |= Q(pk__in=part.order_by().values("pk"))
    return _joined(ReleaseSet.objects.filter(wanted))


def members_of(release_set: ReleaseSet) -> list[PromotionRequest]:
    """Return the members in their order, with joins."""
    return list(with_joins(release_set.members.all()).order_by("pk"))  # each knows its set without a query


def why_no_sets(environment: Environment) -> Reason | None:
    """Return why no release set can be requested for the environment, or run there."""
    if environment.verification != Environment.Verification.NONE:
        words = f"{environment.slug} asks for a verification of each promotion. Request the images one by one."
        return Reason(words, Conflict)
    return None


def why_not_in_set(actor: User, members: Sequence[PromotionRequest]) -> Reason | None:
    """Return why `actor` cannot vote on the set: what stops the vote on one member stops it on all."""
    return _first_of(members, lambda row: why_not_cast(actor, row))


def why_not_overrule_set(actor: User, members: Sequence[PromotionRequest]) -> Reason | None:
    """Return why `actor` cannot overrule objections to the set."""
    return _first_of(members, lambda row: why_not_overrule(actor, row))


def _first_of(members: Sequence[PromotionRequest], why: Any) -> Reason | None:
    for row in members:
        reason: Reason | None = why(row)
        if reason is not None:
            return Reason(f"{row.repository.name}: {reason.text}", reason.error)
    return None


def why_not_decided(release_set: ReleaseSet) -> Reason | None:
    """Return why the set can no longer be changed; None while it is open or ready."""
    if release_set.state in LIVE:
        return None
    if release_set.state == State.EXECUTING:
        return Reason(f"{release_set} is already running, started by {release_set.executed_by}.", IllegalTransition)
    if release_set.state == State.REVERTING:
        return Reason(f"{release_set} failed, and its targets are being put back. Wait until it is done.", Conflict)
    return Reason(f"{release_set} is already {release_set.state}.", IllegalTransition)


def why_not_run_set(actor: User, release_set: ReleaseSet, members: Sequence[PromotionRequest]) -> Reason | None:
    """Return why `actor` cannot run the set now. The service evaluates all requirements again when it runs."""
    if release_set.state != State.READY:
        waiting = Reason("You can run it when all requirements of all members are met.", IllegalTransition)
        return why_not_decided(release_set) or waiting
    for row in members:
        decision = may(actor, Verb.PROMOTION_EXECUTE, repository=row.repository, environment=row.environment)
        if not decision:
            return Reason(decision.reason)
    if (reason := why_no_sets(release_set.environment)) is not None:
        return reason
    closed = closed_words(opening_of(release_set.environment))
    return Reason(closed, IllegalTransition) if closed else None


def why_not_withdraw_set(actor: User, release_set: ReleaseSet) -> Reason | None:
    """Return why `actor` cannot withdraw the set. Only the requester and users with environment.manage can."""
    if release_set.requested_by_id != actor.pk:
        decision = may(actor, Verb.ENVIRONMENT_MANAGE, environment=release_set.environment)
        if not decision:
            return Reason(decision.reason)
    return why_not_decided(release_set)


def why_set_waits(release_set: ReleaseSet) -> str:
    """Return why a ready set does not run without a user now, as a sentence; "" when it does."""
    environment = release_set.environment
    if not environment.auto_execute:
        return f"{environment} runs nothing without a user."
    if release_set.failure:
        return "The last run failed, so a user must run it again."
    if reason := why_no_sets(environment):
        return reason.text
    if closed := closed_words(opening_of(environment)):
        return closed
    return next((f"{row.repository.name}: {words}" for row in members_of(release_set)
                 if (words := why_member_waits(row))), "")  # fmt: skip


def set_detail(release_set: ReleaseSet) -> ReleaseSet:
    """Return the set with what its detail shows beside its columns: `rows` (members) and `cast_votes`, one a person.

    Each member has its `judged_requirements`: those of its last evaluation, as in lists, because a set has up to fifty
    members. Each action evaluates them again.
    """
    rows = members_of(release_set)
    read_ahead(rows)
    evaluations = Evaluation.objects.filter(request__in=[row.pk for row in rows])
    latest = {row.request_id: row for row in evaluations.order_by("request", "-pk").distinct("request")}
    for row in rows:
        last = latest.get(row.pk)
        row.judged_requirements = as_ended(row, last.requirements) if last else []  # type: ignore[attr-defined]  # for pages and the API
    release_set.rows = rows  # type: ignore[attr-defined]  # likewise
    release_set.cast_votes = votes_of(rows)  # type: ignore[attr-defined]  # likewise
    return release_set


def votes_of(members: Sequence[PromotionRequest]) -> list[Vote]:
    """Return one vote for each person: the latest on any member. A vote that lapsed on one member comes first."""
    rows = Vote.objects.filter(request__in=[row.pk for row in members]).select_related(
        "voter", "evaluation", "overruled_by", "request__repository"
    )
    found: dict[int, Vote] = {}
    for row in sorted(rows, key=lambda row: (row.lapsed_at is None, -row.at.timestamp(), row.pk)):
        found.setdefault(row.voter_id, row)
    return sorted(found.values(), key=lambda row: row.pk)
