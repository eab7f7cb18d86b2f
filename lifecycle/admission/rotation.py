"""Renews the certificate of the admission port, and uses a new authority as soon as the clusters trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from django.db.models import Exists, OuterRef

from lifecycle.admission import certificates
from lifecycle.admission.models import AdmissionCount, AdmissionDecision
from lifecycle.clusters.models import Cluster, Mode, NamespaceBinding
from lifecycle.core import clock
from lifecycle.inventory.models import Reporter

log = structlog.get_logger(__name__)

HEARD_WITHIN: Final = timedelta(days=7)  # a cluster that asked or reported within this is there
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

    A cluster that never asked nor reported does not count: any team could add one, and keep all others from changing.
    One that is away for longer than HEARD_WITHIN gets the bundle from its agent when it comes back, because agents do
    not need the admission port.
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
    lagging = []
    for row in rows.annotate(binding_refuses=refuses):
        if row.bundle_sha256 == found.bundle_sha256:
            if row.bundle_at is not None and row.bundle_at <= settled:
                continue
            why = f"It reported the bundle less than {SETTLED.seconds} seconds ago."
        elif row.bundle_sha256:
            why = "It still has another bundle."
        else:
            why = "Its agent reported no bundle. Apply the manifest again."
        lagging.append(Lagging(row.slug, why, row.mode in _REFUSING or row.binding_refuses))
    return sorted(lagging, key=lambda row: not row.is_awaited)


def why_not_use_new_authority(folder: Path) -> str:
    """Return which clusters have not confirmed the present bundle; "" when all that refuse or warn have."""
    if certificates.state(folder) is None:
        return "There is no certificate yet."
    awaited = [row.slug for row in lagging_clusters(folder) if row.is_awaited]
    return f"{', '.join(awaited[:20])} did not confirm the new bundle." if awaited else ""


def tend_certificates(folder: Path, names: Sequence[str]) -> None:
    """Renew what ends soon, and let the server take it up. A new authority is used when all clusters trust it."""
    found = certificates.state(folder)
    if found is None:
        return  # this machine serves no admission port
    is_new = certificates.ensure(folder, names)
    if found.is_rotating and not why_not_use_new_authority(folder):
        is_new = certificates.use_new_authority(folder, names) or is_new
    if is_new:
        log.info("admission_certificate_renewed", served=certificates.reload_server(folder))
