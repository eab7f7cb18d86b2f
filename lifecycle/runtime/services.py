"""Apply waiting reports, and match images that arrived after the report of their containers."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import Final

from django.db import DataError, OperationalError, connection, transaction
from django.db.models import Q
from psycopg2.errors import ProgramLimitExceeded

from lifecycle.admission.ending import forget_clusters
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.inventory.constants import FORGET_REPORTERS, KEEP_CONTAINERS, KEEP_REPORTS
from lifecycle.inventory.models import PodSpec, PodTemplate, Reporter, RunningContainer, RunningImage, RuntimeReport
from lifecycle.jobs.handlers import JobRun
from lifecycle.runtime import applying
from lifecycle.runtime.resolving import Wanted, resolve

_MATCHED_MAX: Final = 2000
# Of containers of unknown images, those whose image we have by now. Unknown ones never crowd these out.
_KNOWN_NOW: Final = """
SELECT DISTINCT c.digests, c.reference, c.arch, c.image_id, c.platform_id
FROM lifecycle_runningcontainer c
WHERE c.until IS NULL AND (c.image_id IS NULL OR c.platform_id IS NULL) AND c.digests <> '{}'
  AND (EXISTS (SELECT FROM lifecycle_image i WHERE i.digest = ANY(c.digests))
       OR EXISTS (SELECT FROM lifecycle_image i WHERE i.config_digest = ANY(c.digests)))
ORDER BY c.image_id NULLS FIRST
LIMIT %s
"""


def apply_reports(run: JobRun, reporter_id: int) -> int:
    """Apply the waiting reports of a reporter, the oldest first, each in a transaction of its own; return how many."""
    count = 0
    while True:
        with run.fenced():
            # The cluster's row, because images of all its reporters are counted together.
            reporter = Reporter.objects.select_related("cluster").filter(pk=reporter_id).first()
            if reporter is None:
                return count
            cluster = Cluster.objects.select_for_update(of=("self",), no_key=True).get(pk=reporter.cluster_id)
            rows = RuntimeReport.objects.filter(reporter=reporter, applied_at=None).order_by("pk")
            report = rows.select_related("reporter__cluster").first()
            if report is None:
                return count
            try:
                with transaction.atomic():
                    if cluster.ended_at is None:
                        applied = applying.apply(report)
                    else:
                        applied = applying.apply_to_history(report, cluster.ended_at)
            except (DataError, OperationalError) as error:
                if not _is_content(error):
                    raise
                applying.give_up(report, reporter)
                run.log(f"Report {report.report_id} cannot be stored: {str(error)[:300]}")
                continue
        count += 1
        run.log(
            f"Report {report.report_id}: {applied.containers} containers, {applied.started} new, {applied.ended} ended,"
            f" {applied.changed} changed, {applied.refused} entries refused."
        )
        for each in report.refused[:20]:
            run.log(f"{each['pointer']}: {each['why']}")


def _is_content(error: Exception) -> bool:
    """Return whether the content of a report was refused by PostgreSQL, so that no second attempt can help."""
    return isinstance(error, DataError) or isinstance(error.__cause__, ProgramLimitExceeded)


def match_again() -> int:
    """Match live containers of unknown images again: the image, or its index, can arrive later. Return how many."""
    rows = RunningContainer.objects.filter(Q(image=None) | Q(platform=None), ~Q(digests=[]), until=None)
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN_NOW, [_MATCHED_MAX])
        found_rows = cursor.fetchall()
    wanted = {Wanted(tuple(row[0]), row[1], row[2]): (row[3], row[4]) for row in found_rows}
    touched = 0
    clusters: set[int] = set()
    for each, found in resolve(wanted.keys()).items() if wanted else ():
        if (found.image_id, found.platform_id) == wanted[each]:
            continue
        same = rows.filter(digests=list(each.digests), reference=each.reference, arch=each.arch)
        clusters.update(same.values_list("cluster", flat=True))
        touched += same.update(
            image=found.image_id, platform=found.platform_id, digest=found.digest, repository=found.repository_id
        )
    for cluster in Cluster.objects.filter(pk__in=clusters):
        applying.refresh_images(cluster, clock.now())
    return touched


def rebind() -> int:
    """Bring the environments of what runs in line with the bindings of now; return how many rows changed."""
    changed = []
    rows = RunningImage.objects.filter(until=None).select_related("cluster").order_by("cluster")
    for cluster, group in groupby(rows, key=lambda row: row.cluster):
        running = list(group)
        environments = applying.environments_in(cluster, {row.namespace for row in running})
        for row in running:
            if row.environment_id != environments[row.namespace]:
                row.environment_id = environments[row.namespace]
                changed.append(row)
    RunningImage.objects.bulk_update(changed, ["environment"], batch_size=1000)
    return len(changed)


def forget_reporters(now: datetime) -> int:
    """End the containers of reporters that have not reported for long, and forget these; return how many."""
    gone = list(
        Reporter.objects.filter(seen_at__lt=now - FORGET_REPORTERS, ended_at=None).select_related("cluster")[:100]
    )
    for reporter in gone:
        with transaction.atomic():
            Cluster.objects.select_for_update(of=("self",), no_key=True).get(pk=reporter.cluster_id)
            applying.end_all(reporter)
    return len(gone)


def tidy(now: datetime) -> None:
    """Delete old reports, containers that ended long ago, and skeletons that no container has any more."""
    RuntimeReport.objects.filter(applied_at__isnull=False, received_at__lt=now - KEEP_REPORTS).delete()
    RunningContainer.objects.filter(until__lt=now - KEEP_CONTAINERS).delete()
    forget_reporters(now)
    forget_clusters(now)
    used = RunningContainer.objects.exclude(spec="").values("spec")
    templates = PodTemplate.objects.values("spec")
    PodSpec.objects.filter(seen_at__lt=now - KEEP_REPORTS).exclude(sha256__in=used).exclude(
        sha256__in=templates
    ).delete()
