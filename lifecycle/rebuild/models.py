"""Recipes, the switch of the embedded builder, watched bases, and rebuild waves with their jobs."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import Team, User
from lifecycle.registry.models import Image, Repository


class Recipe(models.Model):
    """One revision of a repository's build recipe. Append-only; the highest revision is the current one."""

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="recipes")
    revision = models.IntegerField()
    containerfile = models.TextField()
    context_digest = models.CharField(max_length=135, blank=True)  # an OCI artifact in the same repository; "" for none
    build_args: models.JSONField[Any, Any] = models.JSONField(default=dict)
    base_references: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=500), default=list)  # as written
    tag = models.CharField(max_length=128, default="latest")  # the tag that a rebuild moves
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("repository", "revision"), name="recipe_once_per_revision"),)

    def __str__(self) -> str:
        return f"{self.repository} recipe {self.revision}"


class BuilderPermit(models.Model):
    """Turns the embedded builder on for one repository, or for all repositories of a team. Without a row it is off."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE, related_name="builder_permit", null=True)
    repository = models.OneToOneField(Repository, on_delete=models.CASCADE, related_name="builder_permit", null=True)
    turned_on_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    turned_on_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(team=None, repository__isnull=False) | Q(team__isnull=False, repository=None),
                name="builderpermit_for_a_team_or_a_repository",
            ),
        )

    def __str__(self) -> str:
        return f"builder for {self.repository or self.team}"


class UpstreamWatch(models.Model):
    """A base tag. Each time it moves, a rebuild of its derived images is proposed."""

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="watches")
    tag = models.CharField(max_length=128)
    last_digest = models.CharField(max_length=135, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "upstream watches"
        constraints = (models.UniqueConstraint(fields=("repository", "tag"), name="upstreamwatch_once_per_tag"),)

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


class RebuildWave(models.Model):
    """A plan and its execution: all images derived from a changed base, level by level."""

    class State(models.TextChoices):
        PLANNED = "planned"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"  # finished, and at least one image failed or is blocked
        CANCELLED = "cancelled"

    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "planned": frozenset({"running", "cancelled"}),
        "running": frozenset({"succeeded", "failed", "cancelled"}),
        "failed": frozenset({"running"}),  # retry of the failed jobs
    }

    repository = models.ForeignKey(Repository, on_delete=models.PROTECT, related_name="waves")  # the base's
    old_base = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+", null=True)
    new_base = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=State, default=State.PLANNED)
    trigger = models.CharField(max_length=20, default="manual")  # manual, watch
    planned_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    confirmed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    skipped: models.JSONField[Any, Any] = models.JSONField(default=list)  # [{repository, reason}]
    created_at = models.DateTimeField(auto_now_add=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("planned", "running"))
                | Q(finished_at__isnull=False, state__in=("succeeded", "failed", "cancelled")),
                name="rebuildwave_finished_exactly_when_ended",
            ),
            models.CheckConstraint(
                condition=Q(state="planned", confirmed_by=None)
                | Q(state="cancelled")
                | Q(confirmed_by__isnull=False, state__in=("running", "succeeded", "failed")),
                name="rebuildwave_confirmed_before_it_runs",
            ),
        )
        indexes = (models.Index(fields=("-id",), name="rebuildwave_newest_first"),)

    def __str__(self) -> str:
        return f"W-{self.pk}"


class RebuildJob(models.Model):
    """One image of a wave: its old state, the method to update it, and the result."""

    class State(models.TextChoices):
        WAITING = "waiting"  # waits for its parents, or for a worker
        BUILDING = "building"
        SCANNING = "scanning"  # pushed and ingested, its packages are not known yet
        DONE = "done"
        UNCHANGED = "unchanged"  # nothing to do: the same digest, or the tag was moved by another user (method_reason)
        FAILED = "failed"
        BLOCKED = "blocked"  # a parent failed
        CANCELLED = "cancelled"

    class Method(models.TextChoices):
        REBASE = "rebase"
        BUILD = "build"

    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "waiting": frozenset({"building", "blocked", "cancelled"}),
        "building": frozenset({"waiting", "scanning", "unchanged", "failed", "cancelled"}),
        "scanning": frozenset({"done", "unchanged", "failed", "cancelled"}),
        "failed": frozenset({"waiting"}),
        "blocked": frozenset({"waiting"}),
    }

    wave = models.ForeignKey(RebuildWave, on_delete=models.CASCADE, related_name="jobs")
    repository = models.ForeignKey(Repository, on_delete=models.PROTECT, related_name="rebuild_jobs")
    level = models.IntegerField()  # 1: built on the changed base
    parents: models.ManyToManyField[RebuildJob, Any] = models.ManyToManyField(
        "self", symmetrical=False, related_name="children"
    )
    old_image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    new_image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+", null=True)
    recipe = models.ForeignKey(Recipe, on_delete=models.PROTECT, related_name="+", null=True)
    tag = models.CharField(max_length=128)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    method = models.CharField(max_length=6, choices=Method, blank=True)  # as planned, then as executed
    method_reason = models.TextField(blank=True)  # why a rebase is safe, or not
    node_id = models.CharField(max_length=71, blank=True)  # hash of all inputs and the wave: built once
    attempts = models.IntegerField(default=0)
    problem = models.TextField(blank=True)
    would_fix: models.JSONField[Any, Any] = models.JSONField(null=True)  # advisory ids by estimates.py; null: unknown
    still_open: models.JSONField[Any, Any] = models.JSONField(
        default=list
    )  # the advisories of would_fix that still affect the result
    findings_before = models.IntegerField(null=True)
    findings_after = models.IntegerField(null=True)
    fixed: models.JSONField[Any, Any] = models.JSONField(default=list)  # advisory ids
    introduced: models.JSONField[Any, Any] = models.JSONField(default=list)
    remaining_count = models.IntegerField(null=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("level", "id")
        constraints = (
            models.UniqueConstraint(
                fields=("wave", "repository", "old_image"), name="rebuildjob_once_per_wave_and_image"
            ),
            models.UniqueConstraint(
                fields=("wave", "node_id"), condition=~Q(node_id=""), name="rebuildjob_no_node_twice_in_a_wave"
            ),
            models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("waiting", "building", "scanning"))
                | Q(finished_at__isnull=False, state__in=("done", "unchanged", "failed", "blocked", "cancelled")),
                name="rebuildjob_finished_exactly_when_ended",
            ),
            models.CheckConstraint(
                condition=Q(new_image__isnull=False) | ~Q(state__in=("scanning", "done", "unchanged")),
                name="rebuildjob_result_has_an_image",
            ),
        )

    def __str__(self) -> str:
        return f"{self.wave} {self.repository}"

    @property
    def has_new_image(self) -> bool:
        """Whether the job ended with a different image, so that derived images must be rebuilt."""
        return self.new_image_id is not None and self.new_image_id != self.old_image_id
