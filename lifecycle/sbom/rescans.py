"""Scans again where that gives more: a newer syft, an image from before a check existed, or a scan that met a limit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.core.cache import cache
from django.db import transaction

from accounts.queries import system_user
from lifecycle import versions
from lifecycle.core import clock
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.sbom.kinds import SCAN
from lifecycle.sbom.models import ContentCheck, ImageLicences, Sbom
from lifecycle.sbom.secret_rules import secret_rules

LOOKED_AT: Final = 2000  # images of one round; a lap over a million takes eight hours
WAITING_MAX: Final = 10  # new images come first: no round while more scans than this wait
QUIET: Final = timedelta(days=7)  # an image whose scan was asked for in this time is left alone
LIMITED: Final = timedelta(days=30)  # a scan that met a limit is tried again after this time
_CURSOR: Final = "sbom-rescans"  # a lost cursor only starts the lap again
_TOOL: Final = "syft "
_FORMAT: Final = "syft-json"


@dataclass(frozen=True, slots=True)
class Scan:
    """What is known of the last scan of an image."""

    image_id: int
    tool: str
    is_old: bool  # older than LIMITED
    problem: str
    check_problem: str | None  # None: the files were not checked
    rules_version: int
    has_licences: bool


def queue_rescans() -> int:
    """Queue a few scans that would give more, oldest images first; return their number.

    Each round looks at the next images and stops at RESCANS_AT_ONCE of them.
    """
    most = settings.RESCANS_AT_ONCE
    waiting = Job.objects.filter(kind=SCAN.name, state=Job.State.WAITING).count()
    if not most or waiting > WAITING_MAX:
        return 0
    images = Image.objects.filter(kind=Image.Kind.MANIFEST, pk__gt=cache.get(_CURSOR) or 0).order_by("pk")
    ids = list(images.values_list("pk", flat=True)[:LOOKED_AT])
    queued = 0
    last = ids[-1] if len(ids) == LOOKED_AT else 0  # the lap ends, and begins again
    newest = newest_tool()
    with transaction.atomic():
        for scan in scans_of(ids):
            why = why_again(scan, newest)
            if not why:
                continue
            if queued == most:
                last = scan.image_id - 1
                break
            jobs.queue(
                SCAN,
                subject_id=scan.image_id,
                actor=system_user(),
                payload={"again": True, "why": why},
                dedupe_key=f"image:{scan.image_id}",
            )
            queued += 1
    cache.set(_CURSOR, last, timeout=None)
    return queued


def newest_tool() -> str:
    """Return the version of syft that made the newest scan, "" without one: the ticker itself may have no syft."""
    tool = Sbom.objects.filter(format=_FORMAT, tool__startswith=_TOOL).order_by("-pk").values_list("tool", flat=True)
    return (tool.first() or "").removeprefix(_TOOL)


def scans_of(image_ids: Collection[int]) -> Iterable[Scan]:
    """Return the last scan of each of these images that a registry of ours holds, by image id; six queries.

    Imports and images that are not scanned are left out, and images whose scan was asked for lately.
    """
    sboms = {
        row.image_id: row
        for row in Sbom.objects.filter(image__in=image_ids, format=_FORMAT, image__scanned_at__isnull=False)
        .defer("document")
        .order_by("image", "-pk")
        .distinct("image")
    }
    places = RepositoryImage.objects.filter(image__in=sboms, removed_at=None).select_related("repository__registry")
    held = {place.image_id for place in places if place.repository.registry.is_ours}
    asked = set(
        Job.objects.filter(kind=SCAN.name, subject_id__in=held, created_at__gt=clock.now() - QUIET).values_list(
            "subject_id", flat=True
        )
    )
    wanted = sorted(held - asked)
    checks = {check.image_id: check for check in ContentCheck.objects.filter(image__in=wanted)}
    licensed = set(ImageLicences.objects.filter(image__in=wanted).values_list("image", flat=True))
    problems = dict(Image.objects.filter(pk__in=wanted).values_list("pk", "scan_problem"))
    for pk in wanted:
        check = checks.get(pk)
        yield Scan(
            image_id=pk,
            tool=sboms[pk].tool.removeprefix(_TOOL),
            is_old=sboms[pk].created_at < clock.now() - LIMITED,
            problem=problems.get(pk, ""),
            check_problem=check.problem if check is not None else None,
            rules_version=check.rules_version if check is not None else 0,
            has_licences=pk in licensed,
        )


def why_again(scan: Scan, newest: str) -> str:
    """Return why another scan of the image gives more, in words; "" if it does not."""
    if is_newer(newest, scan.tool):
        return f"syft {newest} sees more than syft {scan.tool}"
    if scan.check_problem is None or not scan.has_licences:
        return "it was scanned before files and licences were looked at"
    if scan.rules_version < secret_rules().version:
        return "there are newer rules for secrets"
    if scan.is_old and (scan.problem or scan.check_problem):
        return f"the last scan met a limit: {scan.problem or scan.check_problem}"[:300]
    return ""


def is_newer(one: str, other: str) -> bool:
    """Return whether the version `one` of syft is after `other`. What cannot be compared is not newer."""
    try:
        return versions.compare("semver", one, other) > 0
    except ValueError:
        return False
