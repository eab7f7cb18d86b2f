"""Promotion requests, votes and evaluations: fields, constraints and allowed state changes."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from accounts.models import User
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Image, Repository


class PromotionRequest(models.Model):
    """A request to promote one image, identified by digest, to one environment."""

    class State(models.TextChoices):
        OPEN = "open"
        READY = "ready"
        EXECUTING = "executing"
        VERIFYING = "verifying"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        REJECTED = "rejected"
        WITHDRAWN = "withdrawn"
        EXPIRED = "expired"
        SUPERSEDED = "superseded"

    class Kind(models.TextChoices):
        FORWARD = "forward"
        ROLLBACK = "rollback"
        REBUILD_REFRESH = "rebuild-refresh"
        BREAK_GLASS = "break-glass"

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "open": frozenset({"ready", "rejected", "withdrawn", "expired", "superseded"}),
        "ready": frozenset({"open", "executing", "rejected", "withdrawn", "expired", "superseded"}),
        "executing": frozenset({"verifying", "ready", "failed"}),
        "verifying": frozenset({"succeeded", "ready", "failed"}),
    }

    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="promotion_requests")
    repository = models.ForeignKey(
        Repository, on_delete=models.PROTECT, related_name="promotion_requests"
    )  # the source repository
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="promotion_requests")
    source_environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="+", null=True)
    tag = models.CharField(max_length=128)  # tag in the target, in addition to `current`
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.FORWARD)
    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="promotion_requests")
    reason = models.TextField()
    idempotency_key = models.CharField(max_length=200, blank=True)
    approve_by = models.DateTimeField()
    execute_by = models.DateTimeField(null=True, blank=True)
    executed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    failure = models.TextField(blank=True)  # why it failed, or why it returned to ready
    attempts = models.IntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)  # when it became ready, was rejected or was withdrawn
    finished_at = models.DateTimeField(null=True, blank=True)
    judged_at = models.DateTimeField(null=True, blank=True)  # time of the last evaluation; null: due now
    seen_at = models.DateTimeField(null=True, blank=True)  # when the requester saw how it ended

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("image", "repository", "environment"),
                condition=Q(state__in=("open", "ready", "executing", "verifying")),
                name="promotion_one_open_per_image_and_target",
            ),
            models.UniqueConstraint(
                fields=("repository", "environment"),
                condition=Q(state__in=("executing", "verifying")),
                name="promotion_one_executing_per_slot",
            ),
            models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("open", "ready", "executing", "verifying"))
                | Q(
                    finished_at__isnull=False,
                    state__in=("succeeded", "failed", "rejected", "withdrawn", "expired", "superseded"),
                ),
                name="promotion_finished_exactly_when_final",
            ),
        )
        indexes = (
            models.Index(fields=("state", "-id"), name="promotion_by_state"),
            models.Index(fields=("repository", "environment", "-id"), name="promotion_by_slot"),
            models.Index(fields=("requested_by", "-id"), name="promotion_by_requester"),
            models.Index(
                fields=("judged_at",), condition=Q(state__in=("open", "ready")), name="promotion_live_by_judgement"
            ),
        )

    def __str__(self) -> str:
        return f"PR-{self.pk}"

    @property
    def is_final(self) -> bool:
        return self.state not in self.NEXT


class Vote(models.Model):
    """The vote of one person on a request, bound to the evaluation that the person saw."""

    class Value(models.TextChoices):
        APPROVE = "approve"
        REJECT = "reject"

    class Via(models.TextChoices):
        WEB = "web"
        API = "api"

    request = models.ForeignKey(PromotionRequest, on_delete=models.CASCADE, related_name="votes")
    voter = models.ForeignKey(User, on_delete=models.PROTECT, related_name="votes")
    value = models.CharField(max_length=8, choices=Value)
    comment = models.TextField(blank=True)
    digest = models.CharField(max_length=135)
    evaluation = models.ForeignKey("Evaluation", on_delete=models.PROTECT, related_name="votes", null=True)
    via = models.CharField(max_length=4, choices=Via, default=Via.WEB)
    at = models.DateTimeField(auto_now_add=True)
    # Set when the image got worse after the vote. The vote stays on record but no longer counts.
    lapsed_at = models.DateTimeField(null=True, blank=True)
    lapse_reason = models.TextField(blank=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("request", "voter"), name="vote_once_per_request_and_voter"),)

    def __str__(self) -> str:
        return f"{self.voter} {self.value}s {self.request}"


class Evaluation(models.Model):
    """All requirements of a request, as evaluated at one moment, with their inputs; append-only.

    `inputs` is the evidence for voters: `digest`, `environment`, `tag`, `holds` (the digest in the target at that time,
    or null) and `findings`. `findings` is null while the packages are unknown or being matched, else
    {open, fixed, new, severe: ["advisory package"], unjudged, without_packages}: numbers of advisories, of packages
    that could not be judged, and of platforms in which no package was recognised.
    """

    request = models.ForeignKey(PromotionRequest, on_delete=models.CASCADE, related_name="evaluations")
    requirements: models.JSONField[Any, Any] = models.JSONField()  # policy.types.Requirement, one object each
    inputs: models.JSONField[Any, Any] = models.JSONField(default=dict)
    digest = models.CharField(max_length=71)  # sha256 of the canonical JSON of both
    is_satisfied = models.BooleanField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (models.Index(fields=("request", "-id"), name="evaluation_newest_first"),)

    def __str__(self) -> str:
        return f"{self.request} at {self.at:%Y-%m-%d %H:%M}"
