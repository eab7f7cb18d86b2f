"""Jobs and their logs. PostgreSQL stores all state; a Celery message contains only a job's id."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from accounts.models import User
from lifecycle.core import clock


class Job(models.Model):
    """A piece of work. Workers claim it with SKIP LOCKED and hold it by a lease. Each claim increases its fence."""

    class State(models.TextChoices):
        WAITING = "waiting"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    # The whole state machine. A state without a key is final. A running job runs again when its lease expires.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "waiting": frozenset({"running", "failed", "cancelled"}),
        "running": frozenset({"running", "waiting", "succeeded", "failed", "cancelled"}),
    }

    kind = models.CharField(max_length=12)  # the name of a Kind (kinds.py)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    subject_id = models.BigIntegerField()  # id of the row that the job is about; the kind determines the table
    payload: models.JSONField[Any, Any] = models.JSONField(default=dict)  # ids and names, never secrets
    # The job runs on behalf of this user. The job checks the user's rights again.
    actor = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    priority = models.SmallIntegerField(default=0)  # higher first
    dedupe_key = models.CharField(max_length=255, blank=True)  # at most one waiting job has this key
    not_before = models.DateTimeField(null=True, blank=True)
    attempts = models.IntegerField(default=0)
    max_attempts = models.IntegerField(default=5)
    fence = models.BigIntegerField(default=0)  # increases with every claim
    lease_until = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=120, blank=True)
    progress_done = models.BigIntegerField(default=0)
    progress_total = models.BigIntegerField(null=True, blank=True)
    progress_text = models.CharField(max_length=300, blank=True)
    error_code = models.CharField(max_length=80, blank=True)
    last_error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    hinted_at = models.DateTimeField(null=True, blank=True)  # time of the last wake-up from the sweep

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("kind", "dedupe_key"),
                condition=Q(state="waiting") & ~Q(dedupe_key=""),
                name="job_one_waiting_per_dedupe_key",
            ),
            models.CheckConstraint(
                condition=Q(state="running", lease_until__isnull=False) | (~Q(state="running") & Q(lease_until=None)),
                name="job_leased_exactly_when_running",
            ),
            models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("waiting", "running"))
                | Q(finished_at__isnull=False, state__in=("succeeded", "failed", "cancelled")),
                name="job_finished_exactly_when_final",
            ),
        )
        indexes = (
            models.Index(fields=("-priority", "id"), condition=Q(state="waiting"), name="job_waiting"),
            models.Index(fields=("lease_until",), condition=Q(state="running"), name="job_running_by_lease"),
            models.Index(fields=("kind", "subject_id", "-id"), name="job_by_subject"),
            models.Index(fields=("kind", "subject_id"), condition=Q(state="failed"), name="job_failed"),
            models.Index(fields=("actor", "-id"), name="job_by_actor"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def is_final(self) -> bool:
        return self.state not in self.NEXT

    @property
    def duration_s(self) -> float | None:
        """Seconds from the first start to the end, or to now; None for a job that did not start."""
        if self.started_at is None:
            return None
        return ((self.finished_at or clock.now()) - self.started_at).total_seconds()


class JobLogLine(models.Model):
    """A line of a job's log, for people: plain text, no control characters, no secrets."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="log_lines")
    at = models.DateTimeField(auto_now_add=True)
    text = models.CharField(max_length=2000)

    class Meta:
        indexes = (models.Index(fields=("job", "id"), name="joblogline_in_order"),)

    def __str__(self) -> str:
        return self.text


class ScheduleSlot(models.Model):
    """A due time of a schedule. The ticker that inserts the row first runs the schedule."""

    schedule = models.CharField(max_length=60)
    slot = models.BigIntegerField()  # seconds since 1970 divided by the schedule's period
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("schedule", "slot"), name="scheduleslot_fires_once"),)

    def __str__(self) -> str:
        return f"{self.schedule} {self.slot}"
