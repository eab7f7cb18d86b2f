"""Reasons why a user cannot act on a promotion now. Services and pages call the same functions."""

from __future__ import annotations

from collections.abc import Collection

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.identity import why_not_counted, why_token_not_counted
from lifecycle.authority.queries import people_who
from lifecycle.authority.rights import may
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, MalformedReference
from lifecycle.core.reasons import Reason
from lifecycle.core.types import is_referrer_tag, parse_tag
from lifecycle.environments.models import Environment, Slot
from lifecycle.promotion.access import verb_to_run, why_not_alone
from lifecycle.promotion.exclusions import excluded_from, requesters_of
from lifecycle.promotion.models import PromotionRequest, Vote
from lifecycle.promotion.opening import closed_words, opening_for
from lifecycle.promotion.queries import LIVE_STATES, MOVING_STATES, target_name, target_registry
from lifecycle.registry.models import Image, Repository

State = PromotionRequest.State
_NAMES_MAX = 3


def why_not_decided(request: PromotionRequest) -> Reason | None:
    """Return why the request can no longer be changed, with the user who acted; None while it is open or ready."""
    if request.state in LIVE_STATES:
        return None
    if request.state in MOVING_STATES:
        return Reason(f"{request} is already running, started by {request.executed_by}.", IllegalTransition)
    if request.state == State.REJECTED:
        vote = request.votes.select_related("voter").filter(value=Vote.Value.REJECT).order_by("-at").first()
        by = f" by {vote.voter}" if vote else ""
        return Reason(f"{request} was already rejected{by}.", IllegalTransition)
    return Reason(f"{request} is already {request.state}.", IllegalTransition)


def why_not_vote(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot approve, object to or reject the request alone, None when `actor` can."""
    return why_not_alone(request) or why_not_cast(actor, request)


def why_not_cast(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why a vote of `actor` on the request, alone or with its set, is refused or would not count."""
    if not actor.is_person:
        return Reason("Only people can vote. A robot can request and run promotions.")
    own = excluded_from(request)
    if actor.pk in own:
        is_own = request.environment.excludes_requester and actor.pk in requesters_of(request)
        what = "your own request" if is_own else f"this request: {own[actor.pk]}"
        return Reason(f"You cannot approve or reject {what}.{_ask_others(request, own)}")
    if uncounted := why_not_counted(actor, own) or why_token_not_counted():
        return Reason(f"Your vote would not count: {uncounted}")
    if (decided := why_not_decided(request)) is not None:
        return decided
    decision = may(actor, Verb.PROMOTION_APPROVE, repository=request.repository, environment=request.environment)
    return None if decision else Reason(decision.reason)


def why_not_withdraw_vote(request: PromotionRequest, vote: Vote) -> Reason | None:
    """Return why `vote`, the actor's own, cannot be taken back."""
    if (decided := why_not_decided(request)) is not None:
        return decided
    if not vote.is_standing:
        return Reason("You have no vote on this request that you could withdraw.", Conflict)
    return None


def why_not_overrule(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot overrule objections: environment.manage, and nobody whose vote is excluded."""
    if not actor.is_person:
        return Reason("Only people can overrule an objection.")
    decision = may(actor, Verb.ENVIRONMENT_MANAGE, environment=request.environment)
    if not decision:
        return Reason(decision.reason)
    excluded = excluded_from(request)
    if actor.pk in excluded:
        return Reason(f"You cannot overrule objections to this request: {excluded[actor.pk]}.")
    if uncounted := why_not_counted(actor, excluded) or why_token_not_counted():
        return Reason(f"You cannot overrule objections to this request: {uncounted}")
    return why_not_decided(request)


def _ask_others(request: PromotionRequest, own: Collection[int]) -> str:
    """Return the sentence that names other approvers."""
    team, family = request.environment.team, request.repository.family
    people = people_who(Verb.PROMOTION_APPROVE, team=team, family=family, environment=request.environment)
    names = list(people.exclude(pk__in=own).values_list("username", flat=True)[: _NAMES_MAX + 1])
    if not names:
        return " No other user can approve it: ask an owner of the team to grant promotion.approve to another user."
    more = ", ..." if len(names) > _NAMES_MAX else ""
    return f" Ask another approver ({', '.join(names[:_NAMES_MAX])}{more})."


def why_not_run(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot run the promotion now. The service evaluates the requirements again when it runs."""
    if (alone := why_not_alone(request)) is not None:
        return alone
    if request.state != State.READY:
        waiting = Reason("You can run it when all requirements are met.", IllegalTransition)
        return why_not_decided(request) or waiting
    decision = may(actor, verb_to_run(request), repository=request.repository, environment=request.environment)
    if not decision:
        return Reason(decision.reason)
    closed = closed_words(opening_for(request))
    return Reason(closed, IllegalTransition) if closed else None


def why_not_withdraw(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot withdraw the request. Only the requester and users with environment.manage can."""
    if (alone := why_not_alone(request)) is not None:
        return alone
    if request.requested_by_id != actor.pk:
        decision = may(actor, Verb.ENVIRONMENT_MANAGE, environment=request.environment)
        if not decision:
            return Reason(decision.reason)
    return why_not_decided(request)


def why_not_from(repository: Repository, environment: Environment) -> Reason | None:
    """Return why nobody can promote from the repository into the environment, whatever their rights.

    A repository that only an inventory names can be in a registry that an admin added later. Our account there is for
    targets that an admin chose, so nothing is promoted from it.
    """
    if repository.source_id is not None or repository.team_id != environment.team_id:
        return Reason("Promote from the source repository, into an environment of its team.", Malformed)
    if not repository.registry.is_managed:
        return Reason(
            f"{repository.name} is in the registry {repository.registry}. Only images of the managed registry can be "
            f"promoted: push the image there first.",
            Malformed,
        )
    if environment.is_archived:
        return Reason(f"{environment.slug} is archived. Restore it in its settings first.", Conflict)
    if repository.is_archived:
        return Reason(f"{repository.name} is archived. Restore it in its settings first.", Conflict)
    return None


def why_not_request(actor: User, repository: Repository, environment: Environment) -> Reason | None:
    """Return why `actor` cannot request any image of the repository for the environment."""
    decision = may(actor, Verb.PROMOTION_REQUEST, repository=repository, environment=environment)
    if not decision:
        return Reason(decision.reason)
    if (reason := why_not_from(repository, environment)) is not None:
        return reason
    target, longest = target_name(environment, repository), target_registry(environment, repository).name_max
    if len(target) > longest:
        return Reason(
            f"The name of the target repository would have {len(target)} characters. The registry takes at most "
            f"{longest}. Use an environment with a shorter prefix, or a repository with a shorter name.",
            Malformed,
        )
    return None


def why_not_request_image(
    actor: User,
    repository: Repository,
    environment: Environment,
    image: Image,
    *,
    slot: Slot | None,
    quarantine: Reason | None,
) -> Reason | None:
    """Return why `actor` cannot request this image. `slot` is what the environment holds of the repository, and
    `quarantine` is what `why_quarantined` says of the image.
    """
    if (reason := why_not_request(actor, repository, environment)) is not None:
        return reason
    if quarantine is not None:
        return quarantine
    if slot is not None and slot.image_id == image.pk:
        return Reason(f"This image is already deployed in {environment.slug}.", Conflict)
    return None


def why_not_tag(tag: str) -> Reason | None:
    """Return why a promotion cannot set this tag in its target."""
    try:
        parse_tag(tag)
    except MalformedReference as error:
        return Reason(error.message, MalformedReference)
    if is_referrer_tag(tag):
        return Reason("Choose another tag. Registries use this one for signatures and referrers.", Malformed)
    return None
