"""Private advisories: a second person approves them, then they match, change, and are withdrawn as any other."""

from __future__ import annotations

import json

import pytest

from accounts.models import User
from lifecycle.advisories import feeds, private
from lifecycle.advisories.coverage import refresh_coverage
from lifecycle.advisories.models import Advisory, Coverage, Feed, Match, PrivateAdvisory
from lifecycle.alerts import passes
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.quarantine.models import Quarantine
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import version_key
from tests.clients import Caller, browser
from tests.factories import dock

pytestmark = pytest.mark.django_db


def record(name="ACME-2026-1", *, fixed="2.6.0", **more):
    return {
        "id": name,
        "summary": "It trusts any certificate",
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "urllib3"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
            }
        ],
    } | more


def proposed(author, **more):
    return private.propose(json.dumps(record(**more)).encode(), actor=author, reason="Found by us.")


@pytest.fixture
def dockyard(db):
    made = dock.harbour()
    for package in PackageVersion.objects.all():
        package.version_key = version_key(package.scheme, package.match_version)
        package.save(update_fields=["version_key"])
    admins = [User.objects.create(username=name, is_superuser=True) for name in ("root", "second-root")]
    made["security"] = dock.user("duty", "security", of=dock.team("shop"))
    return made | {"admin": admins[0], "other": admins[1]}


def affected(name="ACME-2026-1"):
    return set(Match.objects.filter(advisory__osv_id=name, valid_to=None).values_list("package__name", "fixed_version"))


def count_of(image):
    row = Image.objects.get(pk=image.pk)
    return row.critical_count + row.high_count + row.medium_count + row.low_count + row.unknown_count


def test_it_matches_after_a_second_person_approved_it(dockyard):
    before = count_of(dockyard["api"])
    row = proposed(dockyard["security"])
    assert (row.state, affected(), Advisory.objects.filter(osv_id="ACME-2026-1").exists()) == (
        "requested",
        set(),
        False,
    )
    private.approve(row.pk, actor=dockyard["admin"], reason="Reproduced.")
    assert affected() == {("urllib3", "2.6.0")}
    assert count_of(dockyard["api"]) == before + 1
    found = Caller(dockyard["reader"]).get("advisories/ACME-2026-1/").json()
    assert (found["severity"], [item["feed"] for item in found["records"]]) == ("high", ["private advisories"])
    page = browser(dockyard["reader"]).get("/advisories/ACME-2026-1/").content.decode()
    assert "osv.dev" not in page  # the name of a private one is told to nobody
    assert "osv.dev" in browser(dockyard["reader"]).get("/advisories/CVE-2011-4116/").content.decode()
    refresh_coverage()
    assert not Coverage.objects.filter(ecosystem="PyPI").exists()  # the other packages stay unknown
    events = AuditEvent.objects.filter(subject_kind="privateadvisory").order_by("pk")
    assert list(events.values_list("action", flat=True)) == ["advisory.proposed", "advisory.approved"]


def test_nobody_approves_alone(dockyard):
    row = proposed(dockyard["admin"])
    with pytest.raises(NotPermitted, match="Someone else"):
        private.approve(row.pk, actor=dockyard["admin"])
    with pytest.raises(NotFound):
        private.approve(row.pk, actor=dockyard["security"])  # who does not see it
    own = proposed(dockyard["security"], name="ACME-2026-2")
    assert private.why_not_review(dockyard["reader"], own) is not None
    dockyard["other"].secret_seen_by = dockyard["admin"]
    dockyard["other"].save()
    with pytest.raises(NotPermitted, match="has seen the password"):
        private.approve(row.pk, actor=dockyard["other"])
    assert PrivateAdvisory.objects.filter(state="live").count() == 0
    dockyard["other"].secret_seen_by = None
    dockyard["other"].save()
    assert private.approve(row.pk, actor=dockyard["other"]).state == "live"


def test_who_proposes_needs_a_right_in_a_whole_team(dockyard):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    with pytest.raises(NotPermitted, match=r"waiver\.approve"):
        proposed(viewer)
    row = proposed(dockyard["security"])
    assert list(private.private_advisories_visible_to(viewer)) == []
    assert Caller(viewer).get(f"private-advisories/{row.pk}/").status_code == 404
    private.approve(row.pk, actor=dockyard["admin"])
    assert list(private.private_advisories_visible_to(viewer)) == [row]


def test_a_change_replaces_and_a_withdrawal_closes(dockyard):
    private.approve(proposed(dockyard["security"]).pk, actor=dockyard["admin"])
    change = proposed(dockyard["security"], fixed="1.26.4")  # the image has 1.26.5
    with pytest.raises(Conflict, match="waits for approval"):
        proposed(dockyard["admin"])
    assert affected() == {("urllib3", "2.6.0")}
    private.approve(change.pk, actor=dockyard["admin"])
    assert affected() == set()
    private.approve(proposed(dockyard["security"], fixed="3.0").pk, actor=dockyard["admin"])
    assert affected() == {("urllib3", "3.0")}
    before = count_of(dockyard["api"])
    gone = proposed(dockyard["security"], fixed="3.0", withdrawn="2026-11-30T00:00:00Z")
    assert gone.is_withdrawal
    assert affected() == {("urllib3", "3.0")}  # one person closes nothing
    private.approve(gone.pk, actor=dockyard["admin"])
    assert affected() == set()
    assert count_of(dockyard["api"]) == before - 1
    states = PrivateAdvisory.objects.order_by("pk").values_list("state", flat=True)
    assert list(states) == ["replaced", "replaced", "replaced", "live"]


def test_rejected_and_cancelled_ones_stay_without_effect(dockyard):
    row = proposed(dockyard["security"])
    with pytest.raises(Malformed, match="reason"):
        private.reject(row.pk, actor=dockyard["admin"], reason=" ")
    private.reject(row.pk, actor=dockyard["admin"], reason="The range is wrong.")
    with pytest.raises(IllegalTransition):
        private.approve(row.pk, actor=dockyard["admin"])
    again = proposed(dockyard["security"])
    with pytest.raises(NotPermitted, match="Only duty"):
        private.cancel(again.pk, actor=dockyard["admin"])
    private.cancel(again.pk, actor=dockyard["security"])
    assert affected() == set()
    assert proposed(dockyard["security"]).state == "requested"


def test_a_malicious_package_holds_its_images(dockyard):
    private.approve(proposed(dockyard["security"], name="MAL-ACME-1").pk, actor=dockyard["admin"])
    job = Job.objects.get(kind="hold_malware")
    running.run(job.pk)
    held = set(Quarantine.objects.values_list("image", flat=True))
    assert dockyard["api"].pk in held
    assert "MAL-ACME-1" in Quarantine.objects.get(image=dockyard["api"]).reason


def test_the_team_is_alerted(dockyard):
    passes.remember_all(clock.now(), lambda function: function())
    private.approve(proposed(dockyard["security"]).pk, actor=dockyard["admin"])
    alerts = passes.look_now(clock.now())
    assert {(alert.kind, alert.vulnerability, alert.team.slug) for alert in alerts} == {
        ("finding.new", "ACME-2026-1", "shop")
    }


def test_documents_that_are_refused(dockyard):
    author = dockyard["security"]
    wrong = [
        b"{", b"[]", b"{}", json.dumps(record("../x")).encode(), b" " * 300_000,
        json.dumps(record(affected=[])).encode(),
        json.dumps(record(affected=[{"package": {"ecosystem": "Nowhere", "name": "x"}, "versions": ["1"]}])).encode(),
        json.dumps(record(fixed="not a version!")).encode(),
        json.dumps(record(withdrawn="yesterday")).encode(),
    ]  # fmt: skip
    for content in wrong:
        with pytest.raises(Malformed):
            private.propose(content, actor=author)
    with pytest.raises(Conflict, match="Choose an id of your own"):
        proposed(author, name="CVE-2011-4116")  # of a public feed
    assert not PrivateAdvisory.objects.exists()


def test_its_feed_is_none_that_admins_change(dockyard):
    private.approve(proposed(dockyard["security"]).pk, actor=dockyard["admin"])
    feed = Feed.objects.get(kind="own")
    admin = dockyard["admin"]
    assert feed.name not in {row["name"] for row in Caller(admin).get("feeds/").json()["results"]}
    for act in (feeds.remove_feed, feeds.sync_now):
        with pytest.raises(NotFound):
            act(feed.pk, actor=admin)
    with pytest.raises(Malformed):
        feeds.add_feed(actor=admin, name="mine", kind="own", location="https://example.com")
    assert affected()


def test_pages_and_api(dockyard):
    pages = browser(dockyard["security"])
    assert pages.get("/private-advisories/new/").status_code == 200
    wrong = pages.post("/private-advisories/new/", {"document": '{"id": "typed-by-hand"}', "reason": "r"})
    assert (wrong.status_code, b"typed-by-hand" in wrong.content) == (422, True)
    made = pages.post("/private-advisories/new/", {"document": json.dumps(record()), "reason": "r"})
    assert made.status_code == 302
    row = PrivateAdvisory.objects.get()
    assert "ACME-2026-1" in pages.get("/private-advisories/").content.decode()
    admin = browser(dockyard["admin"])
    assert admin.post(f"/private-advisories/{row.pk}/reject/", {"reason": ""}).status_code == 422
    assert admin.post(f"/private-advisories/{row.pk}/approve/", {"reason": "ok"}).status_code == 302
    assert "Propose a change" in pages.get(f"/private-advisories/{row.pk}/").content.decode()
    assert '"2.6.0"' in pages.get("/private-advisories/new/", {"from": row.pk}).content.decode().replace("&quot;", '"')
    api, boss = Caller(dockyard["security"]), Caller(dockyard["admin"])
    made = api.post("private-advisories/", {"document": record(fixed="3.0")})
    assert (made.status_code, made.json()["state"]) == (201, "requested")
    pk = made.json()["id"]
    assert api.post(f"private-advisories/{pk}/approve/", {}).status_code == 403
    assert boss.post(f"private-advisories/{pk}/approve/", {}).json()["state"] == "live"
    assert [item["state"] for item in api.get("private-advisories/").json()["results"]] == ["live", "replaced"]
    assert api.post("private-advisories/", {"document": []}).status_code == 400


def of_a_feed(osv_id, severity, **more):
    feed, _ = Feed.objects.get_or_create(name="public", defaults={"location": "a folder"})
    return Advisory.objects.create(
        feed=feed, osv_id=osv_id, vulnerability=osv_id, directory="PyPI", modified="2026-01-01T00:00:00Z",
        severity=severity, own_severity=severity, **more,
    )  # fmt: skip


def test_it_cannot_rate_a_public_vulnerability_lower(dockyard):
    of_a_feed("CVE-2026-1", "critical")
    with pytest.raises(Malformed, match="CVE-2026-1 says critical, and this record high"):
        proposed(dockyard["security"], aliases=["CVE-2026-1"])
    assert proposed(dockyard["security"], aliases=["CVE-2026-1"], severity=[]).state == "requested"
    of_a_feed("CVE-2026-2", "low")
    assert proposed(dockyard["security"], name="ACME-2", aliases=["CVE-2026-2"]).state == "requested"


def test_it_cannot_join_two_vulnerabilities(dockyard):
    of_a_feed("CVE-2026-1", "low")
    with pytest.raises(Malformed, match="CVE-2026-1 and CVE-2026-2, which are different"):
        proposed(dockyard["security"], aliases=["CVE-2026-1", "CVE-2026-2"])
    of_a_feed("GHSA-aaaa-bbbb-cccc", "low")
    Advisory.objects.filter(osv_id="GHSA-aaaa-bbbb-cccc").update(vulnerability="CVE-2026-1")
    row = proposed(dockyard["security"], aliases=["CVE-2026-1", "GHSA-aaaa-bbbb-cccc"])
    private.approve(row.pk, actor=dockyard["admin"])
    other = proposed(dockyard["security"], aliases=["CVE-2026-1"], summary="Changed")  # another revision
    assert private.approve(other.pk, actor=dockyard["admin"]).state == "live"


def test_what_became_known_meanwhile_counts_when_it_is_approved(dockyard):
    row = proposed(dockyard["security"], aliases=["CVE-2026-1"])
    of_a_feed("CVE-2026-1", "critical")
    with pytest.raises(Malformed, match="says critical"):
        private.approve(row.pk, actor=dockyard["admin"])
    row.refresh_from_db()
    assert row.state == "requested"


def test_inbox_of_other_admins_names_what_waits_for_them(dockyard):
    row = proposed(dockyard["admin"])
    link = f"/private-advisories/{row.pk}/"
    assert link not in browser(dockyard["admin"]).get("/inbox/").content.decode()  # their own
    assert link not in browser(dockyard["security"]).get("/inbox/").content.decode()
    page = browser(dockyard["other"]).get("/inbox/").content.decode()
    assert (link in page, "is proposed by root" in page) == (True, True)
    private.approve(row.pk, actor=dockyard["other"])
    assert link not in browser(dockyard["other"]).get("/inbox/").content.decode()
