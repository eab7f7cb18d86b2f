"""Accept reports: check the right and the order, store them, and queue the job that applies them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import BigIntegerField, Func, Sum

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.clusters.access import cluster_for
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.inventory.constants import (
    BOOTS_MAX,
    CLOCK_AHEAD_MAX,
    OBSERVED_MAX,
    PENDING_MAX,
    REPORTERS_MAX,
    WAITING_MAX_BYTES,
)
from lifecycle.inventory.models import Reporter, RuntimeReport
from lifecycle.jobs import services as jobs
from lifecycle.runtime.formats import FORMATS, read_format
from lifecycle.runtime.kinds import REPORT
from lifecycle.runtime.reports import inflate, read_header, read_json, too_large
from lifecycle.runtime.types import REPORT_MAX_BYTES, Header, ReportGap, ReportOutOfOrder, ReportsWaiting, Sent

BEHIND = "The reporter's time is more than an hour ago: one hour ago is stored."
AHEAD = "The reporter's clock is more than 5 minutes ahead: our time is stored."


def accept(
    slug: str, body: bytes, *, actor: User, is_gzip: bool = False, form: str = "", key: str = "", reporter: str = ""
) -> RuntimeReport:
    """Store a report of a cluster and queue its job; return the row. The same `report_id` returns the same row.

    `form` names the tool whose output it is (FORMATS); `key` is its id then. Raises NotFound, NotPermitted, Malformed,
    LimitExceeded, ReportOutOfOrder, ReportGap.
    """
    cluster = cluster_for(actor, slug, verb=Verb.RUNTIME_REPORT)
    document = read_json(inflate(body) if is_gzip else _bounded(body))
    now = clock.now()
    header = _header_of(document, form, key, reporter, now) if form else read_header(document)
    del document  # up to ten times the body
    try:
        return _store(cluster, header, body, now, actor=actor, is_gzip=is_gzip, form=form)
    except ReportOutOfOrder as refused:
        if refused.details.pop("is_doubled", False):
            Reporter.objects.filter(cluster=cluster, name=header.reporter).update(doubled_at=now)
        raise


def _bounded(body: bytes) -> bytes:
    if len(body) > REPORT_MAX_BYTES:
        raise too_large()
    return body


def _header_of(document: Any, form: str, key: str, reporter: str, now: datetime) -> Header:
    """Return the envelope of another tool's output: a full report of now, of a reporter that never boots."""
    if form not in FORMATS:
        raise Malformed(f"format: choose one of {', '.join(FORMATS)}.", field="format")
    if len(reporter) > 253 or not reporter.isprintable():
        raise Malformed("reporter: enter at most 253 characters.", field="reporter")
    read_format(document, form)  # raises: whoever sends another document is told at once
    return Header(key or str(uuid.uuid4()), form, 0, Sent.FULL, now, reporter or form)


@transaction.atomic
def _store(
    cluster: Cluster, header: Header, body: bytes, now: datetime, *, actor: User, is_gzip: bool, form: str
) -> RuntimeReport:
    # One report of a cluster at a time.
    cluster = Cluster.objects.select_for_update(of=("self",), no_key=True).get(pk=cluster.pk)
    if cluster.ended_at is not None:  # deleted meanwhile
        raise NotFound("Cluster not found, or you don't have access.")
    known = RuntimeReport.objects.filter(cluster=cluster, report_id=header.report_id).first()
    if known is not None:
        return known
    row = Reporter.objects.filter(cluster=cluster, name=header.reporter).first()
    if row is None:
        if Reporter.objects.filter(cluster=cluster).count() >= REPORTERS_MAX:
            raise ReportsWaiting(f"A cluster has at most {REPORTERS_MAX} reporters. Give each host one name.")
        row = Reporter(cluster=cluster, name=header.reporter, boot="", sequence=-1, first_at=now, is_import=bool(form))
    sequence = row.sequence + 1 if form else header.sequence
    if not form:
        _check_order(row, header, now)
    if row.pk is not None and row.reports.filter(applied_at=None).count() >= PENDING_MAX:
        raise ReportsWaiting(f"{PENDING_MAX} reports of this reporter wait to be applied. Send again later.")
    waiting = RuntimeReport.objects.filter(cluster=cluster, applied_at=None, body__isnull=False)
    held = waiting.aggregate(size=Sum(Func("body", function="octet_length", output_field=BigIntegerField())))["size"]
    if (held or 0) + len(body) > WAITING_MAX_BYTES:
        raise ReportsWaiting("Too much of this cluster waits to be applied. Send again later.")
    if row.boot != header.boot:
        row.former_boots = [boot for boot in (row.boot, *row.former_boots) if boot][:BOOTS_MAX]
        row.boot = header.boot
    row.sequence, row.seen_at, row.ended_at = sequence, now, None
    if header.kind == Sent.FULL:
        row.full_at = now
    if header.bundle_sha256 is not None and header.bundle_sha256 != row.bundle_sha256:
        row.bundle_sha256, row.bundle_at = header.bundle_sha256, now
    row.save()
    warning = AHEAD if header.observed_at > now + CLOCK_AHEAD_MAX else ""
    warning = BEHIND if header.observed_at < now - OBSERVED_MAX else warning
    is_heartbeat = header.kind == Sent.HEARTBEAT
    report = RuntimeReport.objects.create(
        reporter=row, cluster=cluster, report_id=header.report_id, kind=header.kind, format=form, boot=header.boot,
        sequence=sequence, observed_at=max(min(header.observed_at, now), now - OBSERVED_MAX), received_at=now,
        warning=warning,
        body=None if is_heartbeat else body, is_gzip=is_gzip, applied_at=now if is_heartbeat else None,
    )  # fmt: skip
    if not is_heartbeat:
        report.job = jobs.queue(REPORT, subject_id=row.pk, actor=actor, dedupe_key=str(row.pk))
        report.save(update_fields=["job"])
    return report


def _check_order(row: Reporter, header: Header, now: datetime) -> None:
    if header.boot in row.former_boots:
        raise ReportOutOfOrder(
            "Another agent with the same reporter's name started later. Stop one of them, or give it another name.",
            is_doubled=True,
        )
    if header.boot == row.boot:
        if header.sequence <= row.sequence:
            raise ReportOutOfOrder(
                f"Report {row.sequence} is here already. Send a full report with a higher sequence.",
                sequence=row.sequence,
            )
        if header.kind != Sent.FULL and header.sequence != row.sequence + 1:
            raise ReportGap(
                f"Report {row.sequence + 1} is missing. Send a full report.", sequence=row.sequence, wanted="full"
            )
    elif header.kind != Sent.FULL:
        raise ReportGap("The reporter started anew. Send a full report first.", wanted="full")


def answer_of(report: RuntimeReport) -> Mapping[str, Any]:
    """Return what the sender of a report is told, the same each time."""
    return {
        "report_id": report.report_id,
        "kind": report.kind,
        "sequence": report.sequence,
        "job": report.job_id,
        "warning": report.warning,
    }
