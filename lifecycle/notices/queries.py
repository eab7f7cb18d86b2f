"""Queries about notices that several callers share."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Q, QuerySet

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import covered, people_who, teams_where
from lifecycle.notices.models import Channel, InboxItem, Message, Notice


def notices_visible_to(actor: User) -> QuerySet[Notice]:
    """Return the notices about what `actor` can see now."""
    return Notice.objects.filter(_is_visible(actor, ""))


def _is_visible(actor: User, prefix: str) -> Q:
    """Return the condition that `actor` can see a notice; `prefix` leads from the row to the notice.

    One about a whole team needs a grant for all repositories: without a repository, no pattern of a family matches.
    One about an account is for its person alone.
    """
    family, environment = f"{prefix}repository__family", f"{prefix}environment"
    is_seen = covered(actor, Verb.IMAGE_VIEW, team=f"{prefix}repository__team", family=family, environment=environment)
    is_team_seen = covered(actor, Verb.IMAGE_VIEW, team=f"{prefix}team", family=family, environment=environment)
    return is_seen | (Q(**{f"{prefix}repository": None}) & is_team_seen) | Q(**{f"{prefix}person": actor})


def inbox_of(actor: User, *, is_unread: bool = False) -> QuerySet[InboxItem]:
    """Return what `actor` was told, and can still see. Page it by -id."""
    rows = InboxItem.objects.filter(_is_visible(actor, "notice__"), person=actor)
    rows = rows.filter(read_at=None) if is_unread else rows
    return rows.select_related("notice__repository", "notice__environment")


def unread_count(actor: User) -> int:
    """Return the number of unread notices of `actor`, for the bell in the top bar."""
    return inbox_of(actor, is_unread=True).count()


def who_can_see(notice: Notice, ids: Iterable[int]) -> list[User]:
    """Return those of the users `ids` who can see what a notice is about, by id."""
    family = notice.repository.family if notice.repository is not None else None
    seeing = people_who(Verb.IMAGE_VIEW, team=notice.owner, family=family, environment=notice.environment)
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
