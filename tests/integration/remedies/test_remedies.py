"""What to do about open findings: each finding belongs to one remedy, and a reader sees only their own images."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import transaction

from accounts.queries import system_user
from lifecycle.advisories.models import Advisory, Feed, KnownExploited, Match
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.lineage.models import Derivation
from lifecycle.policies.due_dates import save_due_dates
from lifecycle.registry.models import Image, TagEvent
from lifecycle.remedies import handlers, services
from lifecycle.remedies.models import Remedy, RemedyPass
from lifecycle.remedies.queries import Choice, groups_for, unknown_images
from lifecycle.sbom.models import PackageVersion
from tests.clients import Caller, browser
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet(db):
    """Return the harbour, with a new base/debian in which openssl and expat are fixed."""
    made = dock.harbour()
    openssl = dock.package("libssl3", "3.0.14-1~deb12u1", source="openssl")
    expat = dock.package("libexpat1", "2.5.0-1+deb12u1", source="expat")
    perl, tar = dock.package("perl-base", "5.36.0-7", source="perl"), dock.package("tar", "1.34+dfsg-1.2")
    dock.carry(made["new"], 0, openssl, expat, perl, tar)
    dock.count_risk(made["new"])
    find_all()
    return made


def find_all():
    ids, _ = services.to_find(clock.now())
    with transaction.atomic():
        return services.find(ids)


def closes(name, kind):
    rows = Remedy.objects.filter(repository__name=name, kind=kind)
    return {(row.base.name if row.base else "", row.package_name, row.fixed_version): named(row) for row in rows}


def named(row):
    return sorted({item[0] for item in row.closes})


def test_each_finding_belongs_to_one_remedy(fleet):
    fixed = ["CVE-2023-5678", "CVE-2024-45490", "CVE-2024-5535"]
    assert closes("base/python", "rebuild") == {("base/debian", "", ""): fixed}
    assert closes("shop/static", "rebuild") == {("base/debian", "", ""): fixed}
    # Through base/python, which is current: the rebuild begins at the base that has the fix.
    assert closes("shop/api", "rebuild") == {("base/debian", "", ""): fixed}
    assert closes("shop/api", "upgrade") == {
        ("", "urllib3", "1.26.17"): ["GHSA-v845-jxx5-vc9f"],
        ("", "requests", "2.31.0"): ["GHSA-j8r2-6x86-q33q"],
    }
    assert closes("shop/api", "wait") == {
        ("base/debian", "perl-base", ""): ["CVE-2011-4116"],
        ("base/debian", "tar", ""): ["TEMP-0290435-0B57B5"],
    }
    assert closes("shop/api", "none") == {}
    # A base has no base: what lacks a fix is its own.
    assert closes("base/debian", "none") == {
        ("", "perl-base", ""): ["CVE-2011-4116"],
        ("", "tar", ""): ["TEMP-0290435-0B57B5"],
    }
    every = Remedy.objects.filter(repository__name="shop/api")
    counted = sorted(name for row in every for name in named(row))
    assert counted == sorted({*counted})  # none twice


def test_a_worker_without_layers_of_its_base_has_no_rebuild(fleet):
    """Its base is only declared: nobody knows which layers are from it."""
    assert closes("shop/worker", "rebuild") == {}
    assert ("", "urllib3", "1.26.17") in closes("shop/worker", "upgrade")


def test_groups_are_counted_over_images_and_ordered(fleet):
    found = groups_for(fleet["reader"], Choice())
    first = found.groups[0]
    assert (first.kind, first.base.name, first.base_tag) == ("rebuild", "base/debian", "bookworm")
    assert (first.images, first.findings, first.severities["critical"]) == (3, 9, 3)
    assert first.new_base.digest == fleet["new"].digest
    kinds = [group.kind for group in found.groups]
    fixable = [kind in {"rebuild", "upgrade"} for kind in kinds]
    assert fixable == sorted(fixable, reverse=True)
    assert found.total == len(found.groups)
    assert found.findings == sum(group.findings for group in found.groups)
    only = groups_for(fleet["reader"], Choice(severity="critical"))
    assert [group.severities["critical"] > 0 for group in only.groups] == [True] * only.total
    assert 0 < only.total < found.total


def test_what_is_exploited_comes_first(fleet):
    feed = Feed.objects.create(name="kev", kind=Feed.Kind.KEV, location="a file", synced_at=clock.now())
    KnownExploited.objects.create(feed=feed, cve="CVE-2011-4116", added_on="2026-11-01")
    assert not Remedy.objects.filter(exploited__gt=0).exists()
    Advisory.objects.filter(osv_id="CVE-2011-4116").update(cves=["CVE-2011-4116"])
    find_all()
    groups = groups_for(fleet["reader"], Choice()).groups
    assert [group.exploited > 0 for group in groups[:2]] == [True, True]  # the base itself, and what waits for it
    assert {group.package_name for group in groups[:2]} == {"perl-base"}
    exploited = groups_for(fleet["reader"], Choice(exploited=True)).groups
    assert [group.key for group in exploited] == [group.key for group in groups[: len(exploited)]]
    assert not any(group.exploited for group in groups[len(exploited) :])


def test_unknown_is_no_remedy(fleet):
    """Without a scan of the new base nobody knows what a rebuild fixes; an image without a scan has no remedies."""
    Image.objects.filter(pk=fleet["new"].pk).update(scanned_at=None)
    find_all()
    assert not Remedy.objects.filter(kind="rebuild").exists()
    assert ("base/debian", "libssl3", "") in closes("shop/static", "wait")
    Image.objects.filter(pk=fleet["api"].pk).update(scanned_at=None)
    find_all()
    assert not Remedy.objects.filter(repository__name="shop/api").exists()


def test_images_of_which_nobody_knows_are_counted(fleet):
    reader = fleet["reader"]
    before = unknown_images(reader)
    Image.objects.filter(pk=fleet["api"].pk).update(scanned_at=None)
    Image.objects.filter(pk=fleet["worker"].pk).update(unjudged_count=3)
    both = dock.index("both", dock.image("shop/both", layers=2))
    dock.push(dock.repository("shop/both"), both, "1.0")
    find_all()
    assert unknown_images(reader) == before + 3
    outsider = dock.user("outsider", "viewer", of=dock.team("bank"))
    assert unknown_images(outsider) == 0
    assert unknown_images(reader, team="base") == 0
    assert Caller(reader).get("fixes/").json()["unknown_images"] == before + 3
    page = " ".join(browser(reader).get("/fixes/").content.decode().split())
    assert f"{before + 3} images with something unknown" in page


def test_rows_stay_while_packages_are_matched(fleet, monkeypatch):
    before = set(Remedy.objects.filter(repository__name="shop/api").values_list("pk", flat=True))
    monkeypatch.setattr(services, "matching_images", lambda ids: {fleet["api"].pk} & set(ids))
    assert find_all() is False
    assert set(Remedy.objects.filter(repository__name="shop/api").values_list("pk", flat=True)) == before
    services.remember(clock.now(), services.exploits_read_at(), is_complete=False)
    assert services.is_due(clock.now())  # looked at again


def test_images_without_findings_have_none(fleet):
    fixed = dock.image("shop/static 2", layers=2, under=fleet["new"])
    dock.carry(fixed, 1, dock.package("openssl", "3.5.0-1"))
    dock.push(dock.repository("shop/static"), fixed, "1.0")
    find_all()
    assert not Remedy.objects.filter(repository__name="shop/static").exists()


def test_another_team_sees_neither_images_nor_the_hidden_base(fleet):
    outsider = dock.user("outsider", "viewer", of=dock.team("bank"))
    assert groups_for(outsider, Choice()).groups == []
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    groups = groups_for(viewer, Choice()).groups
    rebuild = next(group for group in groups if group.kind == "rebuild")
    assert (rebuild.base, rebuild.base_tag, rebuild.new_base, rebuild.has_hidden_base) == (None, "", None, True)
    assert rebuild.images == 2  # of shop; not base/python
    assert rebuild.teams == ("shop",)
    page = browser(viewer).get("/fixes/").content.decode()
    assert "a base you may not see" in page
    assert "base/debian" not in page
    assert "base/debian" not in browser(viewer).get(f"/fixes/{rebuild.key}/").content.decode()
    assert "base/debian" not in json.dumps(Caller(viewer).get(f"fixes/{rebuild.key}/").json())
    assert browser(outsider).get(f"/fixes/{rebuild.key}/").status_code == 404
    assert Caller(outsider).get(f"fixes/{rebuild.key}/").status_code == 404


def test_production_is_said_and_filtered(fleet):
    place = create_environment(dock.team("shop"), actor=system_user(), slug="live", name="Live", prefix="live")
    place.is_production = True
    place.save(update_fields=["is_production"])
    Slot.objects.create(repository=dock.repository("shop/api"), environment=place, image=fleet["api"], tag="1.0")
    reader = fleet["reader"]
    found = groups_for(reader, Choice(environment=place))
    rebuild = next(group for group in found.groups if group.kind == "rebuild")
    assert rebuild.images == 1
    assert [(at.slug, count) for at, count in rebuild.environments] == [("live", 1)]
    answer = Caller(reader).get("fixes/", environment="shop/live", kind="rebuild").json()
    assert [row["images"] for row in answer["results"]] == [1]
    assert answer["results"][0]["environments"] == [{"environment": "shop/live", "is_production": True, "images": 1}]
    page = browser(reader).get("/fixes/", {"environment": "shop/live"}).content.decode()
    assert "shop/live" in page


def test_earliest_due_date_of_a_remedy_follows_where_its_repository_runs(fleet):
    Match.objects.update(valid_from=clock.now() - timedelta(days=10))
    PackageVersion.objects.update(first_seen_at=clock.now() - timedelta(days=10))
    find_all()
    reader = fleet["reader"]
    row = Remedy.objects.get(repository__name="shop/api", kind="rebuild")
    assert (row.due_at - clock.now()).days == 4  # critical with a fix: 15 days
    assert Remedy.objects.get(repository__name="shop/api", package_name="perl-base").due_at is None  # no fix
    assert groups_for(reader, Choice(overdue=True)).groups == []
    place = create_environment(dock.team("shop"), actor=system_user(), slug="live", name="Live", prefix="live")
    Environment.objects.filter(pk=place.pk).update(is_production=True)
    services.remember(clock.now(), services.exploits_read_at(), is_complete=True)
    age_everything()
    Slot.objects.create(
        repository=dock.repository("shop/api"), environment=place, image=fleet["old"], tag="1.0", since=clock.now()
    )
    assert services.to_find(clock.now()) == ([dock.repository("shop/api").pk], False)
    find_all()
    groups = groups_for(reader, Choice(overdue=True)).groups  # 7 days in production
    assert {group.kind for group in groups} == {"rebuild", "upgrade"}  # the older image has no base by layers
    group = next(group for group in groups if group.kind == "rebuild")
    assert (clock.now() - group.due_at).days == 3
    answer = Caller(reader).get("fixes/", overdue="true").json()["results"]
    assert {fix["due_at"][:10] for fix in answer} == {group.due_at.date().isoformat()}
    page = browser(reader).get("/fixes/", {"overdue": "1"}).content.decode()
    assert f"since {group.due_at:%Y-%m-%d}" in page
    admin = dock.user("admin")
    type(admin).objects.filter(pk=admin.pk).update(is_superuser=True)
    admin.refresh_from_db()
    save_due_dates([], actor=admin, seen=0)
    assert services.to_find(clock.now())[1]  # another table: all of them
    find_all()
    assert not Remedy.objects.filter(due_at__isnull=False).exists()


@pytest.mark.parametrize(
    "query", [{"kind": "x"}, {"severity": "none"}, {"team": "nobody"}, {"environment": "shop/x"}, {"exploited": "2"}]
)
def test_a_filter_that_does_not_exist_is_refused(fleet, query):
    assert Caller(fleet["reader"]).get("fixes/", **query).status_code == 400
    assert browser(fleet["reader"]).get("/fixes/", query).status_code == 400


def test_page_plans_the_rebuild(fleet):
    page = browser(fleet["reader"]).get("/fixes/").content.decode()
    base = dock.repository("base/debian")
    assert f'name="base" value="{base.pk}"' in page
    assert 'name="reference" value="bookworm"' in page
    key = groups_for(fleet["reader"], Choice(kind="rebuild")).groups[0].key
    shown = browser(fleet["reader"]).get(f"/fixes/{key}/").content.decode()
    assert "CVE-2024-5535" in shown
    assert "shop/static" in shown


def age_everything():
    long_ago = clock.now() - timedelta(hours=1)
    Image.objects.update(risk_at=long_ago)
    TagEvent.objects.update(at=long_ago)
    Derivation.objects.update(created_at=long_ago)


def test_only_changes_are_looked_at(fleet):
    services.remember(clock.now(), services.exploits_read_at(), is_complete=True)
    age_everything()
    assert services.to_find(clock.now()) == ([], False)
    handlers.look_again()
    assert not Job.objects.filter(kind="remedies").exists()

    # It changed before the last look, but was not committed yet when that read.
    Image.objects.filter(pk=fleet["new"].pk).update(risk_at=clock.now() - timedelta(minutes=1))
    handlers.look_again()
    handlers.look_again()
    assert Job.objects.filter(kind="remedies").count() == 1
    ids, is_all = services.to_find(clock.now())
    names = {dock.repository(name).pk for name in ("base/debian", "base/python", "shop/static")}
    assert not is_all
    assert names <= set(ids)  # the base, and what stands on its older image
    assert dock.repository("shop/checkout").pk not in ids


def test_a_list_of_exploits_that_came_or_went_changes_the_order_of_all(fleet):
    services.remember(clock.now(), services.exploits_read_at(), is_complete=True)
    age_everything()
    assert not services.is_due(clock.now())
    feed = Feed.objects.create(name="kev", kind=Feed.Kind.KEV, location="a file", synced_at=clock.now())
    assert services.is_due(clock.now())
    assert services.to_find(clock.now())[1]
    services.remember(clock.now(), services.exploits_read_at(), is_complete=True)
    assert not services.is_due(clock.now())
    feed.delete()
    assert services.is_due(clock.now())
    assert services.to_find(clock.now())[1]


def test_job_finds_all_and_remembers_when(fleet):
    Remedy.objects.all().delete()
    handlers.look_again()
    running.run(Job.objects.get(kind="remedies").pk)
    assert Job.objects.get(kind="remedies").state == Job.State.SUCCEEDED
    assert Remedy.objects.filter(kind="rebuild").count() == 3
    assert RemedyPass.objects.count() == 1
    age_everything()
    handlers.look_again()
    assert Job.objects.filter(kind="remedies").count() == 1  # nothing changed since


def test_rows_of_an_older_image_go_where_the_newer_one_cannot_be_scanned(fleet):
    unscanned = dock.image("shop/api 2", layers=5)
    dock.push(dock.repository("shop/api"), unscanned, "1.0")
    find_all()
    assert not Remedy.objects.filter(repository__name="shop/api").exists()


def test_command_lists_and_shows(fleet, run):
    code, out, _ = run(fleet["reader"], "fix", "list", "--kind", "rebuild")
    assert code == 0
    assert "rebuild on base/debian:bookworm" in out
    key = groups_for(fleet["reader"], Choice(kind="rebuild")).groups[0].key
    code, out, _ = run(fleet["reader"], "fix", "show", key)
    assert code == 0
    assert "shop/static" in out
    assert "CVE-2024-5535" in out
    assert run(fleet["reader"], "fix", "show", "0" * 16)[0] == 1
