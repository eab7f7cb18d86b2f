"""Renews the certificate of the admission port, and uses a new authority as soon as every cluster trusts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog
from django.db.models import Exists, OuterRef, Q

from lifecycle.admission import certificates
from lifecycle.admission.models import AdmissionCount, AdmissionDecision
from lifecycle.clusters.models import Cluster, Mode

log = structlog.get_logger(__name__)


def why_not_use_new_authority(folder: Path) -> str:
    """Return which clusters have not reported the present bundle; "" when all that ask have.

    A cluster that never asked nor reported does not count: any team could add one, and keep all others from changing.
    """
    found = certificates.state(folder)
    if found is None:
        return "There is no certificate yet."
    has_asked = Exists(AdmissionCount.objects.filter(cluster=OuterRef("pk"))) | Exists(
        AdmissionDecision.objects.filter(cluster=OuterRef("pk"))
    )
    asking = Cluster.objects.filter(~Q(bundle_sha256="") | has_asked, kind=Cluster.Kind.KUBERNETES)
    asking = asking.exclude(mode=Mode.OFF)
    late = asking.exclude(bundle_sha256=found.bundle_sha256).order_by("slug").values_list("slug", flat=True)
    return f"{', '.join(late[:20])} did not report the new bundle." if late else ""


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
