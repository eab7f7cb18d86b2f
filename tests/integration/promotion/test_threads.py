"""Threads on a request: who says, blocks and resolves, and what a blocking thread stops."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Role, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted
from lifecycle.promotion import queries, services, threads
from lifecycle.promotion.models import Comment, PromotionRequest
from tests.factories import people
from tests.racing import Race

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture
def viewer(dock):
    person = User.objects.create(username="viewer")
    RoleGrant.objects.create(user=person, team=dock.team, role=Role.objects.get(slug="viewer"))
    return person


def test_blocking_thread_regresses_a_ready_request_until_it_is_resolved(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    thread = threads.comment(request_.pk, actor=dock.second, text="Is the index built?", is_blocking=True)
    request_.refresh_from_db()
    assert request_.state == State.OPEN
    item = next(item for item in queries.requirements_now(request_) if item["name"] == "threads")
    assert item["summary"] == "1 thread of second must be resolved first."
    assert item["who"] == ["second: resolve the thread", "another approver: resolve it"]
    with pytest.raises(IllegalTransition):
        services.execute(request_.pk, actor=dock.deployer)
    threads.comment(request_.pk, actor=dock.requester, text="Yes, since Monday.", reply_to=thread.pk)
    threads.resolve(request_.pk, thread.pk, actor=dock.second)
    request_.refresh_from_db()
    assert request_.state == State.READY
    said = threads_as_words(request_)
    assert said == [("Is the index built?", ["Yes, since Monday."], "second")]
    actions = AuditEvent.objects.filter(action__contains="thread").values_list("action", "details")
    assert list(actions) == [("promotion.thread_resolved", {"thread": thread.pk})]


def threads_as_words(request):
    return [
        (row.text, [answer.text for answer in row.said], row.resolved_by.username if row.resolved_by else "")
        for row in queries.threads_of(request)
    ]


def test_who_sees_a_request_comments_and_blocks_nothing(dock, request_, viewer):
    threads.comment(request_.pk, actor=viewer, text="Looks good.")
    robot = people.robot(dock.team, "owner", maker=dock.owner).user
    threads.comment(request_.pk, actor=robot, text="Tests: 120 passed.")
    for actor, why in ((viewer, "Only the requester"), (robot, "Only people")):
        with pytest.raises(NotPermitted, match=why):
            threads.comment(request_.pk, actor=actor, text="Stop.", is_blocking=True)
    with pytest.raises(NotFound):
        threads.comment(request_.pk, actor=dock.outsider, text="Hello?")
    assert Comment.objects.count() == 2


def test_who_resolves(dock, request_, viewer):
    thread = threads.comment(request_.pk, actor=dock.approver, text="Why now?", is_blocking=True)
    for actor in (viewer, dock.requester, dock.deployer):
        with pytest.raises(NotPermitted, match="approvers of this request"):
            threads.resolve(request_.pk, thread.pk, actor=actor)
    threads.resolve(request_.pk, thread.pk, actor=dock.second)
    with pytest.raises(Conflict, match="already resolved by second"):
        threads.resolve(request_.pk, thread.pk, actor=dock.approver)
    own = threads.comment(request_.pk, actor=dock.requester, text="Wait for me.", is_blocking=True)
    threads.resolve(request_.pk, own.pk, actor=dock.requester)


def test_malformed_comments_are_refused(dock, request_, monkeypatch):
    thread = threads.comment(request_.pk, actor=dock.approver, text="Why now?")
    answer = threads.comment(request_.pk, actor=dock.second, text="Because.", reply_to=thread.pk)
    for wrong in ({"text": " "}, {"text": "x" * 4001}, {"text": "a\0"}, {"reply_to": thread.pk, "is_blocking": True}):
        with pytest.raises(Malformed):
            threads.comment(request_.pk, **({"actor": dock.approver, "text": "x"} | wrong))
    for number in (answer.pk, 10**6):
        with pytest.raises(NotFound, match="no thread"):
            threads.comment(request_.pk, actor=dock.approver, text="x", reply_to=number)
    monkeypatch.setattr(threads, "COMMENTS_MAX", 2)
    with pytest.raises(Malformed, match="2 comments already"):
        threads.comment(request_.pk, actor=dock.approver, text="x")


def test_ended_request_can_be_discussed_and_not_stopped(dock, request_):
    open_one = threads.comment(request_.pk, actor=dock.approver, text="Why now?", is_blocking=True)
    services.reject(request_.pk, actor=dock.approver, reason="no")
    threads.comment(request_.pk, actor=dock.requester, text="Too bad.")
    with pytest.raises(Conflict, match="Nothing stops it"):
        threads.comment(request_.pk, actor=dock.approver, text="Stop.", is_blocking=True)
    threads.resolve(request_.pk, open_one.pk, actor=dock.approver)
    request_.refresh_from_db()
    assert request_.state == State.REJECTED


def test_page_and_api_show_threads(dock, request_):
    second = browser(dock.second)
    page = reverse("lifecycle:promotion", args=[request_.pk])
    answer = second.post(page + "comment/", {"text": "Is it <b>safe</b>?", "is_blocking": "on"})
    thread = Comment.objects.get()
    assert answer["Location"] == f"{page}#comment-{thread.pk}"
    text = second.get(page).content.decode()
    assert "Is it &lt;b&gt;safe&lt;/b&gt;?" in text
    assert "The request waits for this" in text
    assert "waits until this is resolved" not in browser(dock.deployer).get(page).content.decode()
    long = second.post(page + "comment/", {"text": "x" * 4001})
    assert (long.status_code, "x" * 4001 in long.content.decode()) == (422, True)
    second.post(page + "comment/", {"text": "Yes.", "reply_to": thread.pk})
    shown = second.get(f"/api/v1/promotions/{request_.pk}/").json()["threads"]
    assert [(row["author"], row["is_blocking"], [x["text"] for x in row["answers"]]) for row in shown] == [
        ("second", True, ["Yes."])
    ]
    assert second.post(f"{page}threads/{thread.pk}/resolve/").status_code == 302
    assert second.post(f"{page}threads/{thread.pk}/resolve/").status_code == 409
    assert "resolved by second" in second.get(page).content.decode()


@pytest.mark.django_db(transaction=True)
def test_fifty_clicks_resolve_once(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    thread = threads.comment(request_.pk, actor=dock.second, text="Wait.", is_blocking=True)
    race = Race(
        *[lambda: threads.resolve(request_.pk, thread.pk, actor=dock.second)] * 25,
        *[lambda: threads.resolve(request_.pk, thread.pk, actor=dock.approver)] * 25,
    )
    assert len(race.done) == 1
    request_.refresh_from_db()
    assert request_.state == State.READY
