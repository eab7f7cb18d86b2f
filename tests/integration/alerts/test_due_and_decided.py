"""Alerts about findings that are overdue, and about those that a VEX statement decides."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction

from lifecycle.advisories.models import Match
from lifecycle.alerts import passes, services
from lifecycle.alerts.models import Alert
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.evidence.due import count_overdue
from lifecycle.notices.models import Notice
from lifecycle.policies.due_dates import save_due_dates
from lifecycle.policy.due_dates import DueRow
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from lifecycle.vex import services as vex
from lifecycle.vex.models import VexEffect, VexStatement
from tests.clients import Caller
from tests.factories import dock
from tests.factories.alerting import look, package

pytestmark = pytest.mark.django_db


def test_overdue_findings_are_told_once_also_by_exposure_and_after_a_change_of_the_table(fleet, django_user_model):
    admin = django_user_model.objects.create_user("admin", is_superuser=True, password="x")
    hour = timedelta(hours=1, seconds=1)
    Match.objects.update(valid_from=clock.now() - timedelta(days=10))
    PackageVersion.objects.update(first_seen_at=clock.now() - timedelta(days=90))
    assert look(after=hour) == []  # critical: 15 days
    found = look(after=timedelta(days=5, minutes=1))
    assert [(row.kind, row.vulnerability, row.team.slug, row.images) for row in found] == [
        ("finding.overdue", "CVE-2024-5535", "base", 1)
    ]
    assert "due since" in Notice.objects.get(topic="finding.overdue").text
    assert look(after=timedelta(days=5, hours=2)) == []  # once

    # In production, medium findings are due after 5 days: of shop/api in the layers of its own.
    place = create_environment(dock.team("shop"), actor=admin, slug="live", name="Live", prefix="live")
    Environment.objects.filter(pk=place.pk).update(is_production=True)
    Slot.objects.create(repository=dock.repository("shop/api"), environment=place, image=fleet["api"], tag="1.0")
    row = {"days": 5, "severity": "medium", "exposure": "production"}
    save_due_dates([row, {"days": 9, "severity": "critical"}], actor=admin, seen=0)
    assert passes.is_due(clock.now())
    found = look()
    assert sorted((row.vulnerability, row.team.slug) for row in found) == [
        ("CVE-2023-5678", "base"),  # shop/api waits for the base
        ("GHSA-j8r2-6x86-q33q", "shop"),
        ("GHSA-v845-jxx5-vc9f", "shop"),
    ]
    api = Caller(fleet["shop_dev"]).get("alerts/", kind="finding.overdue").json()["results"]
    assert {row["vulnerability"] for row in api} >= {"GHSA-j8r2-6x86-q33q"}

    services.resolve(found[0].pk, actor=fleet["reader"], reason="Not reachable.")
    save_due_dates([{**row, "days": 60}], actor=admin, seen=1)
    assert look() == []
    states = Alert.objects.filter(kind="finding.overdue").values_list("state", "reason")
    assert set(states) == {
        ("resolved", "It is not overdue any more: it is due later."), ("resolved", "Not reachable."),
    }  # fmt: skip


def test_image_in_which_vex_suppresses_a_finding_is_not_affected(fleet, settings):
    settings.VEX_SECOND_PERSON = False
    urllib3, guard = package("urllib3"), dock.user("guard", "security", of=dock.team("shop"))
    dock.carry(Image.objects.get(digest=dock.sha("shop/static")), 1, urllib3)
    dock.advisory("CVE-2026-12", "high", urllib3)

    def decide(name):
        vex.decide(
            "CVE-2026-12", "false_positive", actor=guard, scope="repository", reason="Not used.",
            repository=dock.repository(name),
        )  # fmt: skip

    decide("shop/static")
    look(urllib3)
    alert = Alert.objects.get()
    assert (alert.images, alert.repository_ids) == (1, [dock.repository("shop/api").pk])
    rows = (DueRow(0),)
    before = count_overdue(rows, clock.now() + timedelta(days=1)).findings
    decide("shop/api")  # shop/worker, which is built on it, inherits that
    assert count_overdue(rows, clock.now() + timedelta(days=1)).findings == before - 2
    look()
    alert.refresh_from_db()
    assert (alert.state, alert.reason) == ("resolved", "Decided: no image of the team in use is affected.")
    assert not Alert.objects.filter(kind="finding.fixed").exists()  # nor a message
    assert not Notice.objects.filter(topic="finding.fixed").exists()

    assert look() == []
    with transaction.atomic():
        vex.withdraw(VexStatement.objects.get(repository__name="shop/api").pk, actor=guard)
    again = look()
    assert [(row.kind, row.vulnerability, row.images, row.former_id) for row in again] == [
        ("finding.new", "CVE-2026-12", 1, alert.pk)
    ]
    assert look(after=timedelta(hours=2)) == []


def test_decision_about_a_base_does_not_say_that_it_is_fixed(fleet, settings):
    settings.VEX_SECOND_PERSON = False
    perl, guard = package("perl-base"), dock.user("guard", "security", of=dock.team("base"))
    dock.advisory("CVE-2026-13", "high", perl)
    look(perl)
    for name in ("base/debian", "base/python"):
        vex.decide(
            "CVE-2026-13", "false_positive", actor=guard, scope="repository", reason="Not used.",
            repository=dock.repository(name),
        )  # fmt: skip
    VexEffect.objects.exclude(inherited_from=None).delete()  # shop does not follow decisions of base
    look()
    assert Alert.objects.get(team__slug="base").reason.startswith("Decided")
    assert "is_base_fixed" not in Alert.objects.get(team__slug="shop").evidence
