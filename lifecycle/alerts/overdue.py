"""The kind `finding.overdue`: findings past their due date, by the table that admins edit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from django.db import connection

from lifecycle.alerts.findings import PACKAGES_SHOWN, reasons_of
from lifecycle.alerts.models import Alert
from lifecycle.alerts.places import Place, places_of
from lifecycle.alerts.raising import close, raise_alerts
from lifecycle.alerts.types import Cause, register
from lifecycle.core import clock
from lifecycle.core.severities import RANKS
from lifecycle.evidence.due import EXPOSED_SQL, OverduePair, overdue_pairs
from lifecycle.policies.due_dates import due_dates

_LATER: Final = "It is not overdue any more: it is due later."


def _still_overdue(alerts: Sequence[Any]) -> set[int]:
    late = _places(overdue_pairs(due_dates().rows, clock.now()))
    return {alert.pk for alert in alerts if (alert.vulnerability, alert.team_id) in late}


OVERDUE: Final = register(
    "finding.overdue", "Finding overdue", "A finding of your images is past its due date.", persists=_still_overdue
)


def look_overdue(now: datetime) -> list[Alert]:
    """Raise the alerts of findings that are overdue, close those that are due later; return the new ones.

    What a person resolved is looked at again after a day, as for all alerts (`passes`).
    """
    pairs = overdue_pairs(due_dates().rows, now)
    late = _places(pairs)
    live = Alert.objects.select_for_update(of=("self",)).filter(kind=OVERDUE.name).exclude(state=Alert.State.RESOLVED)
    known = {(row.vulnerability, row.team_id): row for row in live.order_by("pk")}
    close([row for key, row in known.items() if key not in late], now, _LATER)
    resolved = Alert.objects.filter(kind=OVERDUE.name, resolved_by__isnull=False, rechecked_at=None)
    answered = set(resolved.values_list("vulnerability", "team_id"))
    for key, row in known.items():
        if (place := late.get(key)) is not None and row.repository_ids != list(place.repositories):
            row.images, row.repository_ids = place.images, list(place.repositories)
            row.image_counts = list(place.repositories.values())
            row.save(update_fields=["images", "repository_ids", "image_counts"])
    wanted = [place for key, place in late.items() if key not in known and key not in answered]
    return raise_alerts(_causes(wanted, pairs), now)


def _causes(places: Sequence[Place], pairs: Sequence[OverduePair]) -> list[Cause]:
    names = {place.label for place in places}
    of: dict[str, list[OverduePair]] = defaultdict(list)
    for pair in pairs:
        if pair.vulnerability in names:
            of[pair.vulnerability].append(pair)
    reasons = reasons_of((pair.package_id, pair.vulnerability) for each in of.values() for pair in each)
    causes = []
    for place in places:
        each = of[place.label]
        packages = {
            pair.package_id: reason
            for pair in each
            if (reason := reasons.get((pair.package_id, pair.vulnerability))) is not None
        }
        evidence = {
            "packages": list(packages.values())[:PACKAGES_SHOWN],
            "due_at": min(pair.due_at for pair in each).isoformat(),
            "waiting": place.waiting,
        }
        causes.append(
            Cause(
                OVERDUE.name,
                place.team_id,
                place.label,
                severity=min((pair.severity for pair in each), key=RANKS.__getitem__),
                images=place.images,
                repositories=place.repositories,
                evidence=evidence,
            )
        )
    return causes


def _places(pairs: Sequence[OverduePair]) -> dict[tuple[str, int], Place]:
    """Return {(vulnerability, team id): where it is overdue}. What is overdue only where it is exposed counts there."""
    by_exposure: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for pair in pairs:
        by_exposure[pair.exposure].append((pair.vulnerability, pair.package_id))
    exposed = _exposed() if by_exposure.keys() - {""} else {}
    found: dict[tuple[str, int], Place] = {}
    for exposure in sorted(by_exposure):  # "" first: everywhere
        within = None if exposure == "" else exposed[exposure]
        for place in places_of(by_exposure[exposure], within=within):
            key = (place.label, place.team_id)
            found[key] = _together(found[key], place) if key in found else place
    return found


def _together(one: Place, other: Place) -> Place:
    repositories = other.repositories | one.repositories
    return Place(
        one.label,
        one.team_id,
        dict(sorted(repositories.items())),
        max(one.images, other.images),
        max(one.waiting, other.waiting),
    )


def _exposed() -> dict[str, list[int]]:
    """Return the platform manifests that run in production, and those that face the internet."""
    with connection.cursor() as cursor:
        cursor.execute(EXPOSED_SQL.format(only=""))
        rows = cursor.fetchall()
    return {
        "production": [pk for pk, production, _ in rows if production],
        "internet": [pk for pk, _, internet in rows if internet],
    }
