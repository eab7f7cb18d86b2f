"""Estimate which advisories a rebuild would fix, from the packages of the old and the new base."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from django.db.models import Exists, OuterRef, Q, QuerySet

from lifecycle.evidence.findings import fixed_by_new_base, is_matching
from lifecycle.evidence.judgement import judgement_of
from lifecycle.lineage.models import Ancestry
from lifecycle.rebuild.graph import line_images, tags_of
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.registry.models import Image, IndexEntry
from lifecycle.registry.platforms import entries_of_images, platforms_of

WAVES_AT_ONCE: Final = 20


def estimate(wave: RebuildWave) -> None:
    """Store in each job the advisories that the new base would fix in the packages from the old base.

    Nothing is stored until the bases and the image are scanned and matched, because an unknown estimate is not an empty
    one. Packages that a recipe installs can change too, but these changes are unknown before the build. A few queries
    for each old base.
    """
    new = {image.platform: image for image in platforms_of(wave.new_base)}
    if not new or not all(image.scanned_at for image in new.values()) or is_matching([i.pk for i in new.values()]):
        return
    jobs = list(wave.jobs.filter(would_fix__isnull=True).select_related("old_image"))
    entries = entries_of_images(job.old_image for job in jobs)
    platform = {job.pk: next((entry.child for entry in entries[job.old_image_id]), job.old_image) for job in jobs}
    line = line_images(wave.repository, tags_of(wave.repository, wave.new_base)) - {image.pk for image in new.values()}
    above = Ancestry.objects.filter(descendant__in=[image.pk for image in platform.values()], ancestor__in=line)
    old: dict[int, int] = {}
    for row in above.order_by("depth", "-ancestor_id"):
        old.setdefault(row.descendant_id, row.ancestor_id)
    groups: dict[tuple[int, str], list[RebuildJob]] = defaultdict(list)
    for job in jobs:
        image = platform[job.pk]
        if image.pk in old and image.platform in new and image.scanned_at is not None:
            groups[old[image.pk], image.platform].append(job)
    before = Image.objects.in_bulk({key[0] for key in groups})
    for (base, name), members in groups.items():
        image_ids = {platform[job.pk].pk for job in members}
        if before[base].scanned_at is None or is_matching([base, *image_ids]):
            continue
        if not judgement_of(new[name]).package_count:  # nothing in it was recognised: it fixes nothing that is known
            continue
        fixed = fixed_by_new_base(image_ids, before[base], new[name])
        for job in members:
            job.would_fix = fixed[platform[job.pk].pk]
        RebuildJob.objects.bulk_update(members, ["would_fix"])


def note_of(job: RebuildJob) -> str:
    """Return the limits of the estimate in `would_fix`, as a sentence to show beside it; "" when it is complete."""
    if job.would_fix is None:
        return "Unknown until packages are recognised in the new base and in the image."
    if job.method == RebuildJob.Method.REBASE:
        return ""
    return "Packages that its own recipe installs can change as well. The build shows which."


def estimate_open() -> None:
    """Estimate open waves whose new base was not scanned when they were planned.

    In random order: a wave that still cannot be estimated must not delay the others.
    """
    open_states = (RebuildWave.State.PLANNED, RebuildWave.State.RUNNING)
    waves = RebuildWave.objects.filter(state__in=open_states, pk__in=_to_estimate().values("wave"))
    for wave in waves.order_by("?")[:WAVES_AT_ONCE]:
        estimate(wave)


def _to_estimate() -> QuerySet[RebuildJob]:
    """Return the jobs without an estimate that can be estimated now.

    All platforms of the new base must be scanned, and the image too. Its lineage must contain a scanned older image of
    the base: if only its recipe names the base, the packages from the base are unknown.
    """
    unscanned = IndexEntry.objects.filter(
        index=OuterRef("wave__new_base"), child__kind=Image.Kind.MANIFEST, child__scanned_at=None
    )
    is_index = Q(wave__new_base__kind=Image.Kind.INDEX) & ~Exists(unscanned)
    above = Ancestry.objects.filter(
        descendant__scanned_at__isnull=False,
        ancestor__scanned_at__isnull=False,
        ancestor__repository_images__repository=OuterRef("wave__repository"),
    )
    is_derived = Exists(above.filter(descendant=OuterRef("old_image"))) | Exists(
        above.filter(descendant__parents__index=OuterRef("old_image"))
    )
    # `would_fix=None` would match JSON's null; an unknown estimate is SQL's NULL.
    unknown = RebuildJob.objects.filter(is_derived, would_fix__isnull=True)
    return unknown.filter(Q(wave__new_base__scanned_at__isnull=False) | is_index)
