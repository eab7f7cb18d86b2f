"""Quarantines in the API, on pages and in the command line."""

from __future__ import annotations

import pytest
from django.test import Client

from lifecycle.jobs.models import Job
from lifecycle.quarantine import services
from lifecycle.search.queries import search
from tests.factories import dock as rows
from tests.factories.people import person

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def client_of(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture
def guard(dock):
    return person("guard", dock.team, "security")


@pytest.fixture
def yard(dock, guard):
    """A quarantined image with one built on it, both in shop/api."""
    base, app = rows.image("base"), rows.image("app")
    rows.derive(base, app)
    rows.push(dock.repository, base, "base")
    rows.push(dock.repository, app, "app")
    return services.quarantine(base.digest, actor=guard, reason="contains a backdoor"), base, app


def post(client, path, body):
    return client.post(f"/api/v1/quarantines/{path}", body, content_type="application/json")


def test_life_of_a_quarantine_in_the_api(dock, guard):
    first, second = client_of(guard), client_of(person("other", dock.team, "security"))
    asked = {"digest": dock.image.digest, "reason": "bad", "incident": "INC-7", "descendants": True, "withdraw": False}
    made = post(first, "", asked)
    assert (made.status_code, made.json()["state"], made.json()["incident"]) == (201, "active", "INC-7")
    number = made.json()["id"]
    again = post(first, "", asked)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    refused = post(first, f"{number}/release/", {})
    assert (refused.status_code, refused.json()["code"]) == (403, "second_person_needed")
    assert post(second, f"{number}/release/", {}).status_code == 409
    assert post(first, f"{number}/request-release/", {"reason": "false alarm"}).json()["state"] == "release_requested"
    assert post(first, f"{number}/release/", {}).json()["code"] == "second_person_needed"
    ended = post(second, f"{number}/release/", {})
    assert (ended.status_code, ended.json()["state"], ended.json()["released_by"]) == (200, "released", "other")


def test_withdrawal_is_shown_in_the_repositories_that_the_reader_sees(dock, guard):
    rows.push(rows.repository("base/copy"), dock.image, "copy")
    client = client_of(guard)
    made = post(client, "", {"digest": dock.image.digest, "reason": "bad", "withdraw": True}).json()
    listed = client.get(f"/api/v1/quarantines/{made['id']}/withdrawals/").json()["results"]
    assert made["withdraw"] is True
    assert [(item["repository"], item["tags"], item["state"]) for item in listed] == [("shop/api", ["1.0"], "pending")]
    page = client.get(f"/quarantines/{made['id']}/").content.decode()
    assert ("nodes' caches" in page, "Withdrawn from" in page, "base/copy" in page) == (True, True, False)


@pytest.mark.parametrize("face", ["api", "page"])
def test_a_live_quarantine_begins_to_stop_pulls(dock, guard, face):
    client = client_of(guard)
    number = post(client, "", {"digest": dock.image.digest, "reason": "bad"}).json()["id"]
    if face == "api":
        assert post(client, f"{number}/withdraw/", {}).status_code == 400
        assert post(client, f"{number}/withdraw/", {"reason": "pulled"}).json()["withdraw"] is True
        assert post(client, f"{number}/withdraw/", {"reason": "pulled"}).status_code == 409
    else:
        assert "Stop pulls too" in client.get(f"/quarantines/{number}/").content.decode()
        assert client.post(f"/quarantines/{number}/withdraw/", {"reason": "pulled"}).status_code == 302
    page = client.get(f"/quarantines/{number}/").content.decode()
    assert ("Stop pulls too" in page, "Withdrawn from" in page) == (False, True)
    assert Job.objects.get(kind="withdraw").actor == guard


def test_image_is_withdrawn_from_the_form(dock, guard):
    form = {"digest": dock.image.digest, "reason": "bad", "descendants": "on", "withdraw": "on"}
    page = client_of(guard).post("/quarantines/new/", form)["Location"]
    assert "Withdrawn from" in client_of(guard).get(page).content.decode()
    assert Job.objects.get(kind="withdraw").actor == guard


def test_images_in_the_api_name_their_quarantines(dock, yard):
    row, base, app = yard
    client = client_of(dock.requester)
    by_digest = {image["digest"]: image["quarantines"] for image in client.get("/api/v1/images/").json()["results"]}
    assert by_digest[app.digest] == [{"id": row.pk, "reason": "contains a backdoor", "direct": False}]
    assert by_digest[base.digest][0]["direct"] is True
    assert by_digest[dock.image.digest] == []
    one = client.get(f"/api/v1/images/{app.digest}/").json()
    assert one["quarantines"] == by_digest[app.digest]
    listed = client.get(f"/api/v1/quarantines/{row.pk}/images/").json()["results"]
    assert [image["digest"] for image in listed] == [base.digest, app.digest]


def test_exemption_in_the_api(dock, guard, yard):
    row, _, app = yard
    body = {"digest": app.digest, "reason": "does not contain the file"}
    refused = post(client_of(guard), f"{row.pk}/exemptions/", body)
    assert (refused.status_code, refused.json()["code"]) == (403, "second_person_needed")
    assert post(client_of(dock.owner), f"{row.pk}/exemptions/", body).status_code == 201
    listed = client_of(dock.requester).get(f"/api/v1/quarantines/{row.pk}/exemptions/").json()["results"]
    assert [item["digest"] for item in listed] == [app.digest]


@pytest.mark.parametrize(
    "path",
    [
        "/images/",
        "/t/shop/r/shop/api/",
        "/t/shop/r/shop/api/i/{app}/",
        "/lineage/",
        "/lineage/{app}/",
        "/promotions/environments/",
        "/search/?q={app}",
        "/search/?q=app",
        "/quarantines/",
        "/quarantines/{row}/",
    ],
)
def test_pages_show_quarantines(dock, yard, path):
    row, _, app = yard
    rows.Slot.objects.create(repository=dock.repository, environment=dock.dev, image=app, tag="1")
    shown = client_of(dock.requester).get(path.format(app=app.digest, row=row.pk)).content.decode()
    assert "quarantined" in shown.lower()


def test_page_of_a_covered_image_gives_the_reason_and_no_link_to_a_hidden_quarantine(dock):
    base, app = rows.image("hidden base"), rows.image("app")
    rows.derive(base, app)
    rows.push(rows.repository("base/python"), base, "3")
    rows.push(dock.repository, app, "app")
    row = services.quarantine(
        base.digest, actor=rows.user("base-guard", "security", of=rows.team("base")), reason="contains a backdoor"
    )
    shown = client_of(dock.requester).get(f"/t/shop/r/shop/api/i/{app.digest}/").content.decode()
    assert "contains a backdoor" in shown
    assert f"/quarantines/{row.pk}/" not in shown
    assert base.digest not in shown


def test_two_people_lift_a_quarantine_on_the_pages(dock, guard):
    first, second = client_of(guard), client_of(dock.owner)
    form = {"digest": dock.image.digest, "reason": "bad", "descendants": "on"}
    assert first.post("/quarantines/new/", form | {"reason": " "}).status_code == 422
    made = first.post("/quarantines/new/", form)
    assert made.status_code == 302
    page = made["Location"]
    assert "Quarantine</button>" in first.get(f"/quarantines/new/?digest={dock.image.digest}").content.decode()
    assert first.post(f"{page}request-release/", {"reason": ""}).status_code == 422
    assert first.post(f"{page}request-release/", {"reason": "false alarm"}).status_code == 302
    assert first.post(f"{page}release/", {}).status_code == 403
    assert second.post(f"{page}refuse-release/", {"reason": "not proven"}).status_code == 302
    first.post(f"{page}request-release/", {"reason": "proven"})
    assert second.post(f"{page}release/", {}).status_code == 302
    assert "Lifted" in second.get(page).content.decode()


def test_exemption_on_the_page(dock, yard):
    row, _, app = yard
    client = client_of(dock.owner)
    wrong = client.post(f"/quarantines/{row.pk}/exemptions/", {"digest": dock.image.digest, "reason": "x"})
    assert (wrong.status_code, "does not cover" in wrong.content.decode()) == (422, True)
    made = client.post(f"/quarantines/{row.pk}/exemptions/", {"digest": app.digest, "reason": "harmless"})
    assert made.status_code == 302
    assert "harmless" in client.get(f"/quarantines/{row.pk}/").content.decode()


def test_search_finds_a_quarantine_by_its_number(dock, yard):
    row, _, _ = yard
    assert [hit.name for hit in search(dock.requester, f"q-{row.pk}")] == [f"Q-{row.pk}"]
    assert search(dock.outsider, f"Q-{row.pk}") == []
