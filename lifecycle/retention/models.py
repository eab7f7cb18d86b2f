"""Retention rules, plans, and what became of each digest of a plan."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import Team, User
from lifecycle.registry.models import Image, Repository


class RetentionRules(models.Model):
    """What a team or one of its repositories keeps. Rules of a repository replace those of its team."""

    team = models.OneToOneField(Team, on_delete=models.CASCADE, related_name="+", null=True)
    repository = models.OneToOneField(Repository, on_delete=models.CASCADE, related_name="+", null=True)
    keep_last = models.PositiveIntegerField(null=True)
    keep_days = models.PositiveIntegerField(null=True)
    tags: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=128), default=list)
    untagged_days = models.PositiveIntegerField(null=True)
    revision = models.PositiveIntegerField(default=1)
    changed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    changed_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "retention rules"
        constraints = (
            models.CheckConstraint(
                condition=Q(team=None, repository__isnull=False) | Q(team__isnull=False, repository=None),
                name="retentionrules_of_team_or_repository",
            ),
        )

    def __str__(self) -> str:
        return f"retention rules {self.pk}"


class RetentionPlan(models.Model):
    """What the rules would delete, as it was judged once."""

    class State(models.TextChoices):
        PLANNED = "planned"
        REPLACED = "replaced"  # it was old or something had changed: `replaced_by`
        DELETING = "deleting"
        DONE = "done"
        FAILED = "failed"  # the registry refused; `failure`

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "planned": frozenset({"replaced", "deleting"}),
        "deleting": frozenset({"done", "failed"}),
    }

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="retention_plans")
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+", null=True)  # null: all
    state = models.CharField(max_length=8, choices=State, default=State.PLANNED)
    accept_unknown_runtime = models.BooleanField(default=False)
    fingerprint = models.CharField(max_length=64)  # of what it deletes
    keep_count = models.PositiveIntegerField()
    delete_count = models.PositiveIntegerField()
    deleted_bytes = models.BigIntegerField()  # blobs of the images to delete, each once
    freed_bytes = models.BigIntegerField()  # those that no other image has
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField()
    confirmed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    confirmed_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    failure = models.TextField(blank=True)
    replaced_by = models.ForeignKey("self", on_delete=models.SET_NULL, related_name="+", null=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=("planned", "replaced"), confirmed_at=None)
                | Q(state__in=("deleting", "done", "failed"), confirmed_at__isnull=False),
                name="retentionplan_confirmed_exactly_when_it_deletes",
            ),
        )
        indexes = (models.Index(fields=("team", "-id"), name="retentionplan_newest_first"),)

    def __str__(self) -> str:
        return f"RP-{self.pk}"


class RetentionEntry(models.Model):
    """One digest of a plan in one repository."""

    class State(models.TextChoices):
        KEEP = "keep"
        DELETE = "delete"  # planned, or still to do
        DELETED = "deleted"
        KEPT = "kept"  # judged again before its deletion, and kept
        RESTORED = "restored"
        LOST = "lost"  # it could not be restored: `note`

    plan = models.ForeignKey(RetentionPlan, on_delete=models.CASCADE, related_name="entries", db_index=False)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=8, choices=State)
    tags: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=128), default=list)  # when it was judged last
    reasons: models.JSONField[Any, Any] = models.JSONField(default=list)  # [[code, text]]
    size_bytes = models.BigIntegerField()
    freed_bytes = models.BigIntegerField(default=0)
    deleted_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name_plural = "retention entries"
        constraints = (
            models.UniqueConstraint(fields=("plan", "repository", "image"), name="retentionentry_once_per_plan"),
        )
        indexes = (models.Index(fields=("plan", "state", "id"), name="retentionentry_by_state"),)

    def __str__(self) -> str:
        return f"{self.state} {self.image}"
