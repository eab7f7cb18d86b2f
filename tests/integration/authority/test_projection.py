"""Guardian's rows match the grants: after a write, after an expiry, and for repositories created later."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.functions import Now
from guardian.core import ObjectPermissionChecker

from accounts.models import User
from accounts.queries import system_user
from lifecycle.authority import handlers, services
from lifecycle.authority.grants import LIVE_SQL, live_grants
from lifecycle.authority.models import RepositoryUserPermission, RoleGrant
from lifecycle.registry.services import ensure_managed_registry, ensure_repository

pytestmark = pytest.mark.django_db


@pytest.fixture
def team():
    return services.create_team(actor=system_user(), slug="shop", name="Shop")


@pytest.fixture
def kim(team):
    user = User.objects.create(username="kim")
    services.add_member(team.pk, actor=system_user(), username="kim", role="viewer", repository_pattern="shop/*")
    return user


def has_view(user, repository):
    return ObjectPermissionChecker(user).has_perm("image_view", repository)


def compare() -> tuple[int, str]:
    out = StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command("rebuild_grants", "--check", stdout=out)
    return int(stopped.value.code or 0), out.getvalue().strip()


def test_existing_grant_covers_new_repository(kim):
    repository = ensure_repository(ensure_managed_registry(), "shop/later")
    assert has_view(kim, repository)
    assert compare() == (0, "Guardian's rows match the grants.")


def test_expired_grant_leaves_no_guardian_row(kim):
    repository = ensure_repository(ensure_managed_registry(), "shop/api")
    RoleGrant.objects.filter(user=kim).update(expires_at=Now() - timedelta(seconds=1))
    assert has_view(kim, repository)
    assert compare() == (1, "kim")
    handlers.project_expired()
    assert not has_view(kim, repository)
    assert compare()[0] == 0


def test_rebuild_grants_finds_and_restores_missing_row(kim):
    repository = ensure_repository(ensure_managed_registry(), "shop/api")
    RepositoryUserPermission.objects.filter(user=kim, permission__codename="image_view").delete()
    assert compare() == (1, "kim")
    call_command("rebuild_grants", stdout=StringIO())
    assert (compare()[0], has_view(kim, repository)) == (0, True)


def test_live_grants_agree_in_sql_and_orm(team, kim):
    for name, end in (("over", Now() - timedelta(seconds=1)), ("later", Now() + timedelta(hours=1))):
        User.objects.create(username=name)
        services.add_member(team.pk, actor=system_user(), username=name, role="viewer")
        RoleGrant.objects.filter(user__username=name).update(expires_at=end)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SELECT g.id FROM lifecycle_heldgrant g WHERE {LIVE_SQL}")
        by_sql = {row[0] for row in cursor.fetchall()}
    assert by_sql == set(live_grants().values_list("pk", flat=True))
    assert {grant.user.username for grant in live_grants()} == {"kim", "later"}


def test_deactivated_account_has_no_live_grants(kim):
    assert live_grants(kim).exists()
    User.objects.filter(pk=kim.pk).update(is_active=False)
    kim.refresh_from_db()
    assert not live_grants(kim).exists()
    assert not live_grants().filter(user=kim).exists()
