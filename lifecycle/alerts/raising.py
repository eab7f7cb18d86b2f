"""Raise, refresh and close alerts. What raises them runs in jobs: no person acts here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from lifecycle.alerts.models import Alert
from lifecycle.alerts.types import Cause
from lifecycle.core.severities import RANKS, is_rise

_BATCH: Final = 1000
_REFRESHED: Final = (
    "count", "last_at", "evidence", "repository_ids", "image_counts", "images", "severity", "state", "snoozed_until",
    "reminded_at", "environment",
)  # fmt: skip


def raise_alerts(causes: Iterable[Cause], now: datetime, *, formers: Mapping[str, Alert] | None = None) -> list[Alert]:
    """Store the alerts of these causes, and return those to tell: new ones, and live ones whose severity rose.

    A live one is refreshed and counted again. If its severity rose, what people answered was about less: it is open.
    A new one names the last alert with its fingerprint, or that of `formers`, as its former.
    """
    wanted: dict[str, Cause] = {}
    for cause in causes:
        wanted.setdefault(cause.fingerprint, cause)
    rows = Alert.objects.select_for_update(of=("self",)).filter(fingerprint__in=wanted).exclude(state="resolved")
    live = {row.fingerprint: row for row in rows.order_by("pk")}
    last = Alert.objects.filter(fingerprint__in=wanted.keys() - live.keys()).order_by("fingerprint", "-pk")
    former = {row.fingerprint: row for row in last.distinct("fingerprint")} | dict(formers or {})
    risen = []
    for fingerprint, row in live.items():
        if row.severity in RANKS and is_rise(row.severity, wanted[fingerprint].severity):
            row.state, row.snoozed_until, row.reminded_at = Alert.State.OPEN, None, None
            risen.append(row)
        _fill(row, wanted[fingerprint], now)
        row.count += 1
        row.last_at = now
    Alert.objects.bulk_update(live.values(), _REFRESHED, batch_size=_BATCH)
    new = []
    for fingerprint, cause in wanted.items():
        if fingerprint not in live:
            row = Alert(
                kind=cause.kind, fingerprint=fingerprint, team_id=cause.team_id, vulnerability=cause.vulnerability,
                digest=cause.digest, cluster_id=cause.cluster_id, namespace=cause.namespace[:253],
                workload=cause.workload[:320], rule=cause.rule[:200], first_at=now, last_at=now,
                former=former.get(fingerprint),
            )  # fmt: skip
            _fill(row, cause, now)
            new.append(row)
    return [*Alert.objects.bulk_create(new, batch_size=_BATCH), *risen]


def _fill(row: Alert, cause: Cause, now: datetime) -> None:
    is_known = row.pk is not None and row.severity in RANKS
    row.severity = min(cause.severity, row.severity, key=RANKS.__getitem__) if is_known else cause.severity
    row.images = cause.images
    row.repository_ids = list(cause.repositories)
    row.image_counts = list(cause.repositories.values())
    row.evidence = dict(cause.evidence)
    row.environment_id = cause.environment_id


def close(alerts: Sequence[Alert], now: datetime, why: str) -> None:
    """Close alerts whose cause is gone."""
    Alert.objects.filter(pk__in=[row.pk for row in alerts]).exclude(state=Alert.State.RESOLVED).update(
        state=Alert.State.RESOLVED, resolved_at=now, snoozed_until=None, reason=why
    )


def live_alerts(kinds: Collection[str]) -> list[Alert]:
    """Return the live alerts of these kinds, locked, oldest first."""
    rows = Alert.objects.select_for_update(of=("self",)).filter(kind__in=kinds).exclude(state="resolved")
    return list(rows.order_by("pk"))
