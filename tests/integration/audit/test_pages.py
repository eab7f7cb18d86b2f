"""The audit pages: access, filters, the event page, and exports without spreadsheet formulas."""

from __future__ import annotations

import csv
import io
import json

import pytest
from django.test import Client

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import GrantCreated, RoleChanged, RoleContent, RoleDeleted
from lifecycle.audit.models import AuditEvent
from lifecycle.core.context import RequestContext, request_context
from lifecycle.pages.templatetags.gravingdock import event_subject
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


def test_auditor_sees_own_team_and_admin_sees_everything(auditor, dock, request_):
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
        ({"subject": "sha256:" + "a" * 12 + "…"}, ["promotion.requested"]),
        ({"subject": "a" * 12}, ["promotion.requested"]),
        ({"subject": "A" * 64}, ["promotion.requested"]),
        ({"subject": "a" * 11 + "b"}, []),
        ({"subject": "PR-{pk}"}, ["promotion.requested"]),
        ({"subject": "pr-{pk}"}, ["promotion.requested"]),
        ({"subject": "promotionrequest {pk}"}, ["promotion.requested"]),
        ({"subject": "PR-{other}"}, []),
        ({"subject": "W-{pk}"}, []),
        ({"subject": "staging"}, ["promotion.requested", "environment.created"]),
        ({"subject": "environment staging"}, ["promotion.requested", "environment.created"]),
        ({"subject": "staging/shop/api"}, ["promotion.requested"]),
        ({"subject": "dev/shop/api"}, []),
        ({"subject": " shop/api  in staging "}, ["promotion.requested"]),
        ({"subject": "shop/api in dev"}, []),
        ({"subject": "team shop", "action": "promotion"}, ["promotion.requested"]),
        ({"subject": "nothing like it"}, []),
        ({"team": "shop", "outcome": "ok", "action": "env"}, ["environment.created", "environment.created"]),
        ({"team": "other"}, []),
        ({"outcome": "denied"}, []),
        ({"until": "2001-01-01"}, []),
        ({"since": "2001-01-01", "action": "promotion"}, ["promotion.requested"]),
    ],
)
def test_filter_applies_to_page_and_export(auditor, request_, query, expected):
    query = {name: text.format(pk=request_.pk, other=request_.pk + 1) for name, text in query.items()}
    assert actions(auditor.get("/audit/", query)) == expected
    lines = b"".join(auditor.get("/audit/export/", {**query, "format": "jsonl"}).streaming_content).splitlines()
    assert [json.loads(line)["action"] for line in lines] == expected


@pytest.mark.parametrize(
    "query",
    [
        {"since": "yesterday"},
        {"action": "a b"},
        {"outcome": "good"},
        {"since": "2026-02-02", "until": "2026-02-01"},
    ],
)
def test_malformed_filter_gets_an_error_and_no_events(auditor, request_, query):
    answer = auditor.get("/audit/", query)
    assert (answer.status_code, actions(answer)) == (422, [])
    assert auditor.get("/audit/export/", query).status_code == 400


def test_event_page_shows_all_details_to_its_readers_only(auditor, dock, request_):
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
def test_csv_export_escapes_formulas(auditor, dock, start):
    reason = f'{start}cmd|" /C calc"!A0, x\r\ny'
    services.record(Action.PROMOTION_REJECTED, actor=dock.owner, team=dock.team, reason=reason)
    answer = auditor.get("/audit/export/", {"format": "csv"})
    assert answer["Content-Type"].startswith("text/csv")
    assert "attachment" in answer["Content-Disposition"]
    text = b"".join(answer.streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows[0]["reason"] == f'\'{start}cmd|" /C calc"!A0, x\r\ny'
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for row in rows for cell in row.values())


def test_export_is_limited_and_recorded(auditor, request_, monkeypatch):
    monkeypatch.setattr("lifecycle.pages.audit.views.EXPORT_MAX", 2)
    answer = auditor.get("/audit/export/", {"format": "jsonl", "team": "shop"})
    assert len(b"".join(answer.streaming_content).splitlines()) == 2
    event = AuditEvent.objects.get(action="audit.exported")
    assert (event.actor_name, event.details) == ("auditor", {"format": "jsonl", "filter": {"team": "shop"}})
    assert auditor.get("/audit/export/", {"format": "exe"}).status_code == 400


def test_pagination_skips_and_repeats_no_event(auditor, dock):
    for number in range(60):
        services.record(Action.PROMOTION_READY, actor=dock.owner, team=dock.team, reason=f"thing {number}")
    first = auditor.get("/audit/", {"action": "promotion.ready"})
    second = auditor.get("/audit/", {"action": "promotion.ready", "after": first.context["page"].older})
    reasons = [event.reason for answer in (first, second) for event in answer.context["page"].rows]
    assert reasons == [f"thing {number}" for number in range(59, -1, -1)]


def test_the_subject_that_a_row_shows_finds_the_row(auditor, dock, request_):
    services.record(
        Action.GRANT_CREATED, actor=dock.owner, team=dock.team,
        details=GrantCreated(user="kim", role="deployer", repositories="*", expires_at="never"),
    )  # fmt: skip
    services.record(
        Action.ROLE_DELETED, actor=dock.owner, team=dock.team, details=RoleDeleted("crew", RoleContent("Crew", ()))
    )
    for event in AuditEvent.objects.all():
        found = auditor.get("/audit/", {"subject": event_subject(event)}).context["page"].rows
        assert event.pk in [row.pk for row in found], event_subject(event)


def test_event_links_to_what_the_reader_can_see(dock, request_):
    event = AuditEvent.objects.get(action="promotion.requested")
    admin = browser(User.objects.create(username="admin", is_superuser=True))
    owner = browser(dock.owner)
    shown = [
        f'href="/promotions/{request_.pk}/"',
        f'/t/shop/r/shop/api/i/{dock.image.digest}/"',
        '"/t/shop/r/shop/api/"',
    ]
    page = owner.get(f"/audit/{event.pk}/").content.decode()
    assert [text for text in shown if text not in page] == []
    assert 'href="/promotions/environments/?team=shop"' in page
    hidden = admin.get(f"/audit/{event.pk}/").content.decode()  # an admin reads the log, but holds no image.view
    assert [text for text in shown if text in hidden] == []
    assert f"PR-{request_.pk}" in hidden


def test_event_page_says_differences_in_words(auditor, dock):
    before, after = RoleContent("Crew", ("image.view", "image.scan")), RoleContent("All", ("image.view",))
    details = RoleChanged("crew", before, after)
    event = services.record(Action.ROLE_CHANGED, actor=dock.owner, team=dock.team, details=details)
    page = auditor.get(f"/audit/{event.pk}/").content.decode()
    assert "Name changed from Crew to All. Removed image.scan." in page
