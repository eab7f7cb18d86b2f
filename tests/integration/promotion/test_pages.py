"""Promotions by browser: the forms do what the services do, and say why when they do not."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def act(user, name, request_, **data):
    return browser(user).post(reverse(f"lifecycle:promotion-{name}", args=[request_.pk]), data)


def test_a_request_is_made_by_form(dock):
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    answer = browser(dock.requester).post(page, {"environment": dock.dev.pk, "reason": "first"})
    made = PromotionRequest.objects.get()
    assert answer["Location"] == reverse("lifecycle:promotion", args=[made.pk])
    assert (made.requested_by, made.tag, made.reason) == (dock.requester, "1.0", "first")


def test_a_request_without_a_reason_comes_back(dock):
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    assert browser(dock.requester).post(page, {"environment": dock.dev.pk}).status_code == 422
    assert not PromotionRequest.objects.exists()


def test_approval_and_execution_by_the_page(dock, request_):
    assert act(dock.approver, "approve", request_).status_code == 302
    request_.refresh_from_db()
    assert request_.state == "ready"
    assert "Carry out now" in browser(dock.deployer).get(f"/promotions/{request_.pk}/").content.decode()
    assert act(dock.deployer, "execute", request_).status_code == 302
    request_.refresh_from_db()
    assert request_.state == "executing"
    assert 'hx-trigger="every 2s"' in browser(dock.deployer).get(f"/promotions/{request_.pk}/").content.decode()


def test_the_requester_is_told_why_and_refused(dock, request_):
    page = browser(dock.requester).get(reverse("lifecycle:promotion", args=[request_.pk])).content.decode()
    assert "someone else has to decide" in page
    assert act(dock.requester, "approve", request_).status_code == 403
    request_.refresh_from_db()
    assert request_.state == "open"


def test_a_rejection_needs_a_reason(dock, request_):
    assert act(dock.approver, "reject", request_).status_code == 422
    assert act(dock.approver, "reject", request_, reason="not tested").status_code == 302
    request_.refresh_from_db()
    assert request_.state == "rejected"
    late = act(dock.second, "approve", request_)
    assert late.status_code == 409
    assert "approver" in late.content.decode()


def test_the_inbox_shows_what_waits_and_no_more(dock, request_):
    link = reverse("lifecycle:promotion", args=[request_.pk])
    shown = {
        who: link in browser(getattr(dock, who)).get(reverse("lifecycle:inbox")).content.decode()
        for who in ("approver", "requester", "deployer", "outsider")
    }
    assert shown == {"approver": True, "requester": False, "deployer": False, "outsider": False}
    services.approve(request_.pk, actor=dock.approver)
    assert link in browser(dock.deployer).get(reverse("lifecycle:inbox")).content.decode()


@pytest.mark.parametrize("page", ["inbox", "promotions"])
def test_a_list_costs_the_same_for_one_row_and_more(page, dock, request_, django_assert_max_num_queries):
    client, address = browser(dock.approver), reverse(f"lifecycle:{page}")
    client.get(address)
    with django_assert_max_num_queries(100) as one:
        client.get(address)
    services.withdraw(request_.pk, actor=dock.requester)
    for environment in (dock.dev, dock.staging):
        environment.required_approvals = 1
        environment.save()
        services.request_promotion(
            dock.repository, dock.image.digest, environment, actor=dock.requester, reason="another"
        )
    with django_assert_max_num_queries(100) as more:
        client.get(address)
    assert len(more) == len(one)
