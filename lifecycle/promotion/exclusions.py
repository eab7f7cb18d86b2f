"""Users whose vote on a request does not count, whoever they are: the four exclusions of an environment."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from django.db.models import Q

from accounts.models import User
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.identity import accounts_with_mail, makers_of
from lifecycle.core.context import once_a_read, remember_for_read
from lifecycle.environments.models import Environment
from lifecycle.policies.models import PolicyRevision
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild.models import RebuildJob
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import trees_of

# Labels and annotations in which builds name who committed. Only a verified mail of an account counts.
COMMITTER_KEYS: Final = (
    "org.opencontainers.image.authors",
    "io.gravingdock.committer",
    "com.gitlab.ci.email",
    "git.commit.author.email",
    "vcs.commit.author.email",
)
_MAIL: Final = re.compile(r"[^\s<>,;\"'()]{1,64}@[^\s<>,;\"'()]{1,255}")
_MAILS_MAX: Final = 20
_looked_up: ContextVar[dict[int, dict[int, str]] | None] = ContextVar("excluded_from_requests", default=None)

# Field of Environment: what it allows when it is off.
ALLOWED_WORDS: Final = {
    "excludes_requester": "the requester",
    "excludes_build_trigger": "the user who started the rebuild",
    "excludes_committer": "the committer",
    "excludes_policy_author": "users who changed the rules after the request",
}


def excluded_from(request: PromotionRequest) -> dict[int, str]:
    """Return {user id: why their vote does not count}, as the end of "You cannot approve this request: you ...".

    Admins are no exception. An account that can act as an excluded robot is excluded as well.
    """
    known = _looked_up.get()
    if known is not None and request.pk in known:
        return known[request.pk]
    return once_a_read(("excluded", request.pk), lambda: excluded_from_each([request])[request.pk])


def read_ahead(requests: Collection[PromotionRequest]) -> None:
    """In a request that only reads, look up who is excluded from each of these requests with a few queries for all."""
    for pk, excluded in excluded_from_each(requests).items():
        remember_for_read(("excluded", pk), excluded)


@contextmanager
def looked_up_once() -> Iterator[None]:
    """Let `look_up` count for the rest of the block: an act on many requests, in one transaction that has locked them.

    A vote changes nothing of what excludes people, and every request is asked several times.
    """
    token = _looked_up.set({})
    try:
        yield
    finally:
        _looked_up.reset(token)


def look_up(requests: Collection[PromotionRequest]) -> None:
    """Look up who is excluded from each of these requests with a few queries for all. Call it in `looked_up_once`."""
    known = _looked_up.get()
    if known is None:
        raise RuntimeError("There is no block that keeps it.")
    known.update(excluded_from_each(requests))


def excluded_from_each(requests: Collection[PromotionRequest]) -> dict[int, dict[int, str]]:
    """Return {request id: as `excluded_from`}, with the same number of queries for any number of requests."""
    trees = trees_of([request.image for request in requests])
    images = {row.pk: {row.image_id, *(pk for _, pk in trees[row.image_id].manifests)} for row in requests}
    triggers = _build_triggers(_images_of(requests, images, "excludes_build_trigger"))
    committers = _committers(_images_of(requests, images, "excludes_committer"))
    authors = _policy_authors([row for row in requests if row.environment.excludes_policy_author])
    groups: dict[int, list[tuple[set[int], str]]] = {}  # the first reason of a user is the one they are told
    for row in requests:
        environment, own = row.environment, images[row.pk]
        groups[row.pk] = [
            ({row.requested_by_id} if environment.excludes_requester else set(), "you requested it"),
            (
                _any_of(triggers, own) if environment.excludes_build_trigger else set(),
                "you started the rebuild of this image",
            ),
            (
                _any_of(committers, own) if environment.excludes_committer else set(),
                "you are the committer that the image names",
            ),
            (authors.get(row.pk, set()), "you changed the rules after the request"),
        ]
    makers = makers_of({pk for found in groups.values() for ids, _ in found for pk in ids})
    excluded: dict[int, dict[int, str]] = {}
    for number, found in groups.items():
        reasons = excluded[number] = {}
        for ids, why in found:
            for pk in ids:
                for person in (pk, *makers[pk]):
                    reasons.setdefault(person, why)
    return excluded


def _images_of(
    requests: Collection[PromotionRequest], images: Mapping[int, set[int]], exclusion: str
) -> frozenset[int]:
    """Return the images of those requests whose environment has this exclusion."""
    return frozenset(pk for row in requests if getattr(row.environment, exclusion) for pk in images[row.pk])


def _any_of(users: Mapping[int, set[int]], images: Collection[int]) -> set[int]:
    return set().union(*(users.get(image, set()) for image in images))


def allowed_by(environment: Environment) -> list[str]:
    """Return one sentence for each exclusion that is switched off. Requests show it."""
    return [
        f"This environment lets {words} approve."
        for field, words in ALLOWED_WORDS.items()
        if not getattr(environment, field)
    ]


def requesters_of(request: PromotionRequest) -> set[int]:
    """Return the ids of the users who count as the requester.

    For a robot's request these are also the robot's creator, the user who is responsible for it, and every user who
    created one of its tokens or trust rules, since they can act as the robot.
    """
    requester = request.requested_by_id
    return {requester} | makers_of({requester})[requester]


def _build_triggers(images: Collection[int]) -> Mapping[int, set[int]]:
    """Return {image id: who started a rebuild wave that made it}."""
    triggers: defaultdict[int, set[int]] = defaultdict(set)
    if not images:
        return triggers
    jobs = RebuildJob.objects.filter(new_image__in=images, state=RebuildJob.State.DONE)
    by = "wave__confirmed_by"
    people = jobs.exclude(**{f"{by}__kind": User.Kind.SYSTEM}).exclude(**{by: None})
    for image, user in people.values_list("new_image", by):
        triggers[image].add(user)
    return triggers


def _committers(images: Collection[int]) -> Mapping[int, set[int]]:
    """Return {image id: the accounts whose verified mail, of now or before, its labels or annotations name."""
    named: dict[int, list[str]] = {}
    rows = Image.objects.filter(pk__in=images).values_list("pk", "labels", "annotations") if images else ()
    for pk, *row in rows:
        texts = [str(found[key]) for found in row for key in COMMITTER_KEYS if found and key in found]
        named[pk] = sorted({mail.lower() for text in texts for mail in _MAIL.findall(text[:2000])})[:_MAILS_MAX]
    mails = {mail for found in named.values() for mail in found}
    if not mails:
        return {}
    accounts = accounts_with_mail(mails)
    return {pk: set().union(*(accounts[mail] for mail in found)) for pk, found in named.items()}


def _policy_authors(requests: Collection[PromotionRequest]) -> dict[int, set[int]]:
    """Return {request id: who changed the approvals of its environment, or a policy that applies there, since}."""
    if not requests:
        return {}
    first = min(row.created_at for row in requests)
    environments = {row.environment_id: row.environment for row in requests}
    changes = AuditEvent.objects.filter(
        subject_kind=Environment._meta.model_name,
        subject_id__in=environments,
        action=Action.ENVIRONMENT_CHANGED.value,
        at__gt=first,
        details__is_about_approvals=True,
    )
    applies = (
        Q(policy__team=None, policy__environment=None)
        | Q(policy__team__in={row.team_id for row in environments.values()})
        | Q(policy__environment__in=environments)
    )
    revisions = PolicyRevision.objects.filter(applies, at__gt=first)
    found = [
        *((None, subject, at, actor) for subject, at, actor in changes.values_list("subject_id", "at", "actor")),
        *revisions.values_list("policy__team", "policy__environment", "at", "author"),
    ]
    authors: dict[int, set[int]] = {}
    for row in requests:
        places = {(None, None), (row.environment.team_id, None), (None, row.environment_id)}
        places.add((row.environment.team_id, row.environment_id))
        authors[row.pk] = {
            user
            for team, environment, at, user in found
            if user is not None and at > row.created_at and (team, environment) in places
        }
    return authors
