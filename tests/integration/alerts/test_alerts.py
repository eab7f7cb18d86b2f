"""Alerts: the difference only, once, to the team that owns the layer at fault, and what people do about it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from accounts.models import Team
from lifecycle import events
from lifecycle.advisories.models import Advisory, Feed, KnownExploited, Match
from lifecycle.alerts import passes, services
from lifecycle.alerts.models import Alert, AlertPass, ChangedPackages, SeenFinding
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition, Malformed
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.notices.models import InboxItem, Notice
from lifecycle.registry.models import Image, Repository, Tag
from lifecycle.sbom.models import PackageVersion
from tests.clients import Caller, browser
from tests.factories import dock
from tests.factories.alerting import look, package, raised, told

pytestmark = pytest.mark.django_db


def test_what_was_there_at_first_is_no_difference(fleet):
    assert SeenFinding.objects.count() == 7
    assert look(*PackageVersion.objects.all()) == []
    assert not Alert.objects.exists()
    assert AlertPass.objects.count() == 1


def test_new_advisory_is_told_once_to_the_team_that_owns_the_layer(fleet):
    perl = package("perl-base")
    dock.advisory("CVE-2026-1", "high", perl, fixed="5.36.0-9", summary="perl")
    look(perl)
    look(perl)
    # One alert for base/debian: neither base/python nor the images of shop have the layer of their own.
    assert told() == [("finding.new", "CVE-2026-1", "base", "open", 1)]
    alert = Alert.objects.get()
    assert alert.severity == "high"
    assert alert.evidence["packages"] == [
        {"package": "deb perl-base 5.36.0-7", "why": "perl 5.36.0-7 < 5.36.0-9", "fixed_version": "5.36.0-9"}
    ]
    assert alert.evidence["waiting"] == 4  # base/python, shop/api, shop/static and shop/worker
    notice = Notice.objects.get()
    assert (notice.topic, notice.team.slug, notice.link) == ("finding.new", "base", f"/alerts/{alert.pk}/")
    assert "CVE-2026-1" in notice.subject
    assert {item.person.username for item in InboxItem.objects.filter(notice=notice)} == {"shop-dev", "only-base"}


def run(slug, name, image, owner, *, containers=1, workload="api"):
    """Let an image of a repository run in a cluster of a team."""
    from lifecycle.clusters.models import Cluster
    from lifecycle.inventory.models import RunningImage

    cluster, _ = Cluster.objects.get_or_create(slug=slug, defaults={"team": owner, "created_by": dock.user("maker")})
    RunningImage.objects.create(
        cluster=cluster, namespace="prod", workload_kind="Deployment", workload_name=workload, reference=name,
        digest=image.digest, image=image, platform=image, repository=Repository.objects.get(name=name),
        containers=containers, since=clock.now(),
    )  # fmt: skip


def test_new_advisory_on_what_runs_is_one_alert_with_its_blast_radius(fleet):
    """Also when only images built on the base run: the team of the base can mend them all."""
    perl, urllib3 = package("perl-base"), package("urllib3")
    shop = dock.team("shop")
    for number, name in enumerate(("shop/api", "shop/worker")):
        image = Tag.objects.filter(repository__name=name, image__kind="manifest").first().image
        run(f"c-{number}", name, image, shop, containers=number + 1)
        run("c-0", name, image, shop, workload=f"other-{number}")
    dock.advisory("CVE-2026-1", "high", perl, fixed="5.36.0-9")
    look(perl)
    assert told() == [("finding.running", "CVE-2026-1", "base", "open", 1)]
    assert Alert.objects.get().evidence["blast_radius"] == {
        "clusters": 2, "namespaces": 2, "workloads": 4, "containers": 5, "teams": 1, "images": 2,
    }  # fmt: skip
    assert "runs in 4 workloads of 2 clusters" in Notice.objects.get().text
    dock.advisory("CVE-2026-2", "high", urllib3)
    look(urllib3)
    assert told()[1][:3] == ("finding.running", "CVE-2026-2", "shop")


def test_what_runs_replaces_the_alert_about_the_same_finding(fleet):
    perl = package("perl-base")
    dock.advisory("CVE-2026-1", "high", perl)
    look(perl)
    assert [row[0] for row in told()] == ["finding.new"]
    for tag in Tag.objects.filter(repository__name="base/debian", image__kind="manifest"):
        run("c-0", "base/debian", tag.image, dock.team("base"), workload=tag.name)
    other = package("tar")
    Match.objects.create(advisory=Advisory.objects.get(osv_id="CVE-2026-1"), package=other, severity="high")
    look(other)
    assert [(row[0], row[3]) for row in told()] == [("finding.new", "resolved"), ("finding.running", "open")]


def test_images_of_own_layers_are_told_to_their_team(fleet):
    urllib3 = package("urllib3")
    dock.advisory("CVE-2026-2", "critical", urllib3, fixed="2.6.0")
    look(urllib3)
    assert told() == [("finding.new", "CVE-2026-2", "shop", "open", 1)]
    answer = Caller(fleet["shop_dev"]).get(f"alerts/{Alert.objects.get().pk}/").json()
    assert answer["repositories"] == [{"repository": "shop/api", "images": 1}]
    assert [row["repository"] for row in answer["affected"]] == ["shop/api"]
    assert [row["repository"] for row in answer["waiting_on_base"]] == ["shop/worker"]
    assert answer["images"] == 1


def test_many_advisories_at_once_are_one_message_for_each_team(fleet):
    perl, urllib3 = package("perl-base"), package("urllib3")
    for number in range(30):
        dock.advisory(f"CVE-2026-{number:04}", "high" if number % 2 else "low", perl)
        dock.advisory(f"PYSEC-2026-{number:04}", "medium", urllib3)
    look(perl, urllib3)
    assert Alert.objects.count() == 60
    assert sorted(Notice.objects.values_list("team__slug", "topic")) == [
        ("base", "finding.new"), ("shop", "finding.new"),
    ]  # fmt: skip
    notice = Notice.objects.get(team__slug="base")
    assert notice.subject == "30 alerts, new finding, in team base: 15 high, 15 low"
    assert "And 10 more." in notice.text
    assert notice.link == "/alerts/?team=base&kind=finding.new"


def test_first_load_of_a_feed_and_first_findings_of_a_new_image_are_not_told(fleet):
    perl = package("perl-base")
    dock.advisory("CVE-2026-3", "high", perl)
    Feed.objects.update(loaded_at=None)
    assert look(perl) == []
    Feed.objects.update(loaded_at=clock.now())
    assert look(perl) == []  # it is remembered now

    fresh = dock.package("fresh", "1.0")
    PackageVersion.objects.filter(pk=fresh.pk).update(is_unmatched=True)
    made = dock.image("shop/new", layers=2)
    dock.carry(made, 1, fresh)
    dock.push(dock.repository("shop/new"), made, "1.0")
    assert look(fresh, first=True) == []
    assert ChangedPackages.objects.get().is_first  # until it is matched
    dock.advisory("CVE-2026-4", "critical", fresh)
    PackageVersion.objects.filter(pk=fresh.pk).update(is_unmatched=False)
    assert look(fresh) == []
    assert not ChangedPackages.objects.exists()
    dock.advisory("CVE-2026-5", "critical", fresh)
    assert [row.vulnerability for row in look(fresh)] == ["CVE-2026-5"]


def test_worsened_and_newly_exploited(fleet):
    perl = package("perl-base")
    Advisory.objects.filter(osv_id="CVE-2011-4116").update(severity="critical")
    Match.objects.filter(advisory__osv_id="CVE-2011-4116").update(severity="critical")
    look(perl)
    assert told() == [("finding.worsened", "CVE-2011-4116", "base", "open", 1)]
    assert Alert.objects.get().evidence["severity_before"] == "low"

    first = Feed.objects.create(name="kev", kind=Feed.Kind.KEV, location="x", synced_at=clock.now())
    KnownExploited.objects.create(feed=first, cve="CVE-2011-4116", added_on="2026-11-01")
    assert passes.is_due(clock.now())
    assert look() == []  # the first list: nobody knows what is new in it
    KnownExploited.objects.create(feed=first, cve="CVE-2024-5535", added_on="2026-11-02")
    first.synced_at = clock.now()
    first.save()
    look()
    assert told()[1:] == [("finding.exploited", "CVE-2024-5535", "base", "open", 1)]
    assert "known exploited" in Notice.objects.latest("pk").text


def test_alert_opens_again_when_the_severity_rises_further(fleet):
    perl, person = package("perl-base"), fleet["base_dev"]
    for severity, state in (("medium", "acknowledged"), ("high", "snoozed"), ("critical", "open")):
        Match.objects.filter(advisory__osv_id="CVE-2011-4116").update(severity=severity)
        look(perl)
        alert = Alert.objects.get()
        assert (alert.kind, alert.severity, alert.state, alert.snoozed_until) == (
            "finding.worsened", severity, "open", None,
        )  # fmt: skip
        assert f"({severity})" in Notice.objects.latest("pk").subject
        if state == "acknowledged":
            services.acknowledge(alert.pk, actor=person)
        elif state == "snoozed":
            services.snooze(alert.pk, actor=person, until=clock.now() + timedelta(days=9))
    assert Notice.objects.count() == 3


def test_alert_closes_when_no_image_in_use_has_it_and_the_next_team_is_told(fleet):
    perl = package("perl-base")
    dock.advisory("CVE-2026-6", "high", perl, fixed="5.36.0-9")
    look(perl)
    alert = Alert.objects.get()
    dock.push(dock.repository("base/debian"), fleet["new"], "old")  # the fixed base
    look(after=timedelta(minutes=2))
    alert.refresh_from_db()  # base/python, of the same team, has it still
    assert (alert.state, alert.images) == ("open", 1)
    assert alert.repository_ids == [dock.repository("base/python").pk]
    # shop/static is built on base/debian itself: that is fixed.
    handed = Alert.objects.get(team__slug="shop")
    assert (handed.kind, handed.images, handed.evidence["is_base_fixed"]) == ("finding.new", 1, True)

    dock.push(dock.repository("base/python"), fleet["new"], "1.0")
    look(after=timedelta(minutes=4))
    alert.refresh_from_db()
    assert (alert.state, alert.resolved_by, alert.reason) == (
        "resolved", None, "No image of the team in use has it any more.",
    )  # fmt: skip
    fixed = Alert.objects.get(kind="finding.fixed")
    assert (fixed.former, fixed.team.slug, fixed.state) == (alert, "base", "resolved")
    assert Notice.objects.get(topic="finding.fixed").subject == ("CVE-2026-6 (high): finding fixed in team base")
    handed.refresh_from_db()
    assert (handed.state, handed.images) == ("open", 2)  # shop/api too; shop/worker waits for it


def test_next_team_is_told_also_when_the_owner_of_the_base_resolved_the_alert(fleet):
    perl = package("perl-base")
    dock.advisory("CVE-2026-22", "high", perl, fixed="5.36.0-9")
    look(perl)
    alert = Alert.objects.get()
    services.resolve(alert.pk, actor=fleet["base_dev"], reason="The next release has it.")
    assert look(after=timedelta(minutes=1)) == []
    for name, tag in (("base/debian", "old"), ("base/python", "1.0")):
        dock.push(dock.repository(name), fleet["new"], tag)
    handed = look(after=timedelta(minutes=2))
    assert [(row.team.slug, row.evidence["is_base_fixed"]) for row in handed] == [("shop", True)]
    alert.refresh_from_db()
    assert (alert.state, alert.reason, alert.is_handed_over) == ("resolved", "The next release has it.", True)
    assert look(after=timedelta(hours=4)) == []


def test_withdrawn_advisory_is_told_as_fixed_but_unknown_is_not(fleet):
    perl, expat = package("perl-base"), package("libexpat1")
    rows = Match.objects.filter(advisory__osv_id__in=("CVE-2011-4116", "CVE-2024-45490"))
    assert rows.count() == 2
    Match.objects.filter(package=perl).update(valid_to=clock.now())
    Match.objects.filter(package=expat).update(
        state="unknown", reason="an advisory's affected range cannot be read", fixed_version=""
    )
    look(perl, expat)
    assert told() == [("finding.fixed", "CVE-2011-4116", "base", "resolved", 1)]


def test_renamed_finding_is_the_same(fleet):
    tar = package("tar")
    dock.advisory("TEMP-2", "high", tar)
    look(tar)
    alert = Alert.objects.get()
    Advisory.objects.filter(osv_id="TEMP-2").update(vulnerability="CVE-2026-7")
    assert look(tar) == []
    alert.refresh_from_db()
    assert (alert.vulnerability, alert.state) == ("CVE-2026-7", "open")
    assert Alert.objects.count() == 1


def test_alert_of_a_name_that_is_merged_into_another_closes_quietly(fleet):
    tar = package("tar")
    dock.advisory("TEMP-3", "high", tar)
    dock.advisory("CVE-2026-30", "high", tar)
    look(tar)
    Advisory.objects.filter(osv_id="TEMP-3").update(vulnerability="CVE-2026-30")
    Advisory.objects.filter(osv_id="CVE-2026-30").update(aliases=["TEMP-3"])
    assert look(tar) == []
    rows = Alert.objects.order_by("vulnerability").values_list("vulnerability", "state", "reason")
    assert list(rows) == [
        ("CVE-2026-30", "open", ""),
        ("TEMP-3", "resolved", "It is now known as CVE-2026-30, which has an alert."),
    ]  # no finding.fixed


def test_acts_of_people(fleet):
    alert, person = raised(fleet), fleet["shop_dev"]
    services.acknowledge(alert.pk, actor=person, reason="On it.")
    with pytest.raises(IllegalTransition):
        services.acknowledge(alert.pk, actor=person)
    with pytest.raises(Malformed):
        services.snooze(alert.pk, actor=person, until=clock.now() + timedelta(days=91))
    services.snooze(alert.pk, actor=person, until=clock.now() + timedelta(days=7))
    assert look(after=timedelta(days=6)) == []
    alert.refresh_from_db()
    assert alert.state == "snoozed"
    look(after=timedelta(days=7, minutes=1))
    alert.refresh_from_db()
    assert (alert.state, alert.snoozed_until) == ("open", None)
    assert Notice.objects.filter(subject__startswith="Still open: CVE-2026-8").count() == 1
    with pytest.raises(Malformed):
        services.resolve(alert.pk, actor=person, reason=" ")
    services.resolve(alert.pk, actor=person, reason="Not reachable.")
    actions = AuditEvent.objects.filter(action__startswith="alert.").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["alert.acknowledged", "alert.snoozed", "alert.resolved"]
    assert look(after=timedelta(hours=1)) == []
    again = look(after=timedelta(hours=25))
    assert [(row.vulnerability, row.former_id) for row in again] == [("CVE-2026-8", alert.pk)]
    assert look(after=timedelta(hours=26)) == []


def test_resolved_alert_is_raised_again_as_the_finding_is_now(fleet):
    alert, person, urllib3 = raised(fleet), fleet["shop_dev"], package("urllib3")
    services.resolve(alert.pk, actor=person, reason="Not reachable.")
    dock.carry(Image.objects.get(digest=dock.sha("shop/static")), 1, urllib3)
    Match.objects.filter(advisory__osv_id="CVE-2026-8").update(severity="critical", fixed_version="2.0")
    SeenFinding.objects.filter(vulnerability="CVE-2026-8").update(severity="critical")
    again = look(after=timedelta(hours=25))
    assert [(row.severity, row.images, row.former_id) for row in again] == [("critical", 2, alert.pk)]
    assert again[0].repository_ids == sorted(dock.repository(f"shop/{name}").pk for name in ("api", "static"))
    assert again[0].evidence["packages"][0]["fixed_version"] == "2.0"

    # A live alert with the same fingerprint knows better than one that was resolved a day ago.
    Alert.objects.filter(pk=alert.pk).update(rechecked_at=None)
    assert look(after=timedelta(hours=26)) == []
    assert Alert.objects.get(pk=again[0].pk).count == 1


def test_snoozed_alerts_wake_under_a_lock(fleet):
    alert = raised(fleet)
    services.snooze(alert.pk, actor=fleet["shop_dev"], until=clock.now() + timedelta(days=1))
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        assert passes._woken(clock.now() + timedelta(days=2)) == [alert]
    select, update = (row["sql"] for row in queries if "lifecycle_alert" in row["sql"])
    assert "FOR UPDATE" in select
    assert "'snoozed'" in update.partition("WHERE")[2]


def test_unanswered_alert_is_told_a_second_time_only(fleet):
    raised(fleet)
    for hours in (23, 25, 60):
        look(after=timedelta(hours=hours))
    assert Notice.objects.filter(subject__startswith="Still open").count() == 1


def test_list_filters_and_page(fleet):
    alert = raised(fleet)
    caller = Caller(fleet["shop_dev"])
    for query in ({"state": "live"}, {"kind": "finding.new"}, {"severity": "high"}, {"vulnerability": "CVE-2026-8"}):
        assert [row["id"] for row in caller.get("alerts/", **query).json()["results"]] == [alert.pk]
    assert caller.get("alerts/", state="resolved").json()["results"] == []
    for query in ({"state": "x"}, {"kind": "x"}, {"severity": "x"}, {"team": "nobody"}):
        assert caller.get("alerts/", **query).status_code == 400
        assert browser(fleet["shop_dev"]).get("/alerts/", query).status_code == 400
    client = browser(fleet["shop_dev"])
    assert "CVE-2026-8" in client.get("/alerts/").content.decode()
    page = client.get(f"/alerts/{alert.pk}/").content.decode()
    assert escape("urllib3: all versions") in page
    assert "shop/worker" in page
    assert client.post(f"/alerts/{alert.pk}/resolve/", {"reason": ""}).status_code == 422
    assert client.post(f"/alerts/{alert.pk}/snooze/", {"days": "3"}).status_code == 302
    assert "Snoozed" in client.get(f"/alerts/{alert.pk}/").content.decode()


def test_job_remembers_first_and_then_waits_for_the_end_of_a_synchronisation(fleet):
    from lifecycle.alerts import handlers

    AlertPass.objects.all().delete()
    handlers.look_again()
    job = Job.objects.get(kind="alerts")
    running.run(job.pk)
    assert AlertPass.objects.count() == 1
    perl = package("perl-base")
    dock.advisory("CVE-2026-10", "high", perl)
    with transaction.atomic():
        events.publish(events.MatchesChanged(frozenset({perl.pk})))
    now = clock.now()
    assert not passes.is_due(now)
    assert passes.is_due(now + timedelta(seconds=5))
    sync = Job.objects.create(
        kind="sync_feed", subject_id=1, actor=fleet["reader"], state="running", lease_until=now + timedelta(hours=1)
    )
    assert not passes.is_due(now + timedelta(seconds=5))
    assert passes.is_due(now + timedelta(minutes=16))
    sync.delete()
    ChangedPackages.objects.update(at=now - timedelta(seconds=5))
    handlers.look_again()
    running.run(Job.objects.filter(kind="alerts").latest("pk").pk)
    assert [row[:3] for row in told()] == [("finding.new", "CVE-2026-10", "base")]


def test_moved_tags_are_found_by_an_index(fleet):
    with transaction.atomic(), connection.cursor() as cursor, CaptureQueriesContext(connection) as queries:
        passes._moved_since(clock.now())
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {queries.captured_queries[0]['sql']}")
        assert "tagevent_by_time" in str(cursor.fetchall())


def test_untagged_images_are_not_in_use(fleet):
    Image.objects.get(digest=dock.sha("shop/api")).tags.update(image=None)
    Image.objects.get(digest=dock.sha("shop/worker")).tags.update(image=None)
    urllib3 = package("urllib3")
    dock.advisory("CVE-2026-11", "high", urllib3)
    assert look(urllib3) == []
    assert Team.objects.filter(slug="shop").exists()


def test_command_line(fleet, run):
    alert, person = raised(fleet), fleet["shop_dev"]
    name = f"A-{alert.pk}"
    assert name in run(person, "alert", "list", "--team", "shop")[1]
    shown = run(person, "alert", "show", name)[1]
    assert "urllib3: all versions" in shown
    assert "shop/worker" in shown
    assert run(person, "alert", "acknowledge", name)[0] == 0
    assert run(person, "alert", "snooze", name, "--days", "91")[0] == 1
    assert json.loads(run(person, "alert", "snooze", name, "--days", "3", "--json")[1])["state"] == "snoozed"
    assert run(person, "alert", "resolve", name, "--reason", "Not reachable.")[0] == 0
    assert name not in run(person, "alert", "list")[1]
    assert run(person, "alert", "show", "x")[0] == 2
