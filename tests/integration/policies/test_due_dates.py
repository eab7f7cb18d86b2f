"""Due dates: the table that an admin edits, the what-if, and the dates of findings on page, API and exports."""

from __future__ import annotations

import csv
import io
import itertools
from datetime import timedelta

import pytest

from accounts.models import User
from lifecycle.advisories.models import Advisory, AffectedInterval, ExploitScore, Feed, KnownExploited, Match
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.evidence.due import count_overdue, exposure_of, overdue_pairs
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.policies.due_dates import due_dates
from lifecycle.policy import rules_of_due_dates
from lifecycle.policy.catalogue import KINDS
from lifecycle.policy.due_dates import DEFAULT, DueFact, DueRow, Exposure, due_at
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from tests.clients import Caller, browser
from tests.factories import dock

pytestmark = pytest.mark.django_db
EXPOSED = {"": Exposure(), "production": Exposure(production=True), "internet": Exposure(internet=True)}


@pytest.fixture
def admin(db):
    return User.objects.create_user("admin", is_superuser=True, password="x")


def days_ago(days):
    return clock.now() - timedelta(days=days)


def age(days):
    """Say that all findings were first seen some days ago."""
    PackageVersion.objects.update(first_seen_at=days_ago(400))
    Match.objects.update(valid_from=days_ago(days))


def test_sql_says_the_same_as_the_function(db):
    """Every kind of finding, by each row that can apply to it, once by SQL and once by the function."""
    kev = Feed.objects.create(name="kev", kind=Feed.Kind.KEV, location="x")
    epss = Feed.objects.create(name="epss", kind=Feed.Kind.EPSS, location="x")
    facts = {}
    kinds = itertools.product(("critical", "high", "low", "unknown"), ("", "2"), (None, 100, 2), (None, 0.05, 0.5))
    for number, (severity, fixed, listed, score) in enumerate(kinds):
        item, name = dock.package(f"p{number}", "1"), f"CVE-2026-{number:04}"
        made = dock.advisory(name, severity, item, fixed=fixed)
        Advisory.objects.filter(pk=made.pk).update(cves=[name])
        seen = days_ago(number * 4 + 0.5)
        Match.objects.filter(package=item).update(valid_from=seen)
        PackageVersion.objects.filter(pk=item.pk).update(first_seen_at=days_ago(1000))
        on = days_ago(listed).date() if listed is not None else None
        if on is not None:
            KnownExploited.objects.create(feed=kev, cve=name, added_on=on)
        if score is not None:
            ExploitScore.objects.create(feed=epss, cve=name, score=score, percentile=score)
        facts[item.pk] = (severity, seen, fixed, on, score)
    rows = (*DEFAULT, DueRow(200), DueRow(20, fix="no"), DueRow(0, "low", exposure="internet"))
    now = clock.now()
    found = {}
    for pair in overdue_pairs(rows, now):
        found.setdefault(pair.package_id, {})[pair.exposure] = pair.due_at
    late = 0
    for (pk, values), exposure in itertools.product(facts.items(), EXPOSED):
        wanted = due_at(rows, DueFact(*values, EXPOSED[exposure]))
        got = min((at for name, at in found.get(pk, {}).items() if name in {"", exposure}), default=None)
        if wanted is not None and wanted < now:
            late += 1
            assert got == wanted, (values, exposure)
        else:
            assert got is None, (values, exposure)
    assert 30 < late < len(facts) * 3


def test_dates_of_an_image_on_page_api_and_exports(db):
    made = dock.harbour()
    age(40)
    for name, package in (("CVE-2024-5535", "libssl3"), ("CVE-2011-4116", "perl-base")):  # what the API compares
        item = PackageVersion.objects.get(name=package)
        match = Match.objects.get(advisory__osv_id=name)
        AffectedInterval.objects.create(
            advisory=match.advisory, ecosystem=item.ecosystem, release=item.release, name=item.match_name,
            scheme=item.scheme, exact_version=item.match_version, fixed_version=match.fixed_version,
        )  # fmt: skip
    api = made["api"]
    caller = Caller(made["reader"])
    rows = {row["vulnerability"]: row for row in caller.get(f"images/{api.digest}/findings/").json()["results"]}
    critical, low = rows["CVE-2024-5535"], rows["CVE-2011-4116"]
    due = clock.now() - timedelta(days=25)
    assert critical["due_at"][:10] == due.date().isoformat()
    assert critical["first_seen_at"][:10] == days_ago(40).date().isoformat()
    assert low["due_at"] is None  # no fix
    text = b"".join(browser(made["reader"]).get(f"/api/v1/images/{api.digest}/exports/findings.csv/").streaming_content)
    listed = {row["vulnerability"]: row["due_at"][:10] for row in csv.DictReader(io.StringIO(text.decode()))}
    assert listed["CVE-2024-5535"] == due.date().isoformat()
    assert listed["CVE-2011-4116"] == ""
    page = browser(made["reader"]).get(f"/t/shop/r/shop/api/i/{api.digest}/?tab=findings").content.decode()
    assert f"since {due:%Y-%m-%d}" in page
    assert f"due {clock.now() + timedelta(days=50):%Y-%m-%d}" in page  # medium


def test_exposure_is_that_of_the_environments_that_hold_the_image(db):
    quay = dock.quay()
    old = quay["api"]  # in production
    assert exposure_of(old) == Exposure(production=True)
    Environment.objects.filter(slug="production").update(is_internet_facing=True)
    assert exposure_of(old) == Exposure(production=True, internet=True)
    assert exposure_of(quay["new"]) == Exposure()
    index = dock.index("both", quay["new"])
    Slot.objects.filter(environment__slug="production").update(image=index)
    assert exposure_of(quay["new"]) == exposure_of(index) == Exposure(production=True, internet=True)
    assert exposure_of(old) == Exposure()
    changed = Caller(quay["reader"]).patch(
        f"environments/{quay['places']['dev'].pk}/", {"is_internet_facing": True}
    )  # fmt: skip
    assert changed.json()["is_internet_facing"] is True


def test_rule_gets_dates_by_where_the_image_runs_and_is_asked_for(db):
    made = dock.harbour()
    age(10)
    shop = dock.team("shop")
    places = {
        slug: create_environment(shop, actor=made["reader"], slug=slug, name=slug, prefix=slug)
        for slug in ("dev", "live")
    }
    places["live"].is_production = True
    repository, needs = dock.repository("shop/api"), KINDS["due_date"].needs
    values = KINDS["due_date"].clean({"accept_without_lists": True})

    def outcome(environment):
        facts = facts_of_images([(made["api"], repository, environment)], needs)[0]
        assert facts.due_lists == {"kev", "epss"}
        return rules_of_due_dates.not_overdue(facts, values).summary

    assert outcome(None) == outcome(places["dev"]) == "No finding from low on is past its due date."
    # Critical with a fix: 7 days in production.
    late = "1 finding past the due date, by up to 3 days: CVE-2024-5535 in libssl3."
    assert outcome(places["live"]) == late
    places["dev"].save()
    places["live"].save()
    Slot.objects.create(repository=repository, environment=places["live"], image=made["api"], tag="1.0")
    assert outcome(places["dev"]) == outcome(None) == late


def test_what_if_counts_each_vulnerability_of_an_image_in_use_once(admin):
    dock.harbour()
    age(20)
    now = clock.now()
    # CVE-2024-5535 (critical, 15 days) in base/python, shop/api, shop/worker and shop/static.
    found = count_overdue(DEFAULT, now)
    assert (found.findings, found.images, found.severities["critical"]) == (4, 4, 4)
    client = Caller(admin)
    draft = {"rows": [{"days": 10, "severity": "medium"}, {"days": 10, "severity": "unknown"}]}
    answer = client.post("due-dates/what-if/", draft).json()
    assert answer["now"]["findings"] == 4
    # Two of urllib3 and requests in two images; one of openssl and one of tar in four.
    assert answer["then"] == {
        "findings": 12, "images": 4, "severities": {"critical": 0, "high": 0, "medium": 8, "low": 0, "unknown": 4},
    }  # fmt: skip
    assert client.post("due-dates/what-if/", {"rows": []}).json()["then"]["findings"] == 0
    assert due_dates().revision == 0
    page = browser(admin).post(
        "/due-dates/",
        {"try": "1", "revision": "0", "note": "", "severity": "medium", "exploited": "", "min_epss_percent": "",
         "fix": "", "exposure": "", "days": "10"},
    )  # fmt: skip
    words = " ".join(page.content.decode().split())
    assert "<b>8 findings</b> in 4 images in use would be overdue; now 4 findings" in words


def test_admin_saves_the_table_and_a_stale_one_is_refused(admin):
    reader = dock.user("reader", "owner", of=dock.team("shop"))
    client = Caller(admin)
    shipped = client.get("due-dates/")
    assert shipped.headers["ETag"] == '"due-dates.0"'
    assert len(shipped.json()["rows"]) == len(DEFAULT)
    body = {"rows": [{"days": 5, "severity": "critical", "exposure": "internet"}], "note": "Audit finding 7"}
    assert client.put("due-dates/", body).status_code == 428
    tag = '"due-dates.0"'
    assert Caller(reader).put("due-dates/", body, If_Match=tag).status_code == 403
    assert Caller(reader).post("due-dates/what-if/", {"rows": []}).status_code == 403
    saved = client.put("due-dates/", body, If_Match=tag)
    assert (saved.status_code, saved.headers["ETag"]) == (200, '"due-dates.1"')
    assert client.put("due-dates/", body, If_Match=tag).status_code == 412
    wrong = client.put("due-dates/", {"rows": [{"days": "x"}]}, If_Match='"due-dates.1"')
    assert (wrong.status_code, "Row 1: days" in wrong.json()["detail"]) == (400, True)
    assert Caller(reader).get("due-dates/").json()["changed_by"] == "admin"
    event = AuditEvent.objects.get(action="due_dates.saved")
    assert event.details == {"revision": 1, "rows": ["critical, facing the internet: 5 days"]}

    row = {"severity": ["critical", "high", ""], "exploited": ["", "yes", ""], "min_epss_percent": ["", "20", ""],
           "fix": ["", "yes", ""], "exposure": ["internet", "", ""], "days": ["4", "9", ""]}  # fmt: skip
    page = browser(admin)
    assert page.post("/due-dates/", {"revision": "0", **row}).status_code == 422  # stale
    assert page.post("/due-dates/", {"revision": "1", **row, "days": ["4", "soon", ""]}).status_code == 422
    assert page.post("/due-dates/", {"revision": "1", **row}).status_code == 302
    assert due_dates().rows == (
        DueRow(4, "critical", exposure="internet"),
        DueRow(9, "high", exploited=True, min_epss_percent=20, fix="yes"),
    )
    assert browser(reader).post("/due-dates/", {"revision": "2", **row}).status_code == 403
    shown = browser(reader).get("/due-dates/").content.decode()
    assert "Only admins can change due dates" in shown
    assert "<select" not in shown.partition("Table</h2>")[2]


def test_untagged_image_is_not_counted(db):
    made = dock.harbour()
    age(20)
    Image.objects.get(pk=made["api"].pk).tags.update(image=None)
    assert count_overdue(DEFAULT, clock.now()).images == 3
