"""Daily facts: what is open, what was fixed and how long it took, and who sees which trend."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import pytest
from django.db import transaction
from freezegun import freeze_time

from accounts.models import Role, User
from lifecycle.advisories.models import Advisory, Match
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image, Repository
from lifecycle.remedies import services as remedies
from lifecycle.remedies.models import RemedyPass
from lifecycle.sbom.models import PackageVersion
from lifecycle.trends import handlers, services
from lifecycle.trends.models import TrendDay, TrendFact, TrendState
from lifecycle.trends.queries import median_of, series_for
from tests.clients import Caller, browser
from tests.factories import dock

pytestmark = pytest.mark.django_db
DAY = date(2026, 12, 1)


@pytest.fixture
def harbour(db):
    made = dock.harbour()
    seen = clock.now().replace(2026, 11, 21, 12, 0)
    Match.objects.update(valid_from=seen)
    PackageVersion.objects.update(first_seen_at=seen)
    made["viewer"] = dock.user("viewer", "viewer", of=dock.team("shop"))
    return made


def note(day, *, look=True):
    with freeze_time(f"{day}T12:00:00Z"), transaction.atomic():
        ids = list(Repository.objects.values_list("pk", flat=True))
        if look:
            remedies.find(ids)
        services.note(ids, day)
        services.finish(day)


def fact(name, day):
    return TrendFact.objects.get(repository__name=name, day=day)


def test_counts_are_those_of_the_fixes(harbour):
    note(DAY)
    row = fact("shop/api", DAY)
    api = Image.objects.get(pk=harbour["api"].pk)
    counts = (row.critical, row.high, row.medium, row.low, row.unknown)
    assert counts == (api.critical_count, api.high_count, api.medium_count, api.low_count, api.unknown_count)
    team = TrendFact.objects.get(team__slug="shop", day=DAY)
    parts = TrendFact.objects.filter(repository__team__slug="shop", day=DAY)
    assert team.critical == sum(part.critical for part in parts) > row.critical
    assert team.unscanned == sum(part.unscanned for part in parts) == 1  # the current image of shop/jobs


def test_what_is_fixed_is_counted_once_with_its_days(harbour):
    note(DAY)
    Match.objects.filter(package__name="urllib3").update(valid_to=clock.now())
    note(DAY + timedelta(days=2))
    assert fact("shop/api", DAY + timedelta(days=2)).fixed == {"12": 1}  # first seen on 21 November
    assert TrendFact.objects.get(team__slug="shop", day=DAY + timedelta(days=2)).fixed == {"12": 2}  # worker too
    note(DAY + timedelta(days=2))  # again
    assert fact("shop/api", DAY + timedelta(days=2)).fixed == {"12": 1}
    note(DAY + timedelta(days=3))
    assert TrendFact.objects.get(team__slug="shop", day=DAY + timedelta(days=3)).fixed == {}
    assert not TrendFact.objects.filter(repository__name="shop/api", day=DAY + timedelta(days=3)).exists()
    series = series_for(harbour["viewer"], DAY + timedelta(days=3), repository="shop/api")
    assert (series.fixed, series.median_days, len(series.points)) == (1, 12, 4)
    assert [point.counts["medium"] for point in series.points] == [3, 3, 2, 2]
    assert [point.fixed for point in series.points] == [0, 0, 1, 0]


def test_what_is_withdrawn_deleted_or_unknown_is_not_fixed(harbour):
    note(DAY)
    Match.objects.filter(package__name="urllib3").update(valid_to=clock.now())
    Advisory.objects.filter(osv_id="GHSA-v845-jxx5-vc9f").update(withdrawn_at=clock.now())
    Image.objects.filter(digest=dock.sha("shop/static")).update(scanned_at=None)
    dock.repository("shop/worker").tags.update(image=None)
    note(DAY + timedelta(days=1))
    day = DAY + timedelta(days=1)
    assert fact("shop/api", day).fixed == {}  # withdrawn
    static = fact("shop/static", day)
    assert (static.unscanned, static.critical, static.fixed) == (1, 0, {})
    assert fact("shop/worker", day).fixed == {}  # no image any more
    Image.objects.filter(digest=dock.sha("shop/static")).update(scanned_at=clock.now())
    Match.objects.filter(advisory__osv_id="CVE-2024-5535").update(valid_to=clock.now())
    note(DAY + timedelta(days=2))
    static = fact("shop/static", DAY + timedelta(days=2))
    assert (static.unscanned, static.critical, static.fixed) == (0, 0, {"12": 1})  # known again, so it is fixed


def test_what_a_decision_closed_is_not_fixed(harbour, settings):
    settings.VEX_SECOND_PERSON = False
    from lifecycle.evidence.risk import refresh_risk
    from tests.factories.vexing import decision

    note(DAY)
    decision(dock.repository("shop/api"), by=harbour["reader"], vulnerability="CVE-2024-5535")
    refresh_risk([harbour["api"].pk])
    note(DAY + timedelta(days=1))
    row = fact("shop/api", DAY + timedelta(days=1))
    assert (row.critical, row.fixed) == (0, {})


def test_overdue_follows_the_due_dates(harbour):
    note(DAY)
    assert fact("shop/api", DAY).overdue == 0
    note(DAY + timedelta(days=10))
    assert fact("shop/api", DAY + timedelta(days=10)).overdue > 0


def test_facts_are_kept_for_400_days_and_a_quiet_repository_has_one_a_month(harbour):
    note(DAY)
    for days in (1, 29, 30, 401):
        note(DAY + timedelta(days=days), look=days == 1)
    days = TrendFact.objects.filter(repository__name="base/debian").values_list("day", flat=True)
    kept = {(day - DAY).days for day in days}
    assert 30 in kept or 401 in kept
    assert not TrendFact.objects.filter(day__lt=DAY + timedelta(days=1)).exists()
    assert not TrendDay.objects.filter(day__lt=DAY + timedelta(days=1)).exists()
    assert TrendState.objects.filter(repository__name="base/debian").exists()


def test_a_reader_sees_whole_teams_and_single_repositories(harbour):
    note(DAY)
    viewer = harbour["viewer"]
    shop = TrendFact.objects.get(team__slug="shop", day=DAY)
    assert series_for(viewer, DAY).points[-1].counts["critical"] == shop.critical  # not of team base
    both = series_for(harbour["reader"], DAY).points[-1].counts["critical"]
    assert both == shop.critical + TrendFact.objects.get(team__slug="base", day=DAY).critical
    part = User.objects.create(username="part")
    RoleGrant.objects.create(
        user=part, role=Role.objects.get(slug="viewer"), team=dock.team("shop"), repository_pattern="shop/api"
    )
    assert series_for(part, DAY).points == []
    assert len(series_for(part, DAY, repository="shop/api").points) == 1
    api = Caller(part)
    with freeze_time(f"{DAY}T13:00:00Z"):
        assert api.get("trends/", repository="shop/static").status_code == 404
        assert api.get("trends/", team="shop").status_code == 404
        assert api.get("trends/", repository="shop/api").json()["points"][0]["critical"] == 1
        assert Caller(viewer).get("trends/", team="shop").json()["points"][0]["critical"] == shop.critical
        assert Caller(viewer).get("trends/", team="base").status_code == 404
        assert api.get("trends/", days="31").status_code == 400
        page = browser(viewer).get("/trends/", {"team": "shop"}).content.decode()
        assert f'<td class="num">{shop.critical}</td>' in " ".join(page.split())
        assert browser(viewer).get("/trends/", {"team": "base"}).status_code == 400
        assert browser(part).get("/trends/", {"repository": "shop/static"}).status_code == 404
        assert "No facts yet." in browser(part).get("/trends/").content.decode()


def test_the_job_runs_once_a_day_after_the_look_for_fixes(harbour):
    handlers.note_today()
    assert not Job.objects.filter(kind="trends").exists()
    RemedyPass.objects.create(looked_at=clock.now() - timedelta(days=1))
    handlers.note_today()
    assert not Job.objects.filter(kind="trends").exists()
    RemedyPass.objects.create(looked_at=clock.now())
    handlers.note_today()
    job = Job.objects.get(kind="trends")
    running.run(job.pk)
    job.refresh_from_db()
    assert job.state == "succeeded"
    assert TrendDay.objects.get().day == clock.now().date()
    handlers.note_today()
    assert Job.objects.filter(kind="trends").count() == 1


@pytest.mark.parametrize(
    ("took", "median"), [({}, None), ({3: 1}, 3), ({1: 1, 4: 1}, 2.5), ({1: 5, 9: 2}, 1), ({0: 2, 8: 2}, 4)]
)
def test_median(took, median):
    assert median_of(Counter(took)) == median
