"""The audit log is append-only, for the application role and for the database owner."""

from __future__ import annotations

import orjson
import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client

from accounts.queries import system_user
from lifecycle.audit import services
from lifecycle.audit.actions import Action
from lifecycle.audit.details import Details, TagDetails, UserDetails
from lifecycle.audit.details_of_promotion import VoteLapsed
from lifecycle.audit.models import AuditEvent, AuditPending
from lifecycle.authority.models import RoleGrant
from lifecycle.core.context import RequestContext, request_context

pytestmark = pytest.mark.django_db


def test_record_stores_actor_and_request_and_queues_sealing():
    with request_context(RequestContext(request_id="r-1", address="192.0.2.7")):
        event = services.record(Action.WATCH_ADDED, actor=system_user(), reason="why", details=TagDetails(tag="v1"))
    kept = orjson.loads(AuditEvent.objects.get(pk=event.pk).canonical)
    assert (kept["actor"], kept["address"], kept["request_id"]) == ("gravingdock", "192.0.2.7", "r-1")
    assert kept["details"] == {"tag": "v1"}
    assert AuditPending.objects.filter(pk=event.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_record_is_refused_outside_a_transaction():
    with pytest.raises(RuntimeError, match="outside a transaction"):
        services.record(Action.TEAM_CREATED, actor=None)


@pytest.mark.parametrize(
    ("action", "details", "problem"),
    [
        (Action.WATCH_ADDED, None, "watch.added takes TagDetails, not NoneType"),
        (Action.WATCH_ADDED, UserDetails(user="kim"), "watch.added takes TagDetails, not UserDetails"),
        (Action.GRANT_CREATED, VoteLapsed(voter="kim"), "grant.created takes GrantCreated, not VoteLapsed"),
        (Action.TEAM_CREATED, TagDetails(tag="v1"), "team.created takes no details, not TagDetails"),
        (Action.TEAM_CREATED, Details(), "team.created takes no details, not Details"),
    ],
)
def test_record_rejects_details_of_wrong_class_and_stores_nothing(action: Action, details, problem):
    with pytest.raises(TypeError, match=problem):
        services.record(action, actor=system_user(), details=details)
    assert not AuditEvent.objects.exists()
    assert not AuditPending.objects.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lifecycle_auditevent SET reason = 'x'",
        "DELETE FROM lifecycle_auditevent",
        "TRUNCATE lifecycle_auditevent",
        "DELETE FROM lifecycle_auditpending",
    ],
)
def test_application_role_cannot_change_the_audit_log(statement):
    services.record(Action.TEAM_CREATED, actor=system_user())
    with pytest.raises(DatabaseError, match=r"permission denied|append-only"), transaction.atomic():
        connection.cursor().execute(statement)
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_database_owner_cannot_change_the_audit_log(services):  # the fixture: test servers
    from lifecycle.audit.services import record

    with transaction.atomic():
        record(Action.TEAM_CREATED, actor=system_user())
    link = services.cluster.connect("gravingdock_owner", "gravingdock")
    try:
        with link.cursor() as cursor, pytest.raises(Exception, match="append-only"):
            cursor.execute("UPDATE lifecycle_auditevent SET reason = 'x'")
    finally:
        link.close()


@pytest.mark.parametrize("face", ["page", "api"])
def test_refused_changes_are_recorded_once_a_minute(face, dock):
    grant = RoleGrant.objects.get(user=dock.approver)
    client = Client()
    client.force_login(dock.requester, backend="allauth.account.auth_backends.AuthenticationBackend")
    path = f"/teams/shop/grants/{grant.pk}/revoke/" if face == "page" else f"/api/v1/teams/shop/grants/{grant.pk}/"
    for _ in range(3):
        answer = client.post(path) if face == "page" else client.delete(path)
        assert answer.status_code == 403
        client.get(path)  # a GET is not recorded
    event = AuditEvent.objects.get(action="access.refused")
    assert (event.actor, event.outcome, event.address) == (dock.requester, "denied", "127.0.0.1")
    assert event.details == {"method": "POST" if face == "page" else "DELETE", "path": path, "code": "not_permitted"}
    assert "team.manage" in event.reason
    assert RoleGrant.objects.filter(pk=grant.pk).exists()


def test_refusals_for_hidden_and_absent_teams_are_recorded_alike(dock):
    client = Client()
    client.force_login(dock.outsider, backend="allauth.account.auth_backends.AuthenticationBackend")
    for path in ("/api/v1/teams/shop/robots/", "/api/v1/teams/none/robots/"):
        assert client.post(path, {"name": "x"}, content_type="application/json").status_code == 404
    refusals = AuditEvent.objects.filter(action="access.refused").values_list("details__code", "reason", "team")
    assert len(set(refusals)) == 1
