"""Alerts: say what changed, look at it, and read what was told."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from lifecycle import events
from lifecycle.alerts import passes
from lifecycle.alerts.models import Alert
from lifecycle.core import clock
from lifecycle.sbom.models import PackageVersion
from tests.factories import dock


def fence(function):
    with transaction.atomic():
        function()


def look(*packages, after=timedelta(0), first=False):
    """Say that the findings of packages changed, and look once."""
    with transaction.atomic():
        if packages and first:
            events.publish(events.ImagesScanned((1,), tuple(item.pk for item in packages), actor_id=1))
        elif packages:
            events.publish(events.MatchesChanged(frozenset(item.pk for item in packages)))
    with transaction.atomic():
        return passes.look_now(clock.now() + after)


def package(name):
    return PackageVersion.objects.get(name=name)


def told():
    rows = Alert.objects.select_related("team").order_by("pk")
    return [(row.kind, row.vulnerability, row.team.slug, row.state, row.images) for row in rows]


def raised(fleet, name="CVE-2026-8"):
    urllib3 = package("urllib3")
    dock.advisory(name, "high", urllib3)
    look(urllib3)
    return Alert.objects.get(vulnerability=name)
