"""The kinds `finding.*`: from differences in findings to one alert per vulnerability and owning team."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.db.models import Q

from lifecycle.alerts.models import Alert
from lifecycle.alerts.places import Place, places_of
from lifecycle.alerts.raising import close, raise_alerts
from lifecycle.alerts.seen import Change, Difference, open_pairs
from lifecycle.alerts.types import AlertKind, Cause, register
from lifecycle.core.severities import RANKS, UNKNOWN, worse
from lifecycle.evidence.open_findings import LIVE_SQL

PACKAGES_SHOWN: Final = 5  # in the evidence of an alert
GONE: Final = "No image of the team in use has it any more."


def _still_there(alerts: Sequence[Any]) -> set[int]:
    places = {(place.label, place.team_id) for place in _now({alert.vulnerability for alert in alerts})}
    return {alert.pk for alert in alerts if (alert.vulnerability, alert.team_id) in places}


NEW: Final = register(
    "finding.new",
    "New finding",
    "An advisory newly affects images of your team that are in use.",
    persists=_still_there,
)
EXPLOITED: Final = register(
    "finding.exploited",
    "Newly exploited",
    "A list of known exploited vulnerabilities (KEV) newly names a finding of your images.",
    persists=_still_there,
)
WORSENED: Final = register(
    "finding.worsened", "Finding got worse", "The severity of a finding of your images rose.", persists=_still_there
)
FIXED: Final = register(
    "finding.fixed",
    "Finding fixed",
    "No image of your team in use has a finding any more that you were told about.",
    persists=lambda alerts: (),
)
# Alerts that last while the finding is there. `overdue` adds its own, which can end earlier.
LASTING: Final = ["finding.new", "finding.exploited", "finding.worsened", "finding.overdue"]
_KIND_OF: Final[dict[Difference, AlertKind]] = {
    Difference.NEW: NEW,
    Difference.EXPLOITED: EXPLOITED,
    Difference.WORSENED: WORSENED,
}
_ORDER: Final = list(Difference)


def _now(vulnerabilities: Collection[str]) -> list[Place]:
    return places_of(open_pairs(vulnerabilities))


def raise_for(changes: Sequence[Change], now: datetime) -> list[Alert]:
    """Raise the alerts of what is new, newly exploited or worse, and return the new ones.

    A team gets one alert for a vulnerability: the first of new, exploited, worsened.
    """
    told = [change for change in changes if change.what in _KIND_OF]
    if not told:
        return []
    by_label: dict[str, list[Change]] = defaultdict(list)
    for change in told:
        by_label[f"{_ORDER.index(change.what)} {change.vulnerability}"].append(change)
    places = places_of(
        ((label, change.package_id) for label, listed in by_label.items() for change in listed),
        names={label: listed[0].vulnerability for label, listed in by_label.items()},
    )
    reasons = reasons_of((change.package_id, change.vulnerability) for change in told)
    causes: dict[tuple[int, str], Cause] = {}
    for place in sorted(places, key=lambda place: place.label):
        listed = by_label[place.label]
        causes.setdefault((place.team_id, listed[0].vulnerability), _cause(place, listed, reasons))
    return raise_alerts(causes.values(), now)


def _cause(place: Place, changes: Sequence[Change], reasons: dict[tuple[int, str], dict[str, str]]) -> Cause:
    severity, before = UNKNOWN, UNKNOWN
    for change in changes:
        severity = min(severity, change.severity, key=RANKS.__getitem__)
        before = min(before, change.before or UNKNOWN, key=RANKS.__getitem__)
    packages = [
        reason for change in changes if (reason := reasons.get((change.package_id, change.vulnerability))) is not None
    ]
    evidence: dict[str, Any] = {
        "packages": packages[:PACKAGES_SHOWN],
        "is_exploited": any(change.is_exploited for change in changes),
        "waiting": place.waiting,
    }
    if changes[0].what == Difference.WORSENED:
        evidence["severity_before"] = before
    return Cause(
        _KIND_OF[changes[0].what].name,
        place.team_id,
        changes[0].vulnerability,
        severity=severity,
        images=place.images,
        repositories=place.repositories,
        evidence=evidence,
    )


_REASONS: Final = f"""
SELECT DISTINCT ON (m.package_id, a.vulnerability)
       m.package_id, a.vulnerability, p.type, p.name, p.version, m.interval_text, m.fixed_version
FROM unnest(%s::bigint[], %s::text[]) AS wanted(package_id, vulnerability)
JOIN lifecycle_match m ON m.package_id = wanted.package_id AND {LIVE_SQL}
JOIN lifecycle_advisory a ON a.id = m.advisory_id AND a.vulnerability = wanted.vulnerability
JOIN lifecycle_packageversion p ON p.id = m.package_id
ORDER BY m.package_id, a.vulnerability, m.fixed_version = '', a.id
"""  # noqa: S608 -- only constants of our modules are inserted


def reasons_of(pairs: Iterable[tuple[int, str]]) -> dict[tuple[int, str], dict[str, str]]:
    """Return {(package version, vulnerability): why it matches}, for the evidence of a few packages of each."""
    wanted: dict[str, list[int]] = defaultdict(list)
    for package_id, name in pairs:
        if len(wanted[name]) < PACKAGES_SHOWN * 4:
            wanted[name].append(package_id)
    listed = [(package_id, name) for name, ids in wanted.items() for package_id in ids]
    with connection.cursor() as cursor:
        cursor.execute(_REASONS, [[package_id for package_id, _ in listed], [name for _, name in listed]])
        rows = cursor.fetchall()
    return {
        (package_id, vulnerability): {
            "package": f"{kind} {name} {version}".strip(),
            "why": why,
            "fixed_version": fixed,
        }
        for package_id, vulnerability, kind, name, version, why, fixed in rows
    }


def rename(renamed: dict[str, str]) -> None:
    """Give the live alerts of findings that got another name this name, unless it has an alert already."""
    if not renamed:
        return
    rows = Alert.objects.select_for_update(of=("self",)).filter(vulnerability__in=renamed).exclude(state="resolved")
    for row in rows.order_by("pk"):
        fingerprint = Cause(row.kind, row.team_id, renamed[row.vulnerability], row.digest).fingerprint
        if row.kind in LASTING and not Alert.objects.filter(fingerprint=fingerprint).exclude(state="resolved").exists():
            row.vulnerability, row.fingerprint = renamed[row.vulnerability], fingerprint
            row.save(update_fields=["vulnerability", "fingerprint"])


def say_fixed(changes: Sequence[Change], now: datetime, closed: Collection[tuple[str, int]]) -> list[Alert]:
    """Store that findings are gone from all images of a team, without a live alert about them; return the new alerts.

    `closed`: (vulnerability, team id) that a closed alert told already.
    """
    gone = [change for change in changes if change.what == Difference.GONE]
    if not gone:
        return []
    severity: dict[str, str] = {}
    for change in gone:
        severity[change.vulnerability] = worse(change.severity, severity.get(change.vulnerability))
    were = places_of((change.vulnerability, change.package_id) for change in gone)
    still = {(place.label, place.team_id) for place in _now(severity)}
    return _store_fixed(
        [
            Cause(
                FIXED.name, place.team_id, place.label, severity=severity[place.label], images=place.images,
                repositories=place.repositories,
            )
            for place in were
            if (place.label, place.team_id) not in still and (place.label, place.team_id) not in closed
        ],
        now,
        {},
    )  # fmt: skip


def _store_fixed(causes: Sequence[Cause], now: datetime, formers: dict[str, Alert]) -> list[Alert]:
    """Store alerts of the kind `finding.fixed`. They say that something ended, so they are resolved at once."""
    made = raise_alerts(causes, now, formers=formers)
    close(made, now, GONE)
    return made


def check(alerts: Sequence[Alert], now: datetime) -> tuple[list[Alert], list[Alert]]:
    """Close those of these live alerts whose cause is gone, and refresh the others; return (fixed, handed over).

    When the base of other images is fixed, the finding belongs to their teams from now on: they get their first alert.
    """
    mine = [alert for alert in alerts if alert.kind in LASTING]
    if not mine:
        return [], []
    by_label: dict[str, dict[int, Place]] = defaultdict(dict)
    for place in _now({alert.vulnerability for alert in mine}):
        by_label[place.label][place.team_id] = place
    ended: dict[tuple[str, int], Alert] = {}
    left: list[Alert] = []  # repositories of the team are fixed, while images of others wait for them
    for alert in mine:
        now_there = by_label[alert.vulnerability].get(alert.team_id)
        is_left = now_there is None or not set(alert.repository_ids) <= now_there.repositories.keys()
        if alert.evidence.get("waiting") and is_left:
            left.append(alert)
        if now_there is None:
            ended[alert.vulnerability, alert.team_id] = alert
        elif alert.kind != "finding.overdue" and (alert.images, alert.repository_ids) != (
            now_there.images,
            list(now_there.repositories),
        ):
            alert.images, alert.repository_ids = now_there.images, list(now_there.repositories)
            alert.image_counts = list(now_there.repositories.values())
            alert.save(update_fields=["images", "repository_ids", "image_counts"])
    close([alert for alert in mine if (alert.vulnerability, alert.team_id) in ended], now, GONE)
    causes, formers = [], {}
    for alert in ended.values():
        cause = Cause(
            FIXED.name, alert.team_id, alert.vulnerability, severity=alert.severity, images=alert.images,
            repositories=dict(zip(alert.repository_ids, alert.image_counts, strict=True)),
        )  # fmt: skip
        causes.append(cause)
        formers[cause.fingerprint] = alert
    fixed = _store_fixed(causes, now, formers)
    return fixed, _hand_over(left, by_label, now)


def _hand_over(left: Sequence[Alert], by_label: dict[str, dict[int, Place]], now: datetime) -> list[Alert]:
    causes = [
        Cause(
            NEW.name, place.team_id, alert.vulnerability, severity=alert.severity, images=place.images,
            repositories=place.repositories,
            evidence={**alert.evidence, "waiting": place.waiting, "is_base_fixed": True},
        )
        for alert in left
        for place in by_label[alert.vulnerability].values()
        if place.team_id != alert.team_id
    ]  # fmt: skip
    known = Alert.objects.filter(vulnerability__in={cause.vulnerability for cause in causes})
    known = known.filter(~Q(state=Alert.State.RESOLVED) | Q(resolved_by__isnull=False))
    told = set(known.values_list("vulnerability", "team_id"))
    return raise_alerts([cause for cause in causes if (cause.vulnerability, cause.team_id) not in told], now)
