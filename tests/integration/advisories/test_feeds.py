"""Feeds that admins keep: added, synchronised by jobs from a web server or a folder, on a schedule, and removed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client

from accounts.models import User
from lifecycle.advisories import feeds, handlers, services
from lifecycle.advisories.exploit_sync import ExploitReport, sync_exploits
from lifecycle.advisories.limits import Limits
from lifecycle.advisories.models import Advisory, Coverage, Feed, KnownExploited, Match
from lifecycle.advisories.presets import PRESETS
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock, locks
from lifecycle.core.errors import Conflict, LimitExceeded, Malformed, NotPermitted, StaleVersion
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from tests.factories.advisories import record
from tests.integration.advisories.test_exploit_sync import NAMES, listed
from tests.services import wait_until

pytestmark = pytest.mark.django_db
OPENSSL = "pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12&upstream=openssl"


@pytest.fixture
def admin(django_user_model: type[User]) -> User:
    return django_user_model.objects.create_superuser("boss", password="dock-side-pass")


@pytest.fixture
def browser(admin: User) -> Client:
    client = Client()
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def run(feed: Feed) -> Job:
    """Run the oldest waiting job of the feed, and return it."""
    job = Job.objects.filter(kind="sync_feed", subject_id=feed.pk, state="waiting").earliest("pk")
    running.run(job.pk)
    job.refresh_from_db()
    return job


def kev(mirror: Any, admin: User, **more: Any) -> Feed:
    mirror.files = {"/kev.json": listed(NAMES)}
    values: dict[str, Any] = {"name": "kev", "kind": "kev", "location": f"{mirror.address}/kev.json"}
    return feeds.add_feed(actor=admin, **values | more)


def test_added_feed_is_read_at_once_and_shows_its_result(mirror, admin):
    feed = kev(mirror, admin)
    assert feed.state == "new"
    job = run(feed)
    feed.refresh_from_db()
    assert (job.state, feed.state, feed.problem, feed.result["entries"]) == ("succeeded", "current", "", 200)
    assert KnownExploited.objects.count() == 200
    assert [*AuditEvent.objects.order_by("pk").values_list("action", flat=True)] == ["feed.added", "exploits.synced"]
    assert timedelta(hours=3.5) < feed.due_at - clock.now() < timedelta(hours=4.5)  # with jitter


def test_half_broken_feed_changes_nothing_says_why_and_is_tried_again_soon(mirror, admin):
    feed = kev(mirror, admin, every_hours=24)
    run(feed)
    mirror.files = {"/kev.json": listed(NAMES)[:-9]}
    feeds.sync_now(feed.pk, actor=admin)
    job = run(feed)
    feed.refresh_from_db()
    assert (job.state, feed.state) == ("failed", "failed")
    assert "Not JSON" in feed.problem
    assert KnownExploited.objects.count() == 200
    assert feed.due_at - clock.now() < timedelta(hours=1.2)
    mirror.files = {"/kev.json": listed(NAMES)}
    feeds.sync_now(feed.pk, actor=admin)
    run(feed)
    feed.refresh_from_db()
    assert (feed.state, feed.problem) == ("current", "")


@pytest.fixture
def other_run():
    """Hold the lock of feed `kev` as another process does; call it to end that."""
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('feed:kev', 7009))")

    def end() -> None:
        other.close()
        wait_until(is_free, 10)  # PostgreSQL notices a closed connection a moment later

    yield end
    other.close()


def is_free() -> bool:
    with locks.alone("feed:kev") as is_alone:
        return is_alone


@pytest.mark.parametrize("removes", [False, True])
def test_run_and_removal_wait_for_another_run_of_the_feed(mirror, admin, other_run, removes):
    feed = kev(mirror, admin)
    if removes:
        Job.objects.all().delete()
        feeds.remove_feed(feed.pk, actor=admin)
    job = run(feed)
    assert (job.state, job.attempts, job.last_error) == ("waiting", 0, "Another run of this feed is not finished.")
    assert (Feed.objects.count(), KnownExploited.objects.count()) == (1, 0)
    other_run()
    Job.objects.update(not_before=None)
    assert run(feed).state == "succeeded"
    assert (Feed.objects.count(), KnownExploited.objects.count()) == ((0, 0) if removes else (1, 200))


def test_command_does_not_run_beside_another_run_and_writes_its_location(mirror, admin, other_run, capsys):
    feed = kev(mirror, admin)
    mirror.files["/new.json"] = listed(NAMES)
    command = ("sync_advisories", "--kind", "kev", "--feed", "kev", "--from", f"{mirror.address}/new.json")
    with pytest.raises(SystemExit):
        call_command(*command)
    assert "Another run of feed kev is not finished" in capsys.readouterr().err
    other_run()
    call_command(*command)
    feed.refresh_from_db()
    assert feed.location == f"{mirror.address}/new.json"


@pytest.mark.parametrize("content", [listed(NAMES), b"{"])
def test_run_keeps_the_location_that_an_admin_enters_meanwhile(mirror, admin, monkeypatch, content):
    feed = kev(mirror, admin)
    mirror.files = {"/kev.json": content}

    def changed_meanwhile(*args: Any, **more: Any) -> ExploitReport:
        feeds.change_feed(feed.pk, actor=admin, location="https://example.com/kev.json")
        return sync_exploits(*args, **more)

    monkeypatch.setattr(feeds, "sync_exploits", changed_meanwhile)
    assert run(feed).state == ("failed" if content == b"{" else "succeeded")
    feed.refresh_from_db()
    assert feed.location == "https://example.com/kev.json"


def test_osv_run_keeps_the_location_that_an_admin_enters_meanwhile(admin, export, settings, monkeypatch):
    settings.FEEDS = str(export.root.parent)
    export.put("Debian", record("A-1"))
    feed = feeds.add_feed(actor=admin, name="osv", kind="osv", location="export")
    sync_feed = services.sync_feed

    def changed_meanwhile(*args: Any, **more: Any) -> services.SyncReport:
        feeds.change_feed(feed.pk, actor=admin, location="other")
        return sync_feed(*args, **more)

    monkeypatch.setattr(services, "sync_feed", changed_meanwhile)
    assert run(feed).state == "succeeded"
    feed.refresh_from_db()
    assert feed.location == "other"


def test_private_address_is_refused_with_the_setting_to_change(mirror, admin, settings):
    feed = kev(mirror, admin)
    settings.OUTBOUND_ALLOW = []
    run(feed)
    feed.refresh_from_db()
    assert "add its host to OUTBOUND_ALLOW" in feed.problem


def test_osv_export_over_http_gives_findings_and_its_removal_closes_them(mirror, admin, export, stored):
    stored(OPENSSL)
    export.put("Debian", record("A-1"), record("A-2", name="perl"))
    mirror.files = {f"/osv/Debian/{path.name}": path.read_bytes() for path in (export.root / "Debian").iterdir()}
    mirror.files["/osv/ecosystems.txt"] = b"Debian\nDebian:12\n"
    feed = feeds.add_feed(actor=admin, name="osv", kind="osv", location=f"{mirror.address}/osv")
    job = run(feed)
    feed.refresh_from_db()
    assert (job.state, feed.result["stored"], feed.result["error_count"]) == ("succeeded", 2, 0)
    assert Match.objects.filter(valid_to=None).count() == 1
    feeds.remove_feed(feed.pk, actor=admin)
    assert run(feed).state == "succeeded"
    assert [Feed.objects.count(), Advisory.objects.count(), Match.objects.count(), Coverage.objects.count()] == [0] * 4


def test_folder_that_cannot_be_read_keeps_the_age_of_the_feed(admin, export, settings):
    settings.FEEDS = str(export.root.parent)
    export.put("Debian", record("A-1"))
    export.put("PyPI", record("B-1", ecosystem="PyPI"))
    feed = feeds.add_feed(actor=admin, name="osv", kind="osv", location="export")
    run(feed)
    feed.refresh_from_db()
    before = feed.synced_at
    (export.root / "PyPI" / "modified_id.csv").unlink()
    (export.root / "PyPI" / "all.zip").write_bytes(b"PK\x03\x04 cut")
    feeds.sync_now(feed.pk, actor=admin)
    assert run(feed).state == "succeeded"
    feed.refresh_from_db()
    assert (feed.state, feed.synced_at) == ("failed", before)
    assert feed.problem.startswith("PyPI: all.zip cannot be read")
    assert Advisory.objects.filter(tombstoned_at=None).count() == 2
    assert Match.objects.count() == 0


@pytest.mark.parametrize(
    "location", ["../secret", "/etc", "https://user:pw@example.com/x", "ftp://example.com", "a\x00"]
)
def test_only_folders_below_the_setting_can_be_named(admin, settings, tmp_path, location):
    settings.FEEDS = str(tmp_path)
    with pytest.raises(Malformed):
        feeds.add_feed(actor=admin, name="x", kind="osv", location=location)
    settings.FEEDS = ""
    with pytest.raises(Malformed, match="turned off"):
        feeds.add_feed(actor=admin, name="x", kind="osv", location="x")
    settings.FEEDS = str(tmp_path)
    assert feeds.add_feed(actor=admin, name="x", kind="osv", location="x").pk


def test_limits_of_size_and_time_are_kept(mirror, admin, tmp_path):
    feed = kev(mirror, admin, max_mib=1)
    mirror.files = {"/kev.json": b"x" * 2 * 1024 * 1024}
    run(feed)
    feed.refresh_from_db()
    assert "longer than 1048576 bytes" in feed.problem
    over = Limits(1024, 0.0)
    with pytest.raises(LimitExceeded, match="time limit"):
        over.check_time()
    with pytest.raises(LimitExceeded, match="time limit"):
        over.seconds(10)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Upper"}, {"name": "-x"}, {"name": "x" * 61}, {"kind": "rss"}, {"every_hours": 0},
        {"every_hours": 721}, {"stale_after_hours": 0}, {"max_minutes": 1441}, {"max_mib": 0}, {"location": ""},
    ],
)  # fmt: skip
def test_wrong_values_are_refused_and_right_ones_taken(admin, changes):
    good: dict[str, Any] = {"name": "kev", "kind": "kev", "location": "https://example.com/kev.json"}
    with pytest.raises(Malformed):
        feeds.add_feed(actor=admin, **good | changes)
    assert feeds.add_feed(actor=admin, **good).pk
    with pytest.raises(Conflict):
        feeds.add_feed(actor=admin, **good)


def test_only_admins_keep_feeds(admin, django_user_model):
    other = django_user_model.objects.create_user("other", password="dock-side-pass")
    good: dict[str, Any] = {"name": "kev", "kind": "kev", "location": "https://example.com/kev.json"}
    with pytest.raises(NotPermitted):
        feeds.add_feed(actor=other, **good)
    feed = feeds.add_feed(actor=admin, **good)
    for act in (feeds.change_feed, feeds.remove_feed, feeds.sync_now):
        with pytest.raises(NotPermitted):
            act(feed.pk, actor=other)
        assert act(feed.pk, actor=admin).pk


def test_change_keeps_what_is_not_named_and_refuses_an_old_revision(admin):
    feed = feeds.add_feed(actor=admin, name="kev", kind="kev", location="https://example.com/kev.json", max_mib=7)
    changed = feeds.change_feed(feed.pk, actor=admin, revision=1, every_hours=9)
    assert (changed.every_hours, changed.max_mib, changed.revision) == (9, 7, 2)
    with pytest.raises(StaleVersion):
        feeds.change_feed(feed.pk, actor=admin, revision=1, max_mib=8)
    by_hand = feeds.change_feed(feed.pk, actor=admin, revision=2, by_hand=True)
    assert (by_hand.every_hours, by_hand.due_at) == (None, None)


def test_schedule_queues_what_is_due_once(admin):
    due = feeds.add_feed(actor=admin, name="due", kind="kev", location="https://example.com/kev.json")
    by_hand = feeds.add_feed(
        actor=admin, name="by-hand", kind="kev", location="https://example.com/kev.json", every_hours=None
    )
    Job.objects.all().delete()
    handlers.queue_due_feeds()
    assert not Job.objects.exists()
    Feed.objects.filter(pk=due.pk).update(due_at=clock.now())
    handlers.queue_due_feeds()
    handlers.queue_due_feeds()
    assert [*Job.objects.values_list("subject_id", flat=True)] == [due.pk]
    assert by_hand.due_at is None


def test_age_is_an_alarm():
    feed = Feed(name="x", stale_after_hours=2, tried_at=clock.now(), synced_at=clock.now() - timedelta(hours=3))
    assert feed.state == "stale"
    feed.stale_after_hours = 4
    assert feed.state == "current"
    feed.problem = "x"
    assert feed.state == "failed"


def test_pages_add_change_run_and_remove_a_feed(mirror, browser):
    mirror.files = {"/kev.json": listed(NAMES)}
    assert "No feed yet of" in browser.get("/feeds/").content.decode()
    form = {"preset": "kev", "location": f"{mirror.address}/kev.json", "every_hours": "6", "stale_after_hours": "48",
            "max_minutes": "5", "max_mib": "20"}  # fmt: skip
    assert browser.post("/feeds/new/", form | {"preset": ""}).status_code == 422
    assert browser.post("/feeds/new/", form).status_code == 302
    feed = Feed.objects.get()
    assert (feed.name, feed.kind, feed.every_hours) == ("kev", "kev", 6)
    assert "waiting" in browser.get("/feeds/").content.decode()
    run(feed)
    page = browser.get(f"/feeds/{feed.pk}/").content.decode()
    assert "Current" in page
    assert "200" in page
    assert browser.post(f"/feeds/{feed.pk}/", form | {"every_hours": "", "revision": "1"}).status_code == 302
    assert browser.post(f"/feeds/{feed.pk}/", form | {"revision": "1"}).status_code == 422
    feed.refresh_from_db()
    assert feed.every_hours is None
    assert browser.post(f"/feeds/{feed.pk}/sync/").url.startswith("/jobs/")
    run(feed)
    mirror.files = {"/kev.json": listed(NAMES[:10], day="2026-01-03")}
    browser.post(f"/feeds/{feed.pk}/sync/")
    run(feed)
    assert "accept fewer records" in browser.get(f"/feeds/{feed.pk}/").content.decode()
    browser.post(f"/feeds/{feed.pk}/sync/", {"accept_smaller": "yes"})
    run(feed)
    assert KnownExploited.objects.count() == 10
    assert "Remove feed kev?" in browser.get(f"/feeds/{feed.pk}/remove/").content.decode()
    browser.post(f"/feeds/{feed.pk}/remove/")
    run(feed)
    assert not Feed.objects.exists()


def test_api_adds_a_public_feed_and_says_what_is_missing(browser):
    def post(path: str, body: dict[str, Any]) -> Any:
        return browser.post(f"/api/v1/feeds/{path}", body, "application/json")

    assert post("", {}).status_code == 400
    assert "name, kind, location" in post("", {}).json()["detail"]
    made = post("", {"preset": "osv-rocky-linux"})
    assert (made.status_code, made.json()["state"], made["ETag"]) == (201, "new", '"1"')
    assert made.json()["location"].endswith("/Rocky%20Linux")
    assert post("", {"preset": "osv-rocky-linux"}).status_code == 409
    assert post("", {"preset": "osv-rocky-linux", "name": "rocky-2", "every_hours": None}).json()["every_hours"] is None
    queued = post(f"{made.json()['id']}/sync/", {"accept_smaller": True})
    assert (queued.status_code, queued.json()["kind"]) == (202, "sync_feed")
    assert len(browser.get("/api/v1/feeds/").json()["results"]) == 2


def test_public_feeds_have_what_a_feed_needs(admin):
    for preset in PRESETS.values():
        feed = feeds.add_feed(actor=admin, name=preset.key, kind=preset.kind, location=preset.location)
        assert feed.location.startswith("https://")
