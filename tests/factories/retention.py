"""Retention plans."""

from __future__ import annotations

from accounts.models import Team, User
from lifecycle.core import clock
from lifecycle.registry.models import Image, Repository, RepositoryImage
from lifecycle.retention import services
from lifecycle.retention.models import RetentionEntry, RetentionPlan


def deleted_plan(team: Team, image: Image, where: Repository, *, by: User) -> RetentionPlan:
    """Return a plan that is done, and deleted one image."""
    now = clock.now()
    plan: RetentionPlan = RetentionPlan.objects.create(
        team=team, state="done", fingerprint="0" * 64, keep_count=0, delete_count=1, deleted_bytes=1, freed_bytes=1,
        created_by=by, created_at=now, confirmed_by=by, confirmed_at=now, finished_at=now,
    )  # fmt: skip
    RetentionEntry.objects.create(
        plan=plan, repository=where, image=image, state="deleted", reasons=[["untagged", "Without a tag for 9 days."]],
        size_bytes=1, freed_bytes=1, deleted_at=now,
    )  # fmt: skip
    return plan


def waiting_plan(where: Repository, loose: Image, *, by: User) -> RetentionPlan:
    """Return a plan that would delete `loose`, an image without a tag; the only plan there is."""
    RetentionPlan.objects.all().delete()
    RepositoryImage.objects.create(repository=where, image=loose)
    services.save_rules(actor=by, repository=where.pk, revision=None, untagged_days=0)
    return services.make_plan(actor=by, repository=where.pk)
