"""Renews the certificate of the admission port, and uses a new authority as soon as the clusters trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from django.db.models import Exists, OuterRef

from lifecycle.admission import certificates
from lifecycle.admission.models import AdmissionCount, AdmissionDecision
from lifecycle.clusters.models import Cluster, Mode, NamespaceBinding
from lifecycle.core import clock
from lifecycle.inventory.models import Reporter
from lifecycle.inventory.queries import bundles_said

log = structlog.get_logger(__name__)

HEARD_WITHIN: Final = timedelta(days=7)  # a cluster that asked or reported within this is there
WAITS_FOR: Final = timedelta(days=7)  # a new authority, for clusters that do not confirm it
_NAMES_SHOWN: Final = 20
SETTLED: Final = timedelta(seconds=10)  # until all API servers of a cluster use the bundle that its agent reports
_REFUSING: Final = frozenset({Mode.WARN, Mode.ENFORCE})


@dataclass(frozen=True, slots=True)
class Lagging:
    """A cluster that was heard lately, and that does not trust the present bundle as far as we know."""

    slug: str
    why: str
    is_awaited: bool  # False: in mode observe, nobody is refused or warned meanwhile


def lagging_clusters(folder: Path) -> list[Lagging]:
    """Return the clusters that have not confirmed the present bundle, those first that the new authority waits for.

    A cluster confirms it when all its live reporters do, and one at least: whoever can send one report does not speak
    for the agent. A cluster that never asked nor reported does not count: any team could add one, and keep all others
    from changing. One that is away for longer than HEARD_WITHIN gets the bundle from its agent when it comes back,
    because agents do not need the admission port.
    """
    found = certificates.state(folder)
    if found is None:
        return []
    since, settled = clock.now() - HEARD_WITHIN, clock.now() - SETTLED
    of = {"cluster": OuterRef("pk")}
    is_heard = (
        Exists(AdmissionCount.objects.filter(**of, minute__gte=since))
        | Exists(AdmissionDecision.objects.filter(**of, at__gte=since))
        | Exists(Reporter.objects.filter(**of, seen_at__gte=since, is_import=False))
    )
    rows = (
        Cluster.objects.filter(is_heard, kind=Cluster.Kind.KUBERNETES, ended_at=None)
        .exclude(mode=Mode.OFF)
        .order_by("slug")
    )
    refuses = Exists(NamespaceBinding.objects.filter(**of, mode__in=_REFUSING))
    lagging, rows = [], rows.annotate(binding_refuses=refuses)
    said = bundles_said([row.pk for row in rows])
    for row in rows:
        told = said.get(row.pk)
        if told is None or not told.is_any:
            why = "Its agent reported no bundle. Apply the manifest again."
        elif not told.is_all(found.bundle_sha256):
            why = f"Not all of its reporters have the bundle: {', '.join(told.names[:_NAMES_SHOWN])}."
        elif told.since is not None and told.since <= settled:
            continue
        else:
            why = f"It reported the bundle less than {SETTLED.seconds} seconds ago."
        lagging.append(Lagging(row.slug, why, row.mode in _REFUSING or row.binding_refuses))
    return sorted(lagging, key=lambda row: not row.is_awaited)


def why_not_use_new_authority(folder: Path) -> str:
    """Return which clusters a new authority waits for; "" when it waits no longer.

    It waits until all clusters that refuse or warn trust it, and for WAITS_FOR at most.
    """
    found = certificates.state(folder)
    if found is None:
        return "There is no certificate yet."
    awaited = [row.slug for row in lagging_clusters(folder) if row.is_awaited]
    until = waits_until(found)
    if not awaited or (until is not None and clock.now() >= until):
        return ""
    limit = f" It is used on {until:%Y-%m-%d %H:%M} UTC at the latest." if until is not None else ""
    return f"{', '.join(awaited[:_NAMES_SHOWN])} did not confirm the new bundle.{limit}"


def waits_until(found: certificates.State) -> datetime | None:
    """Return until when a new authority waits for clusters; None when there is none."""
    return found.rotating_since + WAITS_FOR if found.rotating_since is not None else None


def tend_certificates(folder: Path, names: Sequence[str]) -> None:
    """Renew what ends soon, and let the server take it up. A new authority is used when all clusters trust it.

    Or when it has waited for WAITS_FOR: a team that does not let its cluster confirm holds all others back no longer.
    """
    found = certificates.state(folder)
    if found is None:
        return  # this machine serves no admission port
    is_new = certificates.ensure(folder, names)
    awaited = [row.slug for row in lagging_clusters(folder) if row.is_awaited] if found.is_rotating else []
    _note_awaited(folder, found, awaited)
    if found.is_rotating and not why_not_use_new_authority(folder):
        if awaited:
            log.error("admission_authority_waited_enough", clusters=awaited)
        is_new = certificates.use_new_authority(folder, names) or is_new
    if is_new:
        log.info("admission_certificate_renewed", served=certificates.reload_server(folder))


def _note_awaited(folder: Path, found: certificates.State, awaited: Sequence[str]) -> None:
    """Note which clusters a new authority waits for: each is an alert of its team.

    It stays one after the authority is used, until the cluster confirms or the old one leaves the bundle.
    """
    until = waits_until(found)
    noted = Cluster.objects.exclude(authority_waits_until=None)
    if until is not None:
        Cluster.objects.filter(slug__in=awaited).exclude(authority_waits_until=until).update(
            authority_waits_until=until
        )  # fmt: skip
        noted.exclude(slug__in=awaited).update(authority_waits_until=None)
    elif noted.exists():
        lagging = [row.slug for row in lagging_clusters(folder)] if found.keeps_old else []
        noted.exclude(slug__in=lagging).update(authority_waits_until=None)
