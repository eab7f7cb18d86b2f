"""Queries about notices that several callers share."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Q, QuerySet

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import covered, people_who, teams_where
from lifecycle.environments.models import Environment
from lifecycle.notices.models import Channel, InboxItem, Message, Notice
from lifecycle.registry.models import Repository


def notices_visible_to(actor: User) -> QuerySet[Notice]:
    """Return the notices about what `actor` can see now."""
    is_covered = covered(
        actor, Verb.IMAGE_VIEW, team="repository__team", family="repository__family", environment="environment"
    )
    return Notice.objects.filter(is_covered)


def inbox_of(actor: User, *, is_unread: bool = False) -> QuerySet[InboxItem]:
    """Return what `actor` was told, and can still see. Page it by -id."""
    is_covered = covered(
        actor,
        Verb.IMAGE_VIEW,
        team="notice__repository__team",
        family="notice__repository__family",
        environment="notice__environment",
    )
    rows = InboxItem.objects.filter(is_covered, person=actor)
    rows = rows.filter(read_at=None) if is_unread else rows
    return rows.select_related("notice__repository", "notice__environment")


def unread_count(actor: User) -> int:
    """Return the number of unread notices of `actor`, for the bell in the top bar."""
    return inbox_of(actor, is_unread=True).count()


def who_can_see(repository: Repository, environment: Environment | None, ids: Iterable[int]) -> list[User]:
    """Return those of the users `ids` who can see the repository in the environment, by id."""
    seeing = people_who(Verb.IMAGE_VIEW, team=repository.team, family=repository.family, environment=environment)
    return list(seeing.filter(pk__in=set(ids)).order_by("pk"))


def channels_visible_to(actor: User) -> QuerySet[Channel]:
    """Return the channels that `actor` can manage; nobody else sees them."""
    is_own = Q(team__in=teams_where(actor, Verb.TEAM_MANAGE))
    if actor.is_active and actor.is_superuser:
        is_own |= Q(team=None)
    return Channel.objects.filter(is_own).select_related("team", "created_by")


def messages_visible_to(actor: User) -> QuerySet[Message]:
    """Return the messages of the channels that `actor` can manage, and the mails to `actor`. Page them by -id."""
    seen = Q(person=actor) | Q(channel__in=channels_visible_to(actor))
    return Message.objects.filter(seen).select_related("channel", "person")
