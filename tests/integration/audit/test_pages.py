"""The audit pages: who reads what, the filter, one event, and files that no spreadsheet evaluates."""

from __future__ import annotations

import csv
import io
import json

import pytest
from django.test import Client

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services
from lifecycle.audit.actions import Action, RoleChanged, RoleContent
from lifecycle.audit.models import AuditEvent
from lifecycle.core.context import RequestContext, request_context
from tests.factories.people import person

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture
def auditor(dock):
    return browser(person("auditor", dock.team, "auditor"))


def actions(answer):
    page = answer.context["page"]
    return [event.action for event in page.rows]


def test_an_auditor_reads_the_own_team_an_admin_everything_others_nothing(auditor, dock, request_):
    services.record(Action.TEAM_CREATED, actor=system_user())
    mine = actions(auditor.get("/audit/"))
    assert mine == ["promotion.requested", "environment.created", "environment.created"]
    admin = browser(User.objects.create(username="admin", is_superuser=True))
    assert actions(admin.get("/audit/")) == ["team.created", *mine]
    assert browser(dock.approver).get("/audit/").status_code == 403
    assert browser(dock.outsider).get("/audit/").status_code == 403


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"action": "promotion"}, ["promotion.requested"]),
        ({"action": "promotion.approved"}, []),
        ({"actor": "requester"}, ["promotion.requested"]),
        ({"subject": "shop/api"}, ["promotion.requested"]),
        ({"subject": "sha256:" + "a" * 64}, ["promotion.requested"]),
        ({"subject": "sha256:" + "b" * 64}, []),
        ({"team": "shop", "outcome": "ok", "action": "env"}, ["environment.created", "environment.created"]),
        ({"team": "other"}, []),
        ({"outcome": "denied"}, []),
        ({"until": "2001-01-01"}, []),
        ({"since": "2001-01-01", "action": "promotion"}, ["promotion.requested"]),
    ],
)
def test_the_filter_finds_what_it_says(auditor, request_, query, expected):
    assert actions(auditor.get("/audit/", query)) == expected
    lines = b"".join(auditor.get("/audit/export/", {**query, "format": "jsonl"}).streaming_content).splitlines()
    assert [json.loads(line)["action"] for line in lines] == expected


@pytest.mark.parametrize("query", [{"since": "yesterday"}, {"action": "a b"}, {"outcome": "good"}])
def test_a_filter_that_cannot_be_read_finds_nothing_and_says_so(auditor, request_, query):
    answer = auditor.get("/audit/", query)
    assert (answer.status_code, actions(answer)) == (422, [])
    assert auditor.get("/audit/export/", query).status_code == 400


def test_one_event_is_shown_whole_to_who_may_read_it(auditor, dock, request_):
    with request_context(RequestContext(request_id="req-12345", address="192.0.2.7", token_lookup="abcdefghij")):
        event = services.record(
            Action.ROLE_CHANGED, actor=dock.owner, team=dock.team, reason="<b>why</b>",
            details=RoleChanged(
                role="crew", before=RoleContent("Crew", ("image.view",)), after=RoleContent("Crew", ("image.scan",))
            ),
        )  # fmt: skip
    page = auditor.get(f"/audit/{event.pk}/").content.decode()
    for text in ("192.0.2.7", "abcdefghij", "req-12345", "crew", "Before and after", "Not sealed yet", "&lt;b&gt;why"):
        assert text in page
    assert browser(dock.approver).get(f"/audit/{event.pk}/").status_code == 404
    foreign = services.record(Action.TEAM_CREATED, actor=system_user())
    hidden, absent = auditor.get(f"/audit/{foreign.pk}/"), auditor.get("/audit/999999/")
    assert (hidden.status_code, absent.status_code) == (404, 404)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_of_a_csv_begins_a_formula(auditor, dock, start):
    reason = f'{start}cmd|" /C calc"!A0, x\r\ny'
    services.record(Action.PROMOTION_REJECTED, actor=dock.owner, team=dock.team, reason=reason)
    answer = auditor.get("/audit/export/", {"format": "csv"})
    assert answer["Content-Type"].startswith("text/csv")
    assert "attachment" in answer["Content-Disposition"]
    text = b"".join(answer.streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows[0]["reason"] == f'\'{start}cmd|" /C calc"!A0, x\r\ny'
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for row in rows for cell in row.values())


def test_an_export_is_bounded_and_is_itself_an_event(auditor, request_, monkeypatch):
    monkeypatch.setattr("lifecycle.pages.audit.views.EXPORT_MAX", 2)
    answer = auditor.get("/audit/export/", {"format": "jsonl", "team": "shop"})
    assert len(b"".join(answer.streaming_content).splitlines()) == 2
    event = AuditEvent.objects.get(action="audit.exported")
    assert (event.actor_name, event.details) == ("auditor", {"format": "jsonl", "filter": {"team": "shop"}})
    assert auditor.get("/audit/export/", {"format": "exe"}).status_code == 400


def test_pages_of_the_trail_meet(auditor, dock):
    for number in range(60):
        services.record(Action.PROMOTION_READY, actor=dock.owner, team=dock.team, reason=f"thing {number}")
    first = auditor.get("/audit/", {"action": "promotion.ready"})
    second = auditor.get("/audit/", {"action": "promotion.ready", "after": first.context["page"].older})
    reasons = [event.reason for answer in (first, second) for event in answer.context["page"].rows]
    assert reasons == [f"thing {number}" for number in range(59, -1, -1)]
