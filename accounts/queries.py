"""Queries of accounts that several callers share."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from django.db.models import Q, QuerySet

from accounts.models import Group, GroupMember, Role, User
from accounts.verbs import ROLES_OF_MACHINES

SYSTEM_USERNAME: Final = "gravingdock"  # also the `sub` of our own registry tokens


def system_user() -> User:
    """Return the system user, the account of Gravingdock itself. A migration creates it."""
    return User.objects.get(username=SYSTEM_USERNAME)


def roles_for_people() -> QuerySet[Role]:
    """Return the roles that a person or a group can have."""
    return Role.objects.exclude(is_builtin=True, slug__in=ROLES_OF_MACHINES)


def weakest_first(roles: Iterable[Role]) -> list[Role]:
    """Return roles for a form: the built-in ones first, of each kind those with the fewest verbs."""
    return sorted(roles, key=lambda role: (not role.is_builtin, len(role.verbs), role.slug))


def people_in(groups: Collection[int]) -> QuerySet[User]:
    """Return the people in any of these groups, or in a group that one of them contains, each once."""
    within = Q(group__in=groups) | Q(group__containers__group__in=groups)
    return User.objects.filter(pk__in=GroupMember.objects.filter(within, user__isnull=False).values("user"))


def groups_with(user: User) -> QuerySet[Group]:
    """Return the groups that `user` is in, directly or through a group that they contain, each once."""
    direct = GroupMember.objects.filter(user=user).values("group")
    return Group.objects.filter(Q(pk__in=direct) | Q(members__member__in=direct)).distinct()
