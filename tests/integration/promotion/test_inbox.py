"""The inbox tells the requester how requests ended, a closed request asks nobody, and several are decided at once."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
INBOX, LISTS, BULK = "/inbox/", "/inbox/lists/", "/promotions/bulk/"


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def results(client):
    return [row.promotion.pk for row in client.get(INBOX).context["results"]]


def test_requester_sees_the_result_until_they_open_it(dock, request_):
    requester, other = browser(dock.requester), browser(dock.approver)
    assert results(requester) == []
    services.reject(request_.pk, actor=dock.approver, reason="not now")
    assert results(requester) == [request_.pk]
    assert results(other) == []
    assert 'id="inbox-count"><span class="count">1' in requester.get("/teams/").content.decode().replace("\n", "")
    other.get(reverse("lifecycle:promotion", args=[request_.pk]))  # somebody else's look changes nothing
    assert results(requester) == [request_.pk]
    requester.get(reverse("lifecycle:promotion", args=[request_.pk]))
    assert results(requester) == []


def test_all_results_are_marked_as_seen_and_own_withdrawal_is_no_news(dock, request_):
    client = browser(dock.requester)
    services.reject(request_.pk, actor=dock.approver, reason="not now")
    browser(dock.second).post("/inbox/seen/")
    assert results(client) == [request_.pk]
    client.post("/inbox/seen/")
    assert results(client) == []
    again = services.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="x"
    )
    services.withdraw(again.pk, actor=dock.requester)
    assert results(client) == []


@pytest.mark.parametrize("state", ["rejected", "withdrawn"])
def test_closed_request_asks_nobody(dock, request_, state):
    address = reverse("lifecycle:promotion", args=[request_.pk])
    client = browser(dock.approver)
    assert "Pending" in client.get(address).content.decode()
    if state == "rejected":
        services.reject(request_.pk, actor=dock.second, reason="not now")
    else:
        services.withdraw(request_.pk, actor=dock.requester)
    for page in (address, reverse("lifecycle:promotion-detail", args=[request_.pk])):
        text = client.get(page).content.decode()
        assert "Not met" in text
        assert not [word for word in ("Pending", "pending", "<b>You</b>") if word in text]
    shown = client.get(f"/api/v1/promotions/{request_.pk}/").json()["requirements"]
    assert {item["status"] for item in shown} <= {"unmet", "satisfied", "not_applicable"}
    assert [item["who"] for item in shown if item["status"] == "unmet"] == [[]]
    assert "pending" not in client.get("/promotions/").content.decode()


def test_my_requests_are_filtered(dock, request_):
    mine, other = browser(dock.requester), browser(dock.approver)
    assert [row.promotion.pk for row in mine.get("/promotions/?by=me").context["rows"]] == [request_.pk]
    assert other.get("/promotions/?by=me").context["rows"] == []
    assert [row.promotion.pk for row in other.get("/promotions/").context["rows"]] == [request_.pk]


@pytest.mark.parametrize(
    "address",
    [
        "/promotions/?state=zzz",
        "/promotions/?by=zzz",
        "/promotions/environments/?team=zzz",
        "/jobs/?kind=zzz",
        "/jobs/?state=zzz",
        "/rebuilds/?state=zzz",
        "/images/?team=zzz",
        "/t/shop/r/shop/api/i/{digest}/?tab=findings&severity=zzz",
        "/t/shop/r/shop/api/i/{digest}/?tab=findings&fix=zzz",
        "/t/shop/r/shop/api/i/{digest}/?platform=zzz",
    ],
)
def test_unknown_value_of_a_filter_is_said_and_shows_nothing(dock, request_, address):
    client, address = browser(dock.owner), address.format(digest=dock.image.digest)
    answer = client.get(address)
    assert answer.status_code == 400
    assert "Unknown value of the filter" in answer.content.decode()
    assert f'href="{address.partition("?")[0]}"' in answer.content.decode()
    assert client.get(address.replace("=zzz", "=")).status_code == 200


def test_a_poll_sends_lists_only_when_they_changed(dock, request_):
    client = browser(dock.approver)
    first = client.get(LISTS, headers={"HX-Request": "true"})
    same = client.get(LISTS, headers={"HX-Request": "true", "If-None-Match": f'"{first.context["etag"]}"'})
    assert (first.status_code, same.status_code) == (200, 304)
    assert b'id="inbox-count" hx-swap-oob="true"' in first.content
    services.withdraw(request_.pk, actor=dock.requester)
    empty = client.get(LISTS, headers={"HX-Request": "true", "If-None-Match": f'"{first.context["etag"]}"'})
    assert empty["HX-Refresh"] == "true"


def test_bulk_votes_and_names_each_refusal(dock, request_):
    answer = browser(dock.approver).post(
        BULK, {"ids": [request_.pk, 999_999], "act": "approve", "next": "inbox"}, follow=True
    )
    request_.refresh_from_db()
    assert request_.state == "ready"
    text = answer.content.decode()
    assert f"You approved PR-{request_.pk}." in text
    assert "PR-999999: Promotion not found" in text


def test_bulk_by_somebody_without_the_right_changes_nothing(dock, request_):
    for user in (dock.requester, dock.deployer):
        answer = browser(user).post(BULK, {"ids": request_.pk, "act": "approve"}, follow=True)
        assert "You need promotion.approve" in answer.content.decode()
    browser(dock.outsider).post(BULK, {"ids": request_.pk, "act": "approve"})
    assert PromotionRequest.objects.get().state == "open"


@pytest.mark.parametrize("where", ["inbox", ""])
def test_bulk_reject_without_reason_keeps_the_selection(dock, request_, where):
    answer = browser(dock.approver).post(BULK, {"ids": request_.pk, "act": "reject", "next": where})
    assert answer.status_code == 422
    text = " ".join(answer.content.decode().split())
    assert "Enter a reason" in text
    assert f'value="{request_.pk}" checked' in text
    assert PromotionRequest.objects.get().state == "open"
    answer = browser(dock.approver).post(BULK, {"ids": request_.pk, "act": "reject", "reason": "no", "next": where})
    assert answer.status_code == 302
    assert PromotionRequest.objects.get().state == "rejected"


@pytest.mark.parametrize("form", [{"act": "delete", "ids": 1}, {"ids": 1}])
def test_bulk_refuses_unknown_acts(dock, request_, form):
    assert browser(dock.approver).post(BULK, form).status_code == 400
