"""Reports: their order, what they change, what is known of the past, and who sees it."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound, NotPermitted
from lifecycle.inventory.models import PodSpec, Reporter, RunningContainer, RunningImage, RuntimeReport
from lifecycle.inventory.queries import report_state, running_images_visible_to
from lifecycle.jobs.models import JobLogLine
from lifecycle.runtime import accepting, applying, services
from lifecycle.runtime.types import ReportGap, ReportOutOfOrder, ReportsWaiting
from tests.clients import Caller
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, document, entry, report, work

pytestmark = pytest.mark.django_db


@pytest.fixture
def north(dock):
    return cluster(dock.team)


@pytest.fixture
def reporter(dock):
    return person("agent", dock.team, "security")


@pytest.fixture
def api(dock):
    return rows.repository("shop/api", dock.team)


def live():
    return {
        (row.namespace, row.workload, row.digest): row.containers for row in RunningImage.objects.filter(until=None)
    }


def send(north, actor, sequence, *entries, **more):
    body = json.dumps(document(sequence, *entries, **more)).encode()
    return accepting.accept(north.slug, body, actor=actor)


def test_a_full_report_begins_and_ends_intervals(north, reporter, api):
    one, two = rows.image("one"), rows.image("two")
    rows.push(api, one, "1.0")
    report(north, reporter, 1, entry(one.digest, where=api), entry(two.digest, key="b/main/app", where=api))
    assert live() == {("shop", "Deployment/api", one.digest): 1, ("shop", "Deployment/api", two.digest): 1}
    first = RunningImage.objects.get(digest=one.digest)
    assert (first.image, first.platform, first.repository) == (one, one, api)

    report(north, reporter, 2, entry(two.digest, where=api))

    assert live() == {("shop", "Deployment/api", two.digest): 1}
    first.refresh_from_db()
    assert first.until is not None
    assert RunningContainer.objects.filter(until=None).count() == 1
    assert RunningContainer.objects.count() == 3


def test_a_report_that_changes_nothing_writes_no_container(north, reporter, api):
    image = rows.image("one")
    entries = [entry(image.digest, key=f"{number}/main/app", where=api) for number in range(20)]
    report(north, reporter, 1, *entries)

    with CaptureQueriesContext(connection) as queries:
        report(north, reporter, 2, *entries)

    tables = ('"lifecycle_runningcontainer"', '"lifecycle_runningimage"')
    writes = tuple(f"{verb} {table}" for verb in ("INSERT INTO", "UPDATE") for table in tables)
    assert [each["sql"] for each in queries if each["sql"].startswith(writes)] == []
    assert RunningContainer.objects.count() == 20


def test_deltas_add_change_and_end_containers(north, reporter, api):
    one, two = rows.image("one"), rows.image("two")
    report(north, reporter, 1, entry(one.digest, key="a", where=api), entry(one.digest, key="b", where=api))

    report(north, reporter, 2, entry(two.digest, key="a", where=api), kind="delta", gone=["b"])

    assert live() == {("shop", "Deployment/api", two.digest): 1}
    ended = RunningContainer.objects.filter(until__isnull=False)
    assert {(row.key, row.digest) for row in ended} == {("a", one.digest), ("b", one.digest)}


@pytest.mark.parametrize("named", ["index", "manifest", "config"])
def test_index_manifest_and_configuration_name_the_same_platform(north, reporter, api, named):
    config = rows.sha("configuration")
    amd, arm = rows.image("amd", config_digest=config), rows.image("arm", architecture="arm64")
    both = rows.index("both", amd, arm)
    rows.push(api, both, "1.0")
    digest = {"index": both.digest, "manifest": amd.digest, "config": config}[named]

    report(north, reporter, 1, entry(digest, where=api))

    row = RunningImage.objects.get()
    assert row.platform == amd
    assert row.image == (both if named == "index" else amd)


def test_an_image_that_arrives_after_its_report_is_matched_in_the_same_interval(north, reporter, api):
    config = rows.sha("late configuration")
    report(north, reporter, 1, entry(config, where=api))
    before = RunningImage.objects.get()
    assert (before.image, before.digest) == (None, config)

    late = rows.image("late", config_digest=config)
    services.match_again()

    row = RunningImage.objects.get()
    assert (row.pk, row.image, row.digest, row.until) == (before.pk, late, late.digest, None)
    assert row.since == before.since


def test_a_container_without_a_digest_is_not_resolved_and_never_guessed(north, reporter, api):
    rows.push(api, rows.image("one"), "1.0")

    report(north, reporter, 1, entry("", where=api))

    row = RunningImage.objects.get()
    assert (row.digest, row.image, row.repository) == ("", None, api)


def test_the_same_report_gets_the_same_answer_and_others_out_of_order_none(north, reporter):
    first = send(north, reporter, 5, report_id="same")
    assert send(north, reporter, 5, report_id="same").pk == first.pk
    with pytest.raises(ReportOutOfOrder):
        send(north, reporter, 5)
    with pytest.raises(ReportGap):
        send(north, reporter, 7, kind="delta")
    assert send(north, reporter, 6, kind="delta")
    assert send(north, reporter, 9, kind="full")
    with pytest.raises(ReportGap):
        send(north, reporter, 1, kind="delta", boot="b-2")
    assert send(north, reporter, 1, boot="b-2")
    with pytest.raises(ReportOutOfOrder):
        send(north, reporter, 10, boot="b-1")
    assert Reporter.objects.get().doubled_at is not None


def test_a_new_boot_ends_only_what_its_own_full_report_lacks(north, reporter, api):
    one, two = rows.image("one"), rows.image("two")
    report(north, reporter, 1, entry(one.digest, where=api))
    report(north, reporter, 1, entry(two.digest, where=api), reporter="host-2")

    report(north, reporter, 1, boot="b-2")

    assert live() == {("shop", "Deployment/api", two.digest): 1}


def test_bad_entries_are_refused_and_named(north, reporter, api):
    one = rows.image("one")
    report(north, reporter, 1, entry(one.digest, where=api), {"key": "x"}, report_id="r/1")

    row = RuntimeReport.objects.get()
    assert (row.containers, row.refused_count, row.refused[0]["pointer"]) == (1, 1, "/containers/1/image")
    assert JobLogLine.objects.filter(job=row.job, text__startswith="/containers/1/image").exists()
    shown = Caller(reporter).get("clusters/north/reports/r/1/").json()
    assert shown["refused"] == row.refused


def test_a_clock_that_is_ahead_is_not_believed(north, reporter):
    ahead = clock.now() + timedelta(hours=1)

    row = send(north, reporter, 1, observed_at=ahead.isoformat())

    assert row.warning == accepting.AHEAD
    assert row.observed_at == row.received_at


def test_reporters_are_fresh_late_and_silent(north, reporter):
    assert report_state(north) == "never"
    report(north, reporter, 1)
    for seconds, state in ((80, "fresh"), (100, "late"), (700, "silent")):
        Reporter.objects.update(seen_at=clock.now() - timedelta(seconds=seconds))
        assert report_state(north) == state


def test_only_who_may_report_does(dock, north):
    with pytest.raises(NotPermitted):
        send(north, person("viewer", dock.team, "viewer"), 1)
    with pytest.raises(NotFound):
        send(north, person("stranger", rows.team("other"), "owner"), 1)
    assert send(north, person("boss", dock.team, "owner"), 1)


def test_a_container_is_seen_through_its_cluster_or_its_repository(dock, north, reporter):
    other = rows.team("other")
    theirs = rows.repository("other/app", other)
    image = rows.image("one")
    rows.push(theirs, image, "1.0")
    mirror = rows.repository("third/mirror", rows.team("third"))
    rows.push(mirror, image, "1.0")
    report(north, reporter, 1, entry(image.digest, where=theirs))

    seen = {
        team.slug: running_images_visible_to(person(f"v-{team.slug}", team, "viewer")).count()
        for team in (dock.team, other, rows.team("third"))
    }

    assert seen == {"shop": 1, "other": 1, "third": 0}


def test_running_says_what_ran_then_and_what_was_known_then_and_now(north, reporter, api, dock):
    image = rows.image("one")
    rows.push(api, image, "1.0")
    openssl = rows.package("openssl", "3.0.11-1")
    rows.carry(image, 0, openssl)
    rows.advisory("CVE-2026-1", "high", openssl)
    began = clock.now() - timedelta(hours=5)
    report(north, reporter, 1, entry(image.digest, where=api, started_at=began.isoformat()))
    rows.advisory("CVE-2026-2", "critical", openssl)
    from lifecycle.advisories.models import Match

    Match.objects.filter(advisory__osv_id="CVE-2026-1").update(valid_from=began - timedelta(days=1))
    report(north, reporter, 2)
    viewer = Caller(person("viewer", dock.team, "viewer"))

    (then,) = viewer.get("running/", at=(began + timedelta(hours=1)).isoformat()).json()["results"]

    assert then["digest"] == image.digest
    assert (then["known_then"]["high"], then["known_then"]["critical"]) == (1, 0)
    assert (then["known_now"]["high"], then["known_now"]["critical"]) == (1, 1)
    assert viewer.get("running/").json()["results"] == []
    assert viewer.get("running/", at=(began - timedelta(hours=1)).isoformat()).json()["results"] == []
    (ran,) = viewer.get(f"images/{image.digest}/runtime/").json()["results"]
    assert (ran["workload_name"], ran["repository"]) == ("api", "shop/api")
    assert viewer.get("running/", at="yesterday").status_code == 400


def test_reports_come_by_http_also_as_gzip_and_as_output_of_other_tools(north, reporter, api):
    image = rows.image("one")
    headers = Caller(reporter).headers

    def post(content, query="", **more):
        return Client().post(
            f"/api/v1/clusters/north/reports/{query}", content, content_type="application/json", headers=headers | more
        )

    body = json.dumps(
        document(1, entry(image.digest, where=api), report_id="h-1", specs={"ab" * 32: {"hostPID": True}})
    ).encode()
    accepted = post(gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert accepted.status_code == 202, accepted.json()
    assert accepted.json() == post(body).json()
    work()
    assert PodSpec.objects.get().spec == {"hostPID": True}
    pods = {"items": [{"metadata": {"uid": "u", "name": "p"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}]}
    listed = post(json.dumps(pods).encode(), "?format=kubernetes", **{"Idempotency-Key": "k-1"})
    assert (listed.status_code, listed.json()["report_id"]) == (202, "k-1")
    assert post(json.dumps(pods).encode(), "?format=kubernetes").status_code == 202
    work()
    assert RunningContainer.objects.filter(until=None).count() == 2
    assert post(b"{", "").status_code == 400
    assert post(b"{}", "?format=nomad").status_code == 400
    assert post(b"x" * 50, **{"Content-Encoding": "gzip"}).status_code == 400
    assert post(gzip.compress(b" " * (33 * 1024 * 1024)), **{"Content-Encoding": "gzip"}).status_code == 413


def test_old_rows_are_deleted(north, reporter, api):
    image = rows.image("one")
    report(north, reporter, 1, entry(image.digest, where=api), specs={"ab" * 32: {}})
    report(north, reporter, 2)

    services.tidy(clock.now() + timedelta(days=1))
    assert (RuntimeReport.objects.count(), RunningContainer.objects.count(), PodSpec.objects.count()) == (2, 1, 1)
    services.tidy(clock.now() + timedelta(days=91))
    assert (RuntimeReport.objects.count(), RunningContainer.objects.count(), PodSpec.objects.count()) == (0, 0, 0)
    assert RunningImage.objects.count() == 1


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"namespaces": [{"name": "shop", "network_policies": 2**40}]}, "/namespaces/0/network_policies"),
        ({"namespaces": [{"name": "shop", "network_policies": -1}]}, "/namespaces/0/network_policies"),
        ({"specs": {"\0": {}}}, "/specs/\N{REPLACEMENT CHARACTER}"),
        ({"specs": {"\ud800": {}}}, None),  # no JSON at all
        ({"gone": ["\0"]}, "/gone/0"),
    ],
)
def test_what_cannot_be_stored_stops_no_report(north, reporter, api, more, pointer):
    one = rows.image("one")
    document_ = document(1, entry(one.digest, where=api), **more)
    if pointer is None:
        with pytest.raises(Malformed):
            accepting.accept(north.slug, json.dumps(document_).encode(), actor=reporter)
        return
    accepting.accept(north.slug, json.dumps(document_).encode(), actor=reporter)
    work()
    assert [each["pointer"] for each in RuntimeReport.objects.get().refused] == [pointer]
    assert live() == {("shop", "Deployment/api", one.digest): 1}


def test_a_name_that_no_index_holds_is_refused_alone(north, reporter, api):
    one = rows.image("one")
    long_ = "".join(chr(0x4E00 + number) for number in range(1000))  # three bytes each
    report(north, reporter, 1, entry(one.digest, where=api), entry("", key="b/volume/x", image=long_))
    assert [each["pointer"] for each in RuntimeReport.objects.get().refused] == ["/containers/1/image"]
    assert live() == {("shop", "Deployment/api", one.digest): 1}


def test_a_report_that_postgresql_refuses_is_left_out_and_a_full_one_asked_for(north, reporter, api, monkeypatch):
    one = rows.image("one")
    report(north, reporter, 1, entry(one.digest, where=api))
    with monkeypatch.context() as patched:

        def refuse(*_):
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1099511627776::integer")

        patched.setattr(applying, "_store_specs", refuse)
        report(north, reporter, 2, kind="delta", gone=["api/main/app"])
    assert live() == {("shop", "Deployment/api", one.digest): 1}  # nothing of it was applied
    assert RuntimeReport.objects.get(sequence=2).refused_count == 1
    with pytest.raises(ReportGap):
        send(north, reporter, 3, kind="delta")
    report(north, reporter, 3)
    assert live() == {}


def test_a_time_of_long_ago_ends_nothing_before_it_began(north, reporter, api):
    one = rows.image("one")
    report(north, reporter, 1, entry(one.digest, where=api))
    began = RunningContainer.objects.get().since
    report(north, reporter, 0, boot="b-2", observed_at="2000-01-01T00:00:00Z")
    row, image = RunningContainer.objects.get(), RunningImage.objects.get()
    assert (row.since, image.since) == (began, began)
    assert (row.until, image.until) >= (began, began)
    assert "an hour ago" in RuntimeReport.objects.get(boot="b-2").warning


def test_reporters_and_what_waits_are_bounded(north, reporter, monkeypatch):
    monkeypatch.setattr(accepting, "REPORTERS_MAX", 1)
    send(north, reporter, 1)
    with pytest.raises(ReportsWaiting, match="at most 1 reporters"):
        send(north, reporter, 1, reporter="host-2")
    monkeypatch.setattr(accepting, "WAITING_MAX_BYTES", 10)
    with pytest.raises(ReportsWaiting, match="Too much"):
        send(north, reporter, 2)
    work()
    monkeypatch.setattr(accepting, "WAITING_MAX_BYTES", 10_000)
    send(north, reporter, 2)


def test_unknown_images_do_not_crowd_out_those_that_arrived(north, reporter, api, monkeypatch):
    monkeypatch.setattr(services, "_MATCHED_MAX", 1)
    digest = rows.sha("late")
    strangers = [entry(rows.sha(f"stranger {number}"), key=f"s{number}/main/app") for number in range(3)]
    report(north, reporter, 1, *strangers, entry(digest, key="z/main/app", where=api))
    assert services.match_again() == 0
    image = rows.image("late")
    assert image.digest == digest
    assert services.match_again() == 1
    assert RunningContainer.objects.get(key="z/main/app").image == image


def test_a_reporter_that_is_gone_for_long_ends(north, reporter, api):
    one = rows.image("one")
    report(north, reporter, 1, entry(one.digest, where=api))
    Reporter.objects.update(seen_at=clock.now() - timedelta(days=59))
    services.tidy(clock.now())
    assert live() == {("shop", "Deployment/api", one.digest): 1}
    Reporter.objects.update(seen_at=clock.now() - timedelta(days=61))
    services.tidy(clock.now())
    assert (live(), Reporter.objects.get().state) == ({}, "ended")
    report(north, reporter, 2, entry(one.digest, where=api))
    assert (len(live()), Reporter.objects.get().state) == (1, "fresh")
