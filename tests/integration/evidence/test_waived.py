"""Findings are waived where approved waivers hold in all places of an image, until one ends, and for all readers."""

from __future__ import annotations

import csv
import io
import json

import pytest

from lifecycle import events
from lifecycle.advisories.models import Advisory, AffectedInterval, Match
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.evidence import package_counts
from lifecycle.evidence.exporting import export
from lifecycle.evidence.findings import findings_of_image, matches_of_images
from lifecycle.evidence.models import WaivedFinding
from lifecycle.evidence.open_findings import open_matches_in, waived_matches_in
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.evidence.risk import UNREADABLE, refresh_risk
from lifecycle.evidence.waived import _package_of, waivers_of
from lifecycle.policies.models import Waiver
from lifecycle.policies.types import Scope
from lifecycle.policies.waivers import end_waivers, revoke_waiver
from lifecycle.policy.facts import Need
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import version_key
from tests.clients import Caller, browser
from tests.factories import dock
from tests.factories.policies import rule, save, waiver
from tests.factories.vexing import decision

pytestmark = pytest.mark.django_db
CVE = "CVE-2024-5535"


@pytest.fixture
def harbour(db):
    made = dock.harbour()
    for package in PackageVersion.objects.all():
        package.version_key = version_key(package.scheme, package.match_version)
        package.namespace = "debian" if package.type == "deb" else ""
        package.save(update_fields=["version_key", "namespace"])
    for match in Match.objects.select_related("package"):
        AffectedInterval.objects.create(
            advisory=match.advisory, ecosystem=match.package.ecosystem, release=match.package.release,
            name=match.package.match_name, scheme=match.package.scheme, fixed_version=match.fixed_version,
        )  # fmt: skip
    shop = dock.team("shop")
    save(Scope(shop), rule("severe", severity="high"))
    made["approver"] = dock.user("second", "owner", of=shop)
    return made


def waive(made, **scope):
    return waiver(
        dock.team("shop"), "severe", by=made["reader"], approver=made["approver"], advisory=CVE, **scope
    )  # fmt: skip


def marked(reader, image):
    rows = Caller(reader).get(f"images/{image.digest}/findings/").json()["results"]
    return {(row["vulnerability"], row["state"]): row["waivers"] for row in rows if "waivers" in row}


def critical(image):
    return Image.objects.get(pk=image.pk).critical_count


def open_there(image):
    """Return whether the finding is open, by each way to ask; they must agree."""
    found = {
        open_matches_in([image.pk]).filter(advisory__vulnerability=CVE).exists(),
        CVE in {match.advisory.vulnerability for match in matches_of_images([image.pk])},
        "open" in {row.state for row in findings_of_image(image) if row.vulnerability == CVE},
        not waived_matches_in([image.pk]).exists(),
    }
    assert len(found) == 1
    return found.pop()


def test_a_waiver_of_a_repository_closes_its_finding_until_it_is_revoked(harbour):
    api, reader = harbour["api"], harbour["reader"]
    refresh_risk([api.pk, harbour["worker"].pk])
    assert (critical(api), open_there(api)) == (1, True)
    row = waive(harbour, repository=dock.repository("shop/api"))
    (found,) = marked(reader, api).values()
    assert [(each["name"], each["rule"]) for each in found] == [(str(row), "severe")]
    assert list(marked(reader, api)) == [(CVE, "waived")]
    assert (critical(api), open_there(api)) == (0, False)
    assert marked(reader, harbour["worker"]) == {}
    assert open_there(harbour["worker"])
    page = browser(reader).get(f"/t/shop/r/shop/api/i/{api.digest}/", {"tab": "findings"}).content.decode()
    assert f"/waivers/{row.pk}/" in page
    parts = export(api, "findings.csv", metadata={}, reader=reader)[1]
    lines = list(csv.DictReader(io.StringIO(b"".join(parts).decode())))
    assert {line["vulnerability"] for line in lines if line["waivers"]} == {CVE}
    result = next(each for each in sarif_results(api, reader) if each["ruleId"] == CVE)
    assert result["suppressions"][0]["justification"] == f"waived {row}"
    revoke_waiver(row.pk, actor=reader, reason="over")
    assert marked(reader, api) == {}
    assert (critical(api), open_there(api)) == (1, True)


def sarif_results(image, reader):
    parts = export(image, "sarif.json", metadata={}, reader=reader)[1]
    return json.loads(b"".join(parts))["runs"][0]["results"]


def test_it_is_open_at_the_moment_when_the_waiver_ends_and_counted_when_the_sweep_comes(harbour):
    api = harbour["api"]
    row = waive(harbour, repository=dock.repository("shop/api"))
    assert (critical(api), open_there(api)) == (0, False)
    Waiver.objects.filter(pk=row.pk).update(until=clock.now())
    assert open_there(api)
    end_waivers()
    assert (critical(api), open_there(api)) == (1, True)
    assert not WaivedFinding.objects.exists()


def test_waiver_of_one_environment_leaves_the_finding_open(harbour):
    refresh_risk([harbour["api"].pk])
    staging = Environment.objects.create(team=dock.team("shop"), slug="stage", name="Stage", prefix="stage", position=7)
    waive(harbour, repository=dock.repository("shop/api"), environment=staging)
    assert (critical(harbour["api"]), open_there(harbour["api"])) == (1, True)
    assert list(marked(harbour["reader"], harbour["api"])) == [(CVE, "open")]


def test_image_of_two_repositories_needs_a_waiver_in_each(harbour):
    api, shop = harbour["api"], dock.repository("shop/api")
    waive(harbour, repository=shop)
    other = dock.repository("shop/other")
    dock.push(other, api, "1.0")
    events.publish(events.PlacesChanged((api.pk,)))
    assert (critical(api), open_there(api)) == (1, True)
    second = waive(harbour, repository=other, days=3)
    assert (critical(api), open_there(api)) == (0, False)
    Waiver.objects.filter(pk=second.pk).update(until=clock.now())
    assert open_there(api)


def test_gates_judge_the_waiver_and_not_the_state(harbour):
    api = harbour["api"]
    subject = (api, dock.repository("shop/api"), None)

    def known() -> set[str]:
        (facts,) = facts_of_images([subject], {Need.FINDINGS})
        return {found.advisory for found in facts.findings or ()}

    before = known()
    assert CVE in before
    waive(harbour, repository=dock.repository("shop/api"))
    assert (known(), open_there(api)) == (before, False)


def test_change_of_matches_counts_whole_only_where_the_waiver_holds(harbour, monkeypatch):
    monkeypatch.setattr(package_counts, "_WHOLE_UP_TO", 0)
    api, worker = harbour["api"], harbour["worker"]
    added = []
    add = package_counts._add
    monkeypatch.setattr(package_counts, "_add", lambda *args: (added.append(args[1:]), add(*args)))
    waive(harbour, repository=dock.repository("shop/api"))
    ids = list(PackageVersion.objects.values_list("pk", flat=True))
    counts = Image.objects.values_list("critical_count", "high_count", "fixable_count").order_by("pk")
    package_counts.count_changed(ids, None)  # nothing was counted before: all images whole
    assert (critical(api), critical(worker), added) == (0, 1, [])
    for _ in range(2):
        package_counts.count_changed(ids, None)
        ((images, whole),) = added
        assert (worker.pk in images, whole) == (True, [api.pk])
        by_difference = list(counts)
        refresh_risk(images)
        assert list(counts) == by_difference
        Match.objects.filter(advisory__vulnerability=CVE).update(valid_to=clock.now())
        added.clear()
    assert (critical(api), critical(worker)) == (0, 0)


def test_waiver_leaves_what_gates_read_of_a_range_that_nobody_can_read(harbour):
    api = harbour["api"]
    match = Match.objects.filter(advisory__vulnerability=CVE, package__in=_packages_of(api)).first()
    twin = Advisory.objects.get(pk=match.advisory_id)
    twin.pk, twin.osv_id = None, "DEBIAN-CVE-2024-5535"
    twin.save(force_insert=True)
    match.pk, match.advisory, match.state, match.fixed_version = None, twin, Match.State.UNKNOWN, ""
    match.reason = "The range cannot be read."
    match.save(force_insert=True)
    refresh_risk([api.pk])
    reasons = Image.objects.values_list("unjudged_reasons", flat=True)
    before = reasons.get(pk=api.pk)
    assert UNREADABLE in before
    waive(harbour, repository=dock.repository("shop/api"))
    assert (open_there(api), reasons.get(pk=api.pk)) == (False, before)


def _packages_of(image):
    return PackageVersion.objects.filter(inventory_packages__inventory__image_inventories__image=image)


def test_finding_that_a_statement_closes_too_is_taken_off_once(harbour):
    api = harbour["api"]
    refresh_risk([api.pk])
    before = Image.objects.get(pk=api.pk)
    waive(harbour, repository=dock.repository("shop/api"))
    decision(dock.repository("shop/api"), by=harbour["reader"], approver=harbour["approver"], vulnerability=CVE)
    after = Image.objects.get(pk=api.pk)
    assert (before.critical_count, after.critical_count) == (1, 0)
    assert {row.state for row in findings_of_image(api) if row.vulnerability == CVE} == {"not_affected"}
    assert not waived_matches_in([api.pk]).exists()


def test_package_and_digest_limit_it(harbour):
    waive(harbour, repository=dock.repository("shop/api"), package="debian/other")
    assert marked(harbour["reader"], harbour["api"]) == {}
    waive(harbour, repository=dock.repository("shop/api"), package="debian/libssl3", digest=harbour["api"].digest)
    assert list(marked(harbour["reader"], harbour["api"])) == [(CVE, "waived")]


def test_who_cannot_see_the_waiver_sees_no_mark(harbour):
    waive(harbour, repository=dock.repository("shop/api"))
    dock.push(dock.repository("bank/api"), harbour["api"], "1.0")
    outsider = dock.user("outsider", "owner", of=dock.team("bank"))
    assert marked(outsider, harbour["api"]) == {}
    assert waivers_of(harbour["api"], outsider) == []
    assert len(waivers_of(harbour["api"], harbour["reader"])) == 1


@pytest.mark.parametrize(
    ("purl", "name"),
    [
        ("pkg:deb/debian/openssl@3.0.11-1?arch=amd64", "debian/openssl"),
        ("pkg:npm/%40scope/name@1.0.0", "@scope/name"),
        ("pkg:pypi/requests", "requests"),
        ("", ""),
    ],
)
def test_package_of_a_purl(purl, name):
    assert _package_of(purl) == name
