"""The job pages: own jobs, subjects, the polled log, cancel and retry."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition, LeaseLost, NotFound
from lifecycle.ingest.models import Delivery
from lifecycle.jobs import services, steering
from lifecycle.jobs.kinds import names
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.pages.jobs import page_queries
from lifecycle.registry.models import Registry

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create(username="admin", is_superuser=True)


def job(kind: str, actor: User, subject: int = 1, **more: Any) -> Job:
    if more.get("state") in {"succeeded", "failed", "cancelled"}:
        more.setdefault("finished_at", timezone.now())
    return Job.objects.create(kind=kind, actor=actor, subject_id=subject, **more)


def running(made: Job, *, ran_s: float, done: int, total: int) -> Job:
    services.claim(made.pk, worker="w:1")
    started = timezone.now() - timedelta(seconds=ran_s)
    Job.objects.filter(pk=made.pk).update(started_at=started, progress_done=done, progress_total=total)
    made.refresh_from_db()
    return made


def test_users_see_own_jobs_and_admins_see_all(dock: Any, admin: User) -> None:
    mine, other = job("scan", dock.owner, dock.image.pk), job("crawl", system_user())
    assert [row.pk for row in browser(dock.owner).get("/jobs/").context["page"].rows] == [mine.pk]
    assert browser(dock.owner).get(f"/jobs/{other.pk}/").status_code == 404
    assert {row.pk for row in browser(admin).get("/jobs/").context["page"].rows} == {mine.pk, other.pk}
    assert [row.pk for row in browser(admin).get("/jobs/?kind=crawl").context["page"].rows] == [other.pk]
    assert browser(admin).get("/jobs/?state=failed").context["page"].rows == []


def test_subject_is_shown_with_link_only_to_readers_with_access(
    dock: Any,
    request_: Any,
    admin: User,
) -> None:
    delivery = Delivery.objects.create(
        registry=Registry.objects.get(), instance="i", event_id="e", action="push", body=b"{}"
    )
    jobs = [
        job("scan", dock.owner, dock.image.pk),
        job("promote", dock.owner, request_.pk),
        job("ingest", dock.owner, delivery.pk),
        job("crawl", dock.owner, Registry.objects.get().pk),
        job("match", dock.owner, payload={"package_ids": [1, 2], "advisory_ids": [3]}),
        job("plan", dock.owner, 999),
    ]

    def shown_subjects(reader: User) -> list[tuple[str, bool]]:
        found = page_queries.subjects_of(jobs, reader)
        return [(found[row.pk].words, bool(found[row.pk].url)) for row in jobs]

    assert shown_subjects(dock.owner) == [
        ("shop/api:1.0", True),
        ("shop/api:1.0 to staging", True),
        ("push from registry managed", False),
        ("all repositories of managed", False),
        ("2 package versions, 1 advisory", False),
        ("subject 999", False),
    ]
    assert [words for words, _ in shown_subjects(dock.outsider)[:2]] == [
        f"subject {dock.image.pk}",
        f"subject {request_.pk}",
    ]
    assert shown_subjects(admin)[1] == ("shop/api:1.0 to staging", False)


def test_time_left_is_shown_only_with_enough_data(dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = running(job("crawl", dock.owner), ran_s=60, done=25, total=100)
    assert known.started_at is not None
    after_a_minute = known.started_at + timedelta(seconds=61)
    monkeypatch.setattr(clock, "now", lambda: after_a_minute)  # however long the page takes
    assert page_queries.seconds_left(known) == 183
    assert "about 3:03" in browser(dock.owner).get(f"/jobs/{known.pk}/").content.decode()
    for ran_s, done, total in ((60, 1, 100), (1, 50, 100), (60, 100, 100)):
        assert page_queries.seconds_left(running(job("crawl", dock.owner), ran_s=ran_s, done=done, total=total)) is None
    assert page_queries.seconds_left(job("crawl", dock.owner, progress_done=5, progress_total=10)) is None


def test_open_job_is_polled_and_unchanged_page_answers_304(dock: Any) -> None:
    made, client = job("scan", dock.owner, dock.image.pk), browser(dock.owner)
    where = f"/jobs/{made.pk}/"
    page = client.get(where).content.decode()
    assert 'hx-trigger="every 2s"' in page
    etag = page.partition('data-etag="')[2].partition('"')[0]
    poll = {"HX-Request": "true", "If-None-Match": f'"{etag}"'}
    assert client.get(where, headers=poll).status_code == 304
    JobLogLine.objects.create(job=made, text="<b>pulling</b>")
    answer = client.get(where, headers=poll)
    assert (answer.status_code, b"<html" in answer.content) == (200, False)
    assert b"&lt;b&gt;pulling" in answer.content
    steering.cancel(made.pk, actor=dock.owner)
    ended = client.get(where).content.decode()
    assert 'hx-trigger="every 2s"' not in ended
    assert "Cancelled by owner." in ended
    raw = client.get(f"{where}log.txt")
    assert b"".join(raw.streaming_content).decode().endswith("Z <b>pulling</b>\n")


def test_page_says_whether_the_log_has_earlier_lines(dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifecycle.pages.jobs.views.LOG_LINES", 2)
    made, client = job("scan", dock.owner, dock.image.pk), browser(dock.owner)
    for text in ("first", "second"):
        JobLogLine.objects.create(job=made, text=text)
    assert "The raw log has all lines." not in client.get(f"/jobs/{made.pk}/").content.decode()
    JobLogLine.objects.create(job=made, text="third")
    page = client.get(f"/jobs/{made.pk}/").content.decode()
    assert "The raw log has all lines." in page
    assert (" first" in page, " second" in page, " third" in page) == (False, True, True)


def test_poll_after_session_expired_redirects_to_sign_in(dock: Any) -> None:
    made = job("scan", dock.owner, dock.image.pk)
    poll = {"HX-Request": "true", "HX-Current-URL": f"http://testserver/jobs/{made.pk}/"}
    answer = Client().get(f"/jobs/{made.pk}/", headers=poll)
    assert answer["HX-Redirect"] == f"/accounts/sign-in/?next=%2Fjobs%2F{made.pk}%2F"
    assert answer.content == b""
    assert "HX-Redirect" not in browser(dock.owner).get(f"/jobs/{made.pk}/", headers=poll)


def test_cancelled_job_commits_nothing_and_its_subject_is_updated(dock: Any) -> None:
    dock.image.scanned_at = None
    dock.image.save()
    made = job("scan", dock.owner, dock.image.pk)
    held = services.claim(made.pk, worker="w:1")
    assert browser(dock.owner).post(f"/jobs/{made.pk}/cancel/").status_code == 302
    with pytest.raises(LeaseLost):
        services.lock_held(held)
    dock.image.refresh_from_db()
    assert dock.image.scan_problem == "Cancelled by owner."
    event = AuditEvent.objects.get(action="job.cancelled")
    assert (event.actor_name, event.details["before"]) == ("owner", {"state": "running"})


def test_retry_queues_new_job_for_original_user(dock: Any, admin: User) -> None:
    made = job("lineage", system_user(), 7, state="failed", payload={"x": 1})
    answer = browser(admin).post(f"/jobs/{made.pk}/retry/")
    again = Job.objects.latest("pk")
    assert answer["Location"] == f"/jobs/{again.pk}/"
    assert (again.kind, again.subject_id, again.payload, again.actor, again.state) == (
        "lineage",
        7,
        {"x": 1},
        system_user(),
        "waiting",
    )
    assert steering.retry(made.pk, actor=admin).pk == again.pk  # no second retry while one is waiting
    with pytest.raises(NotFound):
        steering.retry(made.pk, actor=dock.owner)
    with pytest.raises(IllegalTransition, match="Only failed or cancelled jobs"):
        steering.retry(again.pk, actor=admin)


@pytest.mark.parametrize("kind", names())
def test_page_gives_reason_when_cancel_and_retry_are_unavailable(dock: Any, kind: str) -> None:
    client = browser(dock.owner)
    waiting, failed = job(kind, dock.owner, 99), job(kind, dock.owner, 99, state="failed")
    stops = kind in {
        "ingest", "crawl", "scan", "plan", "delete", "verify", "read-sboms", "notify", "sync_feed", "ask_check",
        "quarantine", "retention", "restore", "check-log", "sync_vex", "pentest",
    }  # fmt: skip
    again = kind not in {"promote", "rebuild", "check", "release", "retention", "anchor", "pentest"}
    page = client.get(f"/jobs/{waiting.pk}/").content.decode()
    assert (steering.why_not_cancelled(waiting) is None) is stops
    assert ("aria-disabled" not in page) is stops
    assert client.post(f"/jobs/{waiting.pk}/cancel/").status_code == (302 if stops else 409)
    page = client.get(f"/jobs/{failed.pk}/").content.decode()
    assert ("Retry</button>" in page) is again
    assert client.post(f"/jobs/{failed.pk}/retry/").status_code == (302 if again else 409)


def test_list_costs_same_queries_for_one_and_three_rows(dock: Any, request_: Any) -> None:
    client = browser(dock.owner)

    def rows() -> None:
        job("scan", dock.owner, dock.image.pk)
        job("promote", dock.owner, request_.pk, state="failed")

    def queries() -> int:
        client.get("/jobs/")
        with CaptureQueriesContext(connection) as found:
            assert client.get("/jobs/").status_code == 200
        return len(found)

    rows()
    one = queries()
    rows()
    rows()
    assert queries() == one <= 16
