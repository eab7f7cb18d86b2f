"""A finding that a decision suppresses is gone from every count and list, and comes back when the decision ends."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import transaction
from freezegun import freeze_time

from accounts.queries import system_user
from lifecycle.advisories.models import AffectedInterval, Match
from lifecycle.comparison.queries import compare
from lifecycle.core import clock
from lifecycle.evidence.due import count_overdue, overdue_pairs
from lifecycle.evidence.exporting import export
from lifecycle.evidence.findings import (
    diff_of_images,
    finding_severities,
    findings_of_image,
    fixed_by_new_base,
    matches_of_images,
    unjudged_in,
)
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.evidence.risk import refresh_risk
from lifecycle.pages.registry.findings import findings_by_layer, findings_of
from lifecycle.policy.due_dates import DueRow
from lifecycle.policy.facts import Need
from lifecycle.registry.models import Image
from lifecycle.remedies import services as remedies
from lifecycle.remedies.models import Remedy
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import version_key
from lifecycle.vex import handlers, services
from lifecycle.vex.models import VexEffect, VexStatement
from lifecycle.vex.reading import parse
from lifecycle.vex.types import Product
from tests.factories import dock
from tests.factories.people import person

pytestmark = pytest.mark.django_db
CVE = "CVE-2024-5535"


@pytest.fixture
def fleet(db, settings):
    """Return the harbour; one person can decide alone."""
    settings.VEX_SECOND_PERSON = False
    made = dock.harbour()
    for package in PackageVersion.objects.all():
        package.version_key = version_key(package.scheme, package.match_version)
        package.save(update_fields=["version_key"])
    for match in Match.objects.select_related("package"):
        AffectedInterval.objects.create(
            advisory=match.advisory, ecosystem=match.package.ecosystem, release=match.package.release,
            name=match.package.match_name, scheme=match.package.scheme, fixed_version=match.fixed_version,
        )  # fmt: skip
    refresh_risk(list(Image.objects.filter(scanned_at__isnull=False).values_list("pk", flat=True)))
    shop = dock.team("shop")
    return made | {
        "guard": person("guard", shop, "security"), "keeper": person("keeper", dock.team("base"), "security"),
        "repository": dock.repository("shop/api"), "team": shop,
    }  # fmt: skip


def open_everywhere(image: Image, repository) -> dict[str, set[str]]:
    """Return the names of the open findings of an image, from every place that has them."""
    image.refresh_from_db()
    with transaction.atomic():
        remedies.find([repository.pk])
    (facts,) = facts_of_images([(image, repository, None)], {Need.FINDINGS, Need.EXPLOITS})
    exported = json.loads(b"".join(export(image, "findings.json", metadata={})[1]))["findings"]
    other = Image.objects.get(digest=dock.sha("base/debian new"))
    other.scanned_at = other.scanned_at or clock.now()
    return {
        "page": {match.advisory.vulnerability for match in findings_of(image)},
        "matches": {match.advisory.vulnerability for match in matches_of_images([image.pk])},
        "severities": {key.osv_id for key in finding_severities([image])[image.pk] or {}},
        "facts": {fact.advisory for fact in facts.findings or ()},
        "json": {line["vulnerability"] for line in exported if line["state"] == "open"},
        "remedies": {
            name for row in Remedy.objects.filter(repository=repository) for name, *_ in row.closes
        },
        "diff": set(diff_of_images(other, image).advisories.new),
        "compared": {line.osv_id for line in compare(other, image).findings if line.change == "new"},
    }  # fmt: skip


def test_one_decision_is_seen_everywhere_and_ends_by_itself(fleet):
    api, repository, guard = fleet["api"], fleet["repository"], fleet["guard"]
    before = open_everywhere(api, repository)
    everything = before["page"]
    assert CVE in everything
    assert before == dict.fromkeys(before, everything)
    counts = (api.critical_count, api.finding_count, api.fixable_count)
    assert sum(share.count for share in findings_by_layer(api)) == api.finding_count
    overdue = count_overdue([DueRow(1)], clock.now() + timedelta(days=2))
    made = services.decide(
        CVE, "not_affected", actor=guard, scope="digest", repository=repository, digest=api.digest,
        justification="vulnerable_code_not_in_execute_path", reason="No TLS here.", package="pkg:deb/debian/libssl3",
        until=clock.now() + timedelta(days=3),
    )  # fmt: skip
    assert made.state == "live"
    after = open_everywhere(api, repository)
    assert after == dict.fromkeys(before, everything - {CVE})
    assert (api.critical_count, api.finding_count, api.fixable_count) == tuple(count - 1 for count in counts)
    assert sum(share.count for share in findings_by_layer(api)) == api.finding_count
    assert len(list(findings_of(api))) == api.finding_count
    (line,) = [each for each in findings_of_image(api, reader=guard) if each.vulnerability == CVE]
    assert (line.state, line.vex.author, line.vex.reason) == ("not_affected", "guard", "No TLS here.")
    assert line.as_json()["vex"]["until"] == made.until.isoformat()
    vex = parse(b"".join(export(api, "openvex.json", metadata={}, reader=guard)[1]))
    (told,) = vex.statements
    assert (told.names[0], told.status, told.justification, told.text) == (
        CVE, "not_affected", "vulnerable_code_not_in_execute_path", "No TLS here.",
    )  # fmt: skip
    host = repository.registry.host
    assert told.products == (
        Product((api.digest,), f"pkg:oci/api@{api.digest}?repository_url={host}/shop/api", (line.purl,)),
    )
    (same,) = parse(b"".join(export(api, "vex.cdx.json", metadata={}, reader=guard)[1])).statements
    assert (same.names, same.status, same.justification) == (told.names, told.status, told.justification)
    assert same.products == (Product((api.digest,), "", (line.purl,)),)
    base_old, base_new = (Image.objects.get(digest=dock.sha(name)) for name in ("base/debian old", "base/debian new"))
    assert CVE not in fixed_by_new_base([api.pk], base_old, base_new)[api.pk]
    worker = fleet["worker"]  # built on it by a mere label: nothing is inherited
    worker.refresh_from_db()
    assert CVE in open_everywhere(worker, dock.repository("shop/worker"))["page"]
    jobs = Image.objects.get(digest=dock.sha("shop/jobs 0"))
    assert not VexEffect.objects.filter(image=jobs).exists()  # it has no inventory of its own yet
    # Not fixed, not unknown, when it was open before: it was decided.
    assert CVE not in diff_of_images(worker, api).advisories.fixed
    assert {key.osv_id for key in unjudged_in([api.pk]).decided} == {CVE}
    assert "fixed" not in {line.change for line in compare(worker, api).findings if line.osv_id == CVE}
    late = clock.now() + timedelta(days=2)
    rows = [DueRow(1)]
    assert count_overdue(rows, late).findings == overdue.findings - 1
    services.decide(CVE, "fixed", actor=system_user(), scope="all", reason="Patched.")
    assert CVE not in {pair.vulnerability for pair in overdue_pairs(rows, late)}
    services.withdraw(VexStatement.objects.latest("pk").pk, actor=system_user())
    assert CVE in {pair.vulnerability for pair in overdue_pairs(rows, late)}
    with freeze_time(clock.now() + timedelta(days=4)):
        handlers.end_decisions()
        assert open_everywhere(api, repository) == before
    api.refresh_from_db()
    assert (api.critical_count, api.finding_count, api.fixable_count) == counts
    made.refresh_from_db()
    assert made.state == "expired"
    assert not VexEffect.objects.exists()
