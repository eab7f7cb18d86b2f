"""Which clusters a new authority waits for."""

from __future__ import annotations

import pytest

from lifecycle.admission import certificates
from lifecycle.admission.models import AdmissionCount, AdmissionDecision
from lifecycle.admission.rotation import why_not_use_new_authority
from lifecycle.clusters import services as clusters
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from tests.factories.people import person

pytestmark = pytest.mark.django_db


def test_new_authority_waits_only_for_clusters_that_ask(dock, tmp_path):
    owner, now = person("boss", dock.team, "owner"), clock.now()
    asks, refuses, reports, off, _ = (
        clusters.create_cluster(dock.team, slug, actor=owner, mode="off" if slug == "off" else "observe")
        for slug in ("asks", "refuses", "reports", "off", "never-connected")
    )
    certificates.ensure(tmp_path, ["localhost"])
    assert why_not_use_new_authority(tmp_path) == ""
    AdmissionCount.objects.create(cluster=asks, minute=now, count=1)
    AdmissionDecision.objects.create(cluster=refuses, key="k", mode="observe", snapshot_number=1, at=now)
    Cluster.objects.filter(pk=reports.pk).update(bundle_sha256="0" * 64)
    AdmissionCount.objects.create(cluster=off, minute=now, count=1)
    assert why_not_use_new_authority(tmp_path) == "asks, refuses, reports did not report the new bundle."
    present = certificates.state(tmp_path).bundle_sha256
    Cluster.objects.filter(slug__in=("asks", "refuses", "reports")).update(bundle_sha256=present)
    assert why_not_use_new_authority(tmp_path) == ""
