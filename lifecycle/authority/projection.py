"""django-guardian's object permissions, projected from the role grants (docs/adr/0003).

Django code outside Gravingdock can use them: `user.has_perm("lifecycle.image_view", repository)`, guardian's shortcuts,
and DRF's object permissions. Gravingdock's own checks read the grants, which also have patterns and expiry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Final

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from django.db.models.functions import Now

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.grants import live_grants
from lifecycle.authority.models import (
    EnvironmentUserPermission,
    HeldGrant,
    RepositoryUserPermission,
    TeamUserPermission,
)
from lifecycle.authority.rights import makers_of, why_suspended
from lifecycle.core.patterns import matches
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository

_Table = type[TeamUserPermission | RepositoryUserPermission | EnvironmentUserPermission]
_TABLES: Final[tuple[tuple[type[Model], _Table], ...]] = (
    (Team, TeamUserPermission),
    (Repository, RepositoryUserPermission),
    (Environment, EnvironmentUserPermission),
)
EXPIRY_EVERY_S: Final = 60
_EXPIRED_WITHIN: Final = timedelta(seconds=10 * EXPIRY_EVERY_S)  # so that a scheduler that was down catches up


def project(user: User) -> None:
    """Replace one user's guardian rows with rows made from the live grants, in the caller's transaction.

    A grant on the whole team becomes rows on the team. A grant on some repositories becomes rows on each existing
    repository that matches. A grant for one environment becomes rows on the environment. The rows of a robot are
    bounded by those of its responsible user, so the robots that depend on `user` are projected too.
    """
    _project_one(user)
    for robot in User.objects.filter(robot__responsible=user, is_active=True).exclude(pk=user.pk).order_by("pk"):
        project(robot)


def project_all(user_ids: Collection[int]) -> None:
    """Replace the guardian rows of several users, in a fixed order, in the caller's transaction."""
    for user in User.objects.filter(pk__in=user_ids).order_by("pk"):
        project(user)


def _project_one(user: User) -> None:
    # Two transactions can change grants of one user: the second waits, and then reads what the first wrote.
    User.objects.select_for_update(no_key=True).filter(pk=user.pk).values_list("pk").first()
    expected = _expected_pairs(user)
    for model, table in _TABLES:
        table.objects.filter(user=user).delete()
        table.objects.bulk_create(_rows(table, model, user, expected[model]))


def differs(user: User) -> bool:
    """Return whether one user's guardian rows differ from the user's live grants."""
    expected = _expected_pairs(user)
    for model, table in _TABLES:
        stored = table.objects.filter(user=user).values_list("content_object_id", "permission__codename")
        if set(stored) != expected[model]:
            return True
    return False


@transaction.atomic
def project_expired() -> int:
    """Project every user who has a recently expired grant; returns the number of users."""
    expired = HeldGrant.objects.filter(expires_at__lte=Now(), expires_at__gt=Now() - _EXPIRED_WITHIN)
    users = list(User.objects.filter(pk__in=expired.values("user")).order_by("pk"))
    for user in users:
        project(user)
    return len(users)


def project_new_repositories(repository_ids: Collection[int]) -> None:
    """Make the rows on new repositories for each live grant whose pattern matches, in the caller's transaction.

    A repository that became a target has rows of its former team: they go.
    """
    RepositoryUserPermission.objects.filter(content_object__in=repository_ids).delete()
    repositories = list(Repository.objects.filter(pk__in=repository_ids).values_list("pk", "team_id", "family"))
    grants = live_grants().filter(team__in={team for _, team, _ in repositories}, environment=None)
    expected: dict[User, set[tuple[int, str]]] = {}
    for grant in grants.exclude(repository_pattern="*").select_related("role", "user"):
        covered = [pk for pk, team, family in repositories
                   if team == grant.team_id and matches(grant.repository_pattern, family)]  # fmt: skip
        names = [Verb(verb).codename for verb in grant.role.verbs]
        expected.setdefault(grant.user, set()).update((pk, name) for pk in covered for name in names)
    for user in [user for user in expected if user.robots_answered_for.exists() or user.kind == User.Kind.ROBOT]:
        expected.pop(user)
        project(user)
    for user, pairs in expected.items():
        rows = _rows(RepositoryUserPermission, Repository, user, pairs)
        RepositoryUserPermission.objects.bulk_create(rows, ignore_conflicts=True)


def _expected_pairs(user: User) -> dict[type[Model], set[tuple[int, str]]]:
    """Return, for each model, the (object id, permission codename) pairs of the user's live grants."""
    expected = _own_pairs(user)
    if user.kind != User.Kind.ROBOT:
        return expected
    if why_suspended(user):
        return {model: set() for model in expected}
    for maker in makers_of(user):
        if maker.kind != User.Kind.SYSTEM:
            expected = _bounded(expected, _own_pairs(maker))
    return expected


def _bounded(
    pairs: dict[type[Model], set[tuple[int, str]]], bound: dict[type[Model], set[tuple[int, str]]]
) -> dict[type[Model], set[tuple[int, str]]]:
    """Return what both allow. A row on a team also allows the team's repositories and environments."""
    repositories = dict(Repository.objects.filter(pk__in={pk for pk, _ in pairs[Repository] | bound[Repository]})
                        .values_list("pk", "team_id"))  # fmt: skip
    environments = dict(Environment.objects.filter(pk__in={pk for pk, _ in pairs[Environment] | bound[Environment]})
                        .values_list("pk", "team_id"))  # fmt: skip
    both: dict[type[Model], set[tuple[int, str]]] = {Team: pairs[Team] & bound[Team]}
    for model, team_of in ((Repository, repositories), (Environment, environments)):
        both[model] = {
            (pk, name)
            for one, other in ((pairs, bound), (bound, pairs))
            for pk, name in one[model]
            if (pk, name) in other[model] or (team_of[pk], name) in other[Team]
        }
    return both


def _own_pairs(user: User) -> dict[type[Model], set[tuple[int, str]]]:
    expected: dict[type[Model], set[tuple[int, str]]] = {Team: set(), Repository: set(), Environment: set()}
    for grant in live_grants(user).select_related("role"):
        names = [Verb(verb).codename for verb in grant.role.verbs]
        if grant.environment_id is not None:
            expected[Environment] |= {(grant.environment_id, name) for name in names}
        elif grant.repository_pattern == "*":
            expected[Team] |= {(grant.team_id, name) for name in names}
        else:
            repositories = Repository.objects.filter(team_id=grant.team_id).values_list("pk", "family")
            covered = [pk for pk, family in repositories if matches(grant.repository_pattern, family)]
            expected[Repository] |= {(pk, name) for pk in covered for name in names}
    return expected


def _rows(
    table: _Table, model: type[Model], user: User, expected: Iterable[tuple[int, str]]
) -> list[TeamUserPermission | RepositoryUserPermission | EnvironmentUserPermission]:
    kind = ContentType.objects.get_for_model(model)
    permissions = dict(Permission.objects.filter(content_type=kind).values_list("codename", "pk"))
    return [table(user=user, content_object_id=pk, permission_id=permissions[name]) for pk, name in sorted(expected)]
