"""The kinds `finding.*`: from differences in findings to one alert per vulnerability and owning team."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.db.models import Q

from lifecycle.alerts.models import Alert, SeenFinding
from lifecycle.alerts.places import Place, blast_radius, places_of
from lifecycle.alerts.raising import close, raise_alerts
from lifecycle.alerts.seen import Change, Difference, open_pairs
from lifecycle.alerts.types import AlertKind, Cause, kind_called, register
from lifecycle.core.severities import worst
from lifecycle.evidence.open_findings import LIVE_SQL
from lifecycle.inventory.models import RunningImage

PACKAGES_SHOWN: Final = 5  # in the evidence of an alert
REASONS_MAX: Final = 20  # package versions of a team that are asked for: some may match no more
Reasons = dict[tuple[int, str], dict[str, str]]
Radii = Mapping[tuple[str, int], dict[str, int]]
_KEPT: Final = ("severity_before", "is_base_fixed", "blast_radius")  # evidence of the time when an alert was raised
RUNS: Final = "Its images run: another alert tells where."
GONE: Final = "No image of the team in use has it any more."
DECIDED: Final = "Decided: no image of the team in use is affected."


def _causes_now(alerts: Sequence[Alert]) -> dict[int, Cause]:
    wanted = {(alert.vulnerability, alert.team_id) for alert in alerts}
    places = [place for place in _now({name for name, _ in wanted}) if (place.label, place.team_id) in wanted]
    now = {(cause.vulnerability, cause.team_id): cause for cause in _as_it_is(alerts[0].kind, places)}
    found = {}
    for alert in alerts:
        if (cause := now.get((alert.vulnerability, alert.team_id))) is not None:
            kept = {name: alert.evidence[name] for name in _KEPT if name in alert.evidence}
            found[alert.pk] = replace(cause, evidence={**cause.evidence, **kept})
    return found


NEW: Final = register(
    "finding.new",
    "New finding",
    "An advisory newly affects images of your team that are in use.",
    causes_now=_causes_now,
)
RUNNING: Final = register(
    "finding.running",
    "New finding in what runs",
    "An advisory newly affects images of your team, or images built on them, that run in a cluster.",
    causes_now=_causes_now,
)
EXPLOITED: Final = register(
    "finding.exploited",
    "Newly exploited",
    "A list of known exploited vulnerabilities (KEV) newly names a finding of your images.",
    causes_now=_causes_now,
)
WORSENED: Final = register(
    "finding.worsened", "Finding got worse", "The severity of a finding of your images rose.", causes_now=_causes_now
)
FIXED: Final = register(
    "finding.fixed",
    "Finding fixed",
    "No image of your team in use has a finding any more that you were told about.",
    causes_now=lambda alerts: {},
)
# Alerts that last while the finding is there. `overdue` adds its own, which can end earlier.
LASTING: Final = ["finding.new", "finding.running", "finding.exploited", "finding.worsened", "finding.overdue"]
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
    by_label: dict[str, dict[int, Change]] = defaultdict(dict)
    names: dict[str, str] = {}
    for change in told:
        label = f"{_ORDER.index(change.what)} {change.vulnerability}"
        by_label[label][change.package_id], names[label] = change, change.vulnerability
    places = places_of(
        ((label, package_id) for label, listed in by_label.items() for package_id in listed), names=names
    )
    firsts: dict[tuple[int, str], Place] = {}
    for place in sorted(places, key=lambda place: place.label):
        firsts.setdefault((place.team_id, names[place.label]), place)
    reasons = reasons_of(
        (package_id, name) for (_, name), place in firsts.items() for package_id in place.packages[:REASONS_MAX]
    )
    causes = [
        _cause(place, [by_label[place.label][package_id] for package_id in place.packages], reasons)
        for place in firsts.values()
    ]
    return _raise(causes, now)


def _raise(causes: Sequence[Cause], now: datetime) -> list[Alert]:
    """Raise alerts; what is new in images that run is told as `finding.running`, in place of `finding.new`."""
    new = {(cause.vulnerability, cause.team_id) for cause in causes if cause.kind == NEW.name}
    if not new or not RunningImage.objects.filter(until=None, image__isnull=False).exists():
        return raise_alerts(causes, now)
    radius = blast_radius(open_pairs({name for name, _ in new}))
    live = Alert.objects.exclude(state=Alert.State.RESOLVED).filter(vulnerability__in={name for name, _ in new})
    told = set(live.filter(kind=RUNNING.name).values_list("vulnerability", "team_id"))
    raised = raise_alerts([_running(cause, radius, told) for cause in causes], now)
    replaced = [row for row in live.filter(kind=NEW.name).order_by("pk") if (row.vulnerability, row.team_id) in radius]
    close(replaced, now, RUNS)
    return raised


def _running(cause: Cause, radius: Radii, told: Collection[tuple[str, int]]) -> Cause:
    key = (cause.vulnerability, cause.team_id)
    if cause.kind != NEW.name or (key not in radius and key not in told):
        return cause
    more = {"blast_radius": radius[key]} if key in radius else {}
    return replace(cause, kind=RUNNING.name, evidence={**cause.evidence, **more})


def _cause(place: Place, changes: Sequence[Change], reasons: Reasons) -> Cause:
    """Return what to tell the team of a place: only of package versions that it has itself."""
    what, name = changes[0].what, changes[0].vulnerability
    evidence: dict[str, Any] = {
        "packages": packages_shown(name, place.packages, reasons),
        "is_exploited": any(change.is_exploited for change in changes),
        "waiting": place.waiting,
    }
    if what == Difference.WORSENED:
        evidence["severity_before"] = worst(change.before for change in changes)
    return Cause(
        _KIND_OF[what].name,
        place.team_id,
        name,
        severity=worst(change.severity for change in changes),
        images=place.images,
        repositories=place.repositories,
        evidence=evidence,
    )


def packages_shown(name: str, package_ids: Iterable[int], reasons: Reasons) -> list[dict[str, str]]:
    """Return a few package versions with the reason why they match, for the evidence of an alert."""
    found = (reasons.get((package_id, name)) for package_id in package_ids)
    return [reason for reason in found if reason is not None][:PACKAGES_SHOWN]


def _as_it_is(kind: str, places: Sequence[Place], **evidence: Any) -> list[Cause]:
    """Return what to tell the teams of these places about the findings as they were at the last look."""
    names = {place.label for place in places}
    rows = SeenFinding.objects.filter(vulnerability__in=names)
    seen = {(row.package_id, row.vulnerability): row for row in rows.iterator()}
    reasons = reasons_of((pk, place.label) for place in places for pk in place.packages[:REASONS_MAX])
    causes = []
    for place in places:
        known = [seen[pk, place.label] for pk in place.packages if (pk, place.label) in seen]
        told = {
            "packages": packages_shown(place.label, place.packages, reasons),
            "is_exploited": any(row.is_exploited for row in known),
            "waiting": place.waiting,
        }
        causes.append(
            Cause(
                kind, place.team_id, place.label, severity=worst(row.severity for row in known),
                images=place.images, repositories=place.repositories, evidence=told | evidence,
            )
        )  # fmt: skip
    return causes


_REASONS: Final = f"""
SELECT DISTINCT ON (m.package_id, a.vulnerability)
       m.package_id, a.vulnerability, p.type, p.name, p.version, m.interval_text, m.fixed_version
FROM unnest(%s::bigint[], %s::text[]) AS wanted(package_id, vulnerability)
JOIN lifecycle_match m ON m.package_id = wanted.package_id AND {LIVE_SQL}
JOIN lifecycle_advisory a ON a.id = m.advisory_id AND a.vulnerability = wanted.vulnerability
JOIN lifecycle_packageversion p ON p.id = m.package_id
ORDER BY m.package_id, a.vulnerability, m.fixed_version = '', a.id
"""  # noqa: S608 -- only constants of our modules are inserted


def reasons_of(pairs: Iterable[tuple[int, str]]) -> Reasons:
    """Return {(package version, vulnerability): why it matches}, for the evidence of a few packages of each team."""
    listed = sorted(set(pairs))
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


def rename(renamed: dict[str, str], now: datetime) -> None:
    """Give the live alerts of findings that got another name this name. One whose new name has a live alert closes."""
    if not renamed:
        return
    rows = Alert.objects.select_for_update(of=("self",)).filter(vulnerability__in=renamed, kind__in=LASTING)
    for row in rows.exclude(state=Alert.State.RESOLVED).order_by("pk"):
        name = renamed[row.vulnerability]
        fingerprint = Cause(row.kind, row.team_id, name, row.digest).fingerprint
        if Alert.objects.filter(fingerprint=fingerprint).exclude(state=Alert.State.RESOLVED).exists():
            close([row], now, f"It is now known as {name}, which has an alert.")
        else:
            row.vulnerability, row.fingerprint = name, fingerprint
            row.save(update_fields=["vulnerability", "fingerprint"])


def say_fixed(changes: Sequence[Change], now: datetime, closed: Collection[tuple[str, int]]) -> list[Alert]:
    """Store that findings are gone from all images of a team, without a live alert about them; return the new alerts.

    `closed`: (vulnerability, team id) that a closed alert told already.
    """
    gone = [change for change in changes if change.what == Difference.GONE]
    if not gone:
        return []
    severity = {(change.package_id, change.vulnerability): change.severity for change in gone}
    were = places_of((change.vulnerability, change.package_id) for change in gone)
    still = {(place.label, place.team_id) for place in _now({change.vulnerability for change in gone})}
    return _store_fixed(
        [
            Cause(
                FIXED.name, place.team_id, place.label, images=place.images, repositories=place.repositories,
                severity=worst(severity[pk, place.label] for pk in place.packages),
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


def check(alerts: Sequence[Alert], now: datetime, answered: Sequence[Alert] = ()) -> tuple[list[Alert], list[Alert]]:
    """Close those of these live alerts whose cause is gone, and refresh the others; return (fixed, handed over).

    When the base of other images is fixed, the finding belongs to their teams from now on: they get their first alert.
    What VEX statements suppress is not fixed: its alert closes without a message.

    `answered` are alerts that a person resolved while images of others waited. Their fix is still to be handed over.
    """
    mine = [alert for alert in alerts if alert.kind in LASTING]
    if not mine and not answered:
        return [], []
    by_label: dict[str, dict[int, Place]] = defaultdict(dict)
    for place in _now({alert.vulnerability for alert in (*mine, *answered)}):
        by_label[place.label][place.team_id] = place
    ended: dict[tuple[str, int], Alert] = {}
    left: list[
        tuple[Alert, set[int]]
    ] = []  # with its repositories: some of the team are fixed, while images of others wait for them
    for alert in mine:
        now_there = by_label[alert.vulnerability].get(alert.team_id)
        is_left = now_there is None or not set(alert.repository_ids) <= now_there.repositories.keys()
        if alert.evidence.get("waiting") and is_left:
            left.append((alert, set(alert.repository_ids)))
        if now_there is None:
            ended[alert.vulnerability, alert.team_id] = alert
        elif alert.kind != "finding.overdue" and (alert.images, alert.repository_ids) != (
            now_there.images,
            list(now_there.repositories),
        ):
            alert.images, alert.repository_ids = now_there.images, list(now_there.repositories)
            alert.image_counts = list(now_there.repositories.values())
            alert.save(update_fields=["images", "repository_ids", "image_counts"])
    over = []  # of those answered: nothing is left to hand over
    for alert in answered:
        now_there = by_label[alert.vulnerability].get(alert.team_id)
        if now_there is None or not set(alert.repository_ids) <= now_there.repositories.keys():
            left.append((alert, set(alert.repository_ids)))
        if now_there is None:
            over.append(alert.pk)
    Alert.objects.filter(pk__in=over).update(is_handed_over=True)
    present = _present({*ended, *((alert.vulnerability, alert.team_id) for alert, _ in left)})
    decided = ended.keys() & present.keys()
    for keys, why in ((ended.keys() - decided, GONE), (decided, DECIDED)):
        close([alert for alert in mine if (alert.vulnerability, alert.team_id) in keys], now, why)
    causes, formers = [], {}
    for key, alert in ended.items():
        if key in decided:
            continue
        cause = Cause(
            FIXED.name, alert.team_id, alert.vulnerability, severity=alert.severity, images=alert.images,
            repositories=dict(zip(alert.repository_ids, alert.image_counts, strict=True)),
        )  # fmt: skip
        causes.append(cause)
        formers[cause.fingerprint] = alert
    fixed = _store_fixed(causes, now, formers)
    return fixed, _hand_over(left, by_label, present, now)


def _present(keys: Collection[tuple[str, int]]) -> dict[tuple[str, int], Place]:
    """Return {(vulnerability, team id): where it is}, of these, whatever VEX statements suppress."""
    if not keys:
        return {}
    places = places_of(open_pairs({name for name, _ in keys}), with_decided=True)
    return {(place.label, place.team_id): place for place in places if (place.label, place.team_id) in keys}


def raise_undecided(now: datetime) -> list[Alert]:
    """Raise the alerts again that closed because of a decision that ended since; return them."""
    rows = Alert.objects.filter(kind__in=LASTING, reason=DECIDED, resolved_by=None, state=Alert.State.RESOLVED)
    last = Alert.objects.filter(fingerprint__in=rows.values("fingerprint")).order_by("fingerprint", "-pk")
    by_kind: dict[str, list[Alert]] = defaultdict(list)
    for row in last.distinct("fingerprint"):
        if row.state == Alert.State.RESOLVED and row.resolved_by_id is None and row.reason == DECIDED:
            by_kind[row.kind].append(row)
    causes: list[Cause] = []
    for name, mine in by_kind.items():
        if (kind := kind_called(name)) is not None:
            causes += kind.causes_now(mine).values()
    return raise_alerts(causes, now)


def _hand_over(
    left: Sequence[tuple[Alert, set[int]]],
    by_label: dict[str, dict[int, Place]],
    present: dict[tuple[str, int], Place],
    now: datetime,
) -> list[Alert]:
    fixed: dict[tuple[str, int], Place] = {}
    others: dict[tuple[str, int], Place] = {}  # their base is only decided about, and they do not follow that
    for alert, repositories in left:
        still = present.get((alert.vulnerability, alert.team_id))
        is_fixed = still is None or not repositories <= still.repositories.keys()
        for place in by_label[alert.vulnerability].values():
            if place.team_id != alert.team_id:
                (fixed if is_fixed else others)[place.label, place.team_id] = place
    causes = _as_it_is(NEW.name, list(fixed.values()), is_base_fixed=True)
    causes += _as_it_is(NEW.name, [place for key, place in others.items() if key not in fixed])
    known = Alert.objects.filter(vulnerability__in={cause.vulnerability for cause in causes})
    known = known.filter(~Q(state=Alert.State.RESOLVED) | Q(resolved_by__isnull=False))
    told = set(known.values_list("vulnerability", "team_id"))
    return _raise([cause for cause in causes if (cause.vulnerability, cause.team_id) not in told], now)
