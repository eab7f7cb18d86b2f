"""The promotion pages: forms call the services and show why an action is refused."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import Team, User
from accounts.queries import system_user
from lifecycle.authority.services import create_environment
from lifecycle.environments.models import Slot
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Repository, RepositoryImage

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def act(user, name, request_, **data):
    return browser(user).post(reverse(f"lifecycle:promotion-{name}", args=[request_.pk]), data)


def test_form_creates_request(dock):
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    answer = browser(dock.requester).post(page, {"environment": dock.dev.pk, "reason": "first"})
    made = PromotionRequest.objects.get()
    assert answer["Location"] == reverse("lifecycle:promotion", args=[made.pk])
    assert (made.requested_by, made.tag, made.reason) == (dock.requester, "1.0", "first")


def test_unavailable_environments_are_disabled_with_the_reason(dock, request_):
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    client = browser(dock.requester)
    text = client.get(page).content.decode()
    assert "This image is already deployed in dev." in text
    assert f"{request_} already requests this." in text
    assert client.post(page, {"environment": dock.dev.pk, "reason": "again"}).status_code == 422
    services.withdraw(request_.pk, actor=dock.requester)
    Slot.objects.all().delete()
    text = client.get(page).content.decode()
    assert "ready only after dev" in text
    assert "What changes in dev" in text
    assert client.post(page, {"environment": dock.dev.pk, "reason": "first"}).status_code == 302


def test_promote_button_opens_form_or_gives_reason(dock):
    repository = reverse("lifecycle:repository", args=["shop", "shop/api"])
    image = reverse("lifecycle:image", args=["shop", "shop/api", dock.image.digest])
    leads = reverse("lifecycle:promotion-new") + "?repository="
    for page in (repository, image, image + "?tab=promotions"):
        assert leads in browser(dock.requester).get(page).content.decode()
        refused = browser(dock.approver).get(page).content.decode()
        assert leads not in refused
        assert "You need promotion.request" in refused


def test_board_shows_deployed_images_and_waiting_requests(dock, request_, django_assert_num_queries):
    client, address = browser(dock.approver), reverse("lifecycle:environments")
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        text = client.get(address).content.decode()
    assert dock.image.digest[:19] in text
    assert reverse("lifecycle:promotion", args=[request_.pk]) in text
    for name in ("shop/web", "shop/worker", "shop/jobs"):
        family = Repository.objects.create(registry=dock.repository.registry, team=dock.team, name=name, family=name)
        Slot.objects.create(repository=family, environment=dock.dev, image=dock.image, tag="1.0")
        RepositoryImage.objects.create(repository=family, image=dock.image)
        services.request_promotion(family, dock.image.digest, dock.staging, actor=dock.requester, reason="more")
    with django_assert_num_queries(len(one)):
        assert "shop/worker" in client.get(address).content.decode()
    for number in range(4):
        image = Image.objects.create(digest=f"sha256:{number:064}", kind="manifest", manifest=b"{}")
        RepositoryImage.objects.create(repository=dock.repository, image=image)
        services.request_promotion(dock.repository, image.digest, dock.staging, actor=dock.requester, reason="x")
    assert "and 3 more" in client.get(address).content.decode()  # five requests wait, two are shown
    outsider = browser(dock.outsider).get(address)
    assert outsider.status_code == 200
    assert "shop/api" not in outsider.content.decode()


def test_request_without_reason_shows_the_form_again(dock):
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    assert browser(dock.requester).post(page, {"environment": dock.dev.pk}).status_code == 422
    assert not PromotionRequest.objects.exists()


def test_page_approves_and_runs_request(dock, request_):
    assert act(dock.approver, "approve", request_).status_code == 302
    request_.refresh_from_db()
    assert request_.state == "ready"
    assert "Run promotion" in browser(dock.deployer).get(f"/promotions/{request_.pk}/").content.decode()
    assert act(dock.deployer, "execute", request_).status_code == 302
    request_.refresh_from_db()
    assert request_.state == "executing"
    assert 'hx-trigger="every 2s"' in browser(dock.deployer).get(f"/promotions/{request_.pk}/").content.decode()


def test_requester_sees_why_approval_is_refused(dock, request_):
    page = browser(dock.requester).get(reverse("lifecycle:promotion", args=[request_.pk])).content.decode()
    assert "You cannot approve or reject your own request." in page
    assert act(dock.requester, "approve", request_).status_code == 403
    request_.refresh_from_db()
    assert request_.state == "open"


def test_rejection_needs_a_reason(dock, request_):
    assert act(dock.approver, "reject", request_).status_code == 422
    assert act(dock.approver, "reject", request_, reason="not tested").status_code == 302
    request_.refresh_from_db()
    assert request_.state == "rejected"
    late = act(dock.second, "approve", request_)
    assert late.status_code == 409
    assert "approver" in late.content.decode()


def test_inbox_shows_only_waiting_requests(dock, request_):
    link = reverse("lifecycle:promotion", args=[request_.pk])
    shown = {
        who: link in browser(getattr(dock, who)).get(reverse("lifecycle:inbox")).content.decode()
        for who in ("approver", "requester", "deployer", "outsider")
    }
    assert shown == {"approver": True, "requester": False, "deployer": False, "outsider": False}
    services.approve(request_.pk, actor=dock.approver)
    assert link in browser(dock.deployer).get(reverse("lifecycle:inbox")).content.decode()


def test_inbox_shows_first_evidence_and_votes_in_place(dock, request_):
    page = browser(dock.approver).get(reverse("lifecycle:inbox")).content.decode()
    assert 'id="detail"' in page
    assert 'data-key="a"' in page
    done = act(dock.approver, "approve", request_, next="inbox")
    assert done["Location"] == reverse("lifecycle:inbox")
    assert act(dock.second, "reject", request_, next="inbox").status_code == 422  # no reason
    request_.refresh_from_db()
    assert request_.state == "ready"


def test_evidence_pane_is_a_fragment_for_users_with_access(dock, request_):
    address = reverse("lifecycle:promotion-detail", args=[request_.pk])
    shown = browser(dock.approver).get(address)
    assert shown.status_code == 200
    assert "<html" not in shown.content.decode()
    assert browser(dock.outsider).get(address).status_code == 404


def test_late_voter_sees_who_voted_first(dock, request_):
    services.reject(request_.pk, actor=dock.approver, reason="not tested")
    for where in ("", "inbox"):
        late = act(dock.second, "approve", request_, next=where)
        assert late.status_code == 409
        assert "was already rejected by approver" in late.content.decode()
    assert not request_.votes.filter(voter=dock.second).exists()


def test_page_shows_state_and_blockers(dock, request_):
    page = browser(dock.approver).get(reverse("lifecycle:promotion", args=[request_.pk])).content.decode()
    assert "Open: 1 pending" in page
    assert "requester requested" in page
    services.approve(request_.pk, actor=dock.second, reason="looked at it")
    page = browser(dock.approver).get(reverse("lifecycle:promotion", args=[request_.pk])).content.decode()
    assert "Ready: all requirements are met" in page
    assert "looked at it" in page


def test_progress_is_polled_while_running_then_page_reloads(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    services.execute(request_.pk, actor=dock.deployer)
    client, address = browser(dock.deployer), reverse("lifecycle:promotion-progress", args=[request_.pk])
    assert 'hx-trigger="every 2s"' in client.get(address).content.decode()
    assert browser(dock.outsider).get(address).status_code == 404
    services.fail(request_, why="The registry said no.")
    assert client.get(address)["HX-Refresh"] == "true"
    page = client.get(reverse("lifecycle:promotion", args=[request_.pk])).content.decode()
    assert "The registry said no." in page
    assert "Request again" in page


@pytest.mark.parametrize("page", ["inbox", "promotions"])
def test_list_costs_same_queries_for_one_and_more_rows(page, dock, request_, django_assert_num_queries):
    client, address = browser(dock.approver), f"{reverse(f'lifecycle:{page}')}?request={request_.pk}"
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        assert "shop/api" in client.get(address).content.decode()
    for number in range(3):
        image = Image.objects.create(
            digest=f"sha256:{number:064}", kind="manifest", manifest=b"{}", scanned_at=timezone.now()
        )
        RepositoryImage.objects.create(repository=dock.repository, image=image)
        services.request_promotion(dock.repository, image.digest, dock.staging, actor=dock.requester, reason="more")
    with django_assert_num_queries(len(one)):
        assert client.get(address).content.decode().count("data-row-link") == 4


def test_board_begins_with_a_team_that_has_images(dock):
    """An admin sees the environments of every team, also of those whose repositories they cannot see."""
    first = Team.objects.create(slug="a-first", name="First")
    create_environment(first, actor=system_user(), slug="dev", name="Dev", prefix="first")
    User.objects.filter(pk=dock.owner.pk).update(is_superuser=True)
    answer = browser(dock.owner).get(reverse("lifecycle:environments"))
    assert [team.slug for team in answer.context["teams"]] == ["a-first", "shop"]
    assert answer.context["team"] == dock.team
    answer = browser(dock.owner).get(reverse("lifecycle:environments"), {"team": "a-first"})
    assert answer.context["team"] == first
