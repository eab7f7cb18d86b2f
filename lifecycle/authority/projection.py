"""Guardian's rows, made from the grants (docs/adr/0003): for Django's `has_perm`, never for our own answers."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.models import (
    EnvironmentUserPermission,
    RepositoryUserPermission,
    RoleGrant,
    TeamUserPermission,
)
from lifecycle.core.patterns import matches
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository


def project(user: User) -> None:
    """Make the guardian rows of one user again from the live grants, in the caller's transaction.

    A grant over all of a team is a row on the team; over some repositories, rows on those that exist; for one
    environment, rows on the environment.
    """
    wanted: dict[type[Model], set[tuple[int, str]]] = {Team: set(), Repository: set(), Environment: set()}
    for grant in RoleGrant.objects.filter(RoleGrant.live(), user=user).select_related("role", "environment"):
        names = [Verb(verb).codename for verb in grant.role.verbs]
        if grant.environment_id is not None:
            wanted[Environment] |= {(grant.environment_id, name) for name in names}
        elif grant.repository_pattern == "*":
            wanted[Team] |= {(grant.team_id, name) for name in names}
        else:
            repositories = Repository.objects.filter(team_id=grant.team_id).values_list("pk", "family")
            covered = [pk for pk, family in repositories if matches(grant.repository_pattern, family)]
            wanted[Repository] |= {(pk, name) for pk in covered for name in names}
    _write(TeamUserPermission, Team, user, wanted[Team])
    _write(RepositoryUserPermission, Repository, user, wanted[Repository])
    _write(EnvironmentUserPermission, Environment, user, wanted[Environment])


def _write(
    table: type[TeamUserPermission | RepositoryUserPermission | EnvironmentUserPermission],
    model: type[Model],
    user: User,
    wanted: Iterable[tuple[int, str]],
) -> None:
    kind = ContentType.objects.get_for_model(model)
    permissions = dict(Permission.objects.filter(content_type=kind).values_list("codename", "pk"))
    table.objects.filter(user=user).delete()
    table.objects.bulk_create(
        [table(user=user, content_object_id=pk, permission_id=permissions[name]) for pk, name in sorted(wanted)]
    )
