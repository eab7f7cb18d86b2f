"""The kind `finding.overdue`: findings past their due date, by the table that admins edit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection

from lifecycle.alerts.findings import REASONS_MAX, packages_shown, reasons_of
from lifecycle.alerts.models import Alert
from lifecycle.alerts.places import Place, places_of
from lifecycle.alerts.raising import close, raise_alerts
from lifecycle.alerts.types import Cause, register
from lifecycle.core import clock
from lifecycle.core.severities import worst
from lifecycle.evidence.due import EXPOSED_SQL, OverduePair, overdue_pairs
from lifecycle.policies.due_dates import due_dates

_LATER: Final = "It is not overdue any more: it is due later."


@dataclass(frozen=True, slots=True)
class _Late:
    """Where a vulnerability is overdue for one team, and the findings of that team that are."""

    place: Place
    pairs: list[OverduePair]


def _causes_now(alerts: Sequence[Alert]) -> dict[int, Cause]:
    late = _late(overdue_pairs(due_dates().rows, clock.now()))
    keys = {(alert.vulnerability, alert.team_id) for alert in alerts}
    now = {(cause.vulnerability, cause.team_id): cause for cause in _causes([late[key] for key in keys & late.keys()])}
    found = ((alert.pk, now.get((alert.vulnerability, alert.team_id))) for alert in alerts)
    return {pk: cause for pk, cause in found if cause is not None}


OVERDUE: Final = register(
    "finding.overdue", "Finding overdue", "A finding of your images is past its due date.", causes_now=_causes_now
)


def look_overdue(now: datetime) -> list[Alert]:
    """Raise the alerts of findings that are overdue, close those that are due later; return the new ones.

    What a person resolved is looked at again after a day, as for all alerts (`passes`).
    """
    late = _late(overdue_pairs(due_dates().rows, now))
    live = Alert.objects.select_for_update(of=("self",)).filter(kind=OVERDUE.name).exclude(state=Alert.State.RESOLVED)
    known = {(row.vulnerability, row.team_id): row for row in live.order_by("pk")}
    close([row for key, row in known.items() if key not in late], now, _LATER)
    resolved = Alert.objects.filter(kind=OVERDUE.name, resolved_by__isnull=False, rechecked_at=None)
    answered = set(resolved.values_list("vulnerability", "team_id"))
    for key, row in known.items():
        if key in late and row.repository_ids != list(late[key].place.repositories):
            place = late[key].place
            row.images, row.repository_ids = place.images, list(place.repositories)
            row.image_counts = list(place.repositories.values())
            row.save(update_fields=["images", "repository_ids", "image_counts"])
    wanted = [each for key, each in late.items() if key not in known and key not in answered]
    return raise_alerts(_causes(wanted), now)


def _causes(late: Sequence[_Late]) -> list[Cause]:
    reasons = reasons_of((pk, each.place.label) for each in late for pk in each.place.packages[:REASONS_MAX])
    return [
        Cause(
            OVERDUE.name,
            each.place.team_id,
            each.place.label,
            severity=worst(pair.severity for pair in each.pairs),
            images=each.place.images,
            repositories=each.place.repositories,
            evidence={
                "packages": packages_shown(each.place.label, each.place.packages, reasons),
                "due_at": min(pair.due_at for pair in each.pairs).isoformat(),
                "waiting": each.place.waiting,
            },
        )
        for each in late
    ]


def _late(pairs: Sequence[OverduePair]) -> dict[tuple[str, int], _Late]:
    """Return {(vulnerability, team id): where it is overdue}. What is overdue only where it is exposed counts there."""
    by_exposure: dict[str, dict[tuple[str, int], OverduePair]] = defaultdict(dict)
    for pair in pairs:
        by_exposure[pair.exposure][pair.vulnerability, pair.package_id] = pair
    exposed = _exposed() if by_exposure.keys() - {""} else {}
    found: dict[tuple[str, int], _Late] = {}
    for exposure in sorted(by_exposure):  # "" first: everywhere
        of = by_exposure[exposure]
        for place in places_of(of, within=None if exposure == "" else exposed[exposure]):
            key, mine = (place.label, place.team_id), [of[place.label, pk] for pk in place.packages]
            before = found.get(key)
            found[key] = _Late(_together(before.place, place), before.pairs + mine) if before else _Late(place, mine)
    return found


def _together(one: Place, other: Place) -> Place:
    names = sorted(one.repositories.keys() | other.repositories.keys())
    repositories = {pk: max(one.repositories.get(pk, 0), other.repositories.get(pk, 0)) for pk in names}
    return Place(
        one.label,
        one.team_id,
        repositories,
        max(one.images, other.images, min(one.images + other.images, sum(repositories.values()))),
        max(one.waiting, other.waiting),
        tuple(sorted({*one.packages, *other.packages})),
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
