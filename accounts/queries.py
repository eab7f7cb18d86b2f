"""Queries of accounts that several callers share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from django.db.models import Q, QuerySet

from accounts.models import Group, GroupMember, User

SYSTEM_USERNAME: Final = "gravingdock"  # also the `sub` of our own registry tokens


def system_user() -> User:
    """Return the system user, the account of Gravingdock itself. A migration creates it."""
    return User.objects.get(username=SYSTEM_USERNAME)


def people_in(groups: Collection[int]) -> QuerySet[User]:
    """Return the people in any of these groups, or in a group that one of them contains, each once."""
    within = Q(group__in=groups) | Q(group__containers__group__in=groups)
    return User.objects.filter(pk__in=GroupMember.objects.filter(within, user__isnull=False).values("user"))


def groups_with(user: User) -> QuerySet[Group]:
    """Return the groups that `user` is in, directly or through a group that they contain, each once."""
    direct = GroupMember.objects.filter(user=user).values("group")
    return Group.objects.filter(Q(pk__in=direct) | Q(members__member__in=direct)).distinct()
