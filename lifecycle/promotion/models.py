"""Promotion requests, votes and evaluations: fields, constraints and allowed state changes."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.db import models
from django.db.models import Q

from accounts.models import User
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Image, Repository


class ReleaseSet(models.Model):
    """Requests for several repositories and one environment that are decided and run as one: all of them, or none."""

    class State(models.TextChoices):
        OPEN = "open"
        READY = "ready"  # all members are
        EXECUTING = "executing"
        REVERTING = "reverting"  # a member failed: what was changed in the targets is put back
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        REJECTED = "rejected"
        WITHDRAWN = "withdrawn"
        EXPIRED = "expired"
        SUPERSEDED = "superseded"

    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "open": frozenset({"ready", "rejected", "withdrawn", "expired", "superseded"}),
        "ready": frozenset({"open", "executing", "rejected", "withdrawn", "expired", "superseded"}),
        "executing": frozenset({"succeeded", "reverting"}),
        "reverting": frozenset({"ready", "failed"}),
    }

    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="release_sets")
    size = models.PositiveSmallIntegerField()  # number of members
    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="release_sets")
    reason = models.TextField()
    approve_by = models.DateTimeField()
    # Of all members: theirs is null, because a member can be ready long before the set.
    execute_by = models.DateTimeField(null=True, blank=True)
    window_paused_at = models.DateTimeField(null=True, blank=True)  # as of a request
    executed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    failure = models.TextField(blank=True)  # why it failed, is put back, or returned to ready
    can_retry = models.BooleanField(default=False)  # while it is put back: ready again afterwards, not failed
    # {member id: {tag: digest before this run, or null for a tag that was not there}}, written before the first tag
    # moves; {} when no tag was moved.
    former: models.JSONField[Any, Any] = models.JSONField(default=dict)
    attempts = models.IntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)  # when the requester saw how it ended
    reminded_of = models.CharField(max_length=8, blank=True)  # as of a request

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(finished_at=None, state__in=("open", "ready", "executing", "reverting"))
                | Q(
                    finished_at__isnull=False,
                    state__in=("succeeded", "failed", "rejected", "withdrawn", "expired", "superseded"),
                ),
                name="releaseset_finished_exactly_when_final",
            ),
            models.CheckConstraint(condition=Q(size__gte=2), name="releaseset_has_members"),
        )
        indexes = (
            models.Index(fields=("state", "-id"), name="releaseset_by_state"),
            models.Index(fields=("requested_by", "-id"), name="releaseset_by_requester"),
        )

    def __str__(self) -> str:
        return f"RS-{self.pk}"

    @property
    def is_final(self) -> bool:
        return self.state not in self.NEXT


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
    # The set that this request is part of. It is then decided and run only with the set.
    release_set = models.ForeignKey(ReleaseSet, on_delete=models.PROTECT, related_name="members", null=True)
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="promotion_requests")
    reason = models.TextField()
    idempotency_key = models.CharField(max_length=200, blank=True)
    approve_by = models.DateTimeField()
    execute_by = models.DateTimeField(null=True, blank=True)
    # When `execute_by` was moved behind a closed window. That happens once; null: not yet.
    window_paused_at = models.DateTimeField(null=True, blank=True)
    # Set when the copy is complete and something else must verify it: until when. null: not, or not yet.
    verify_by = models.DateTimeField(null=True, blank=True)
    executed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    failure = models.TextField(blank=True)  # why it failed, or why it returned to ready
    attempts = models.IntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)  # when it became ready, was rejected or was withdrawn
    finished_at = models.DateTimeField(null=True, blank=True)
    judged_at = models.DateTimeField(null=True, blank=True)  # time of the last evaluation; null: due now
    seen_at = models.DateTimeField(null=True, blank=True)  # when the requester saw how it ended
    reminded_of = models.CharField(max_length=8, blank=True)  # the last deadline with a reminder: approval or run
    # The newer request that replaces this one, and when: a person's request gets notice first.
    superseded_by = models.ForeignKey("self", on_delete=models.PROTECT, related_name="+", null=True)
    supersede_at = models.DateTimeField(null=True, blank=True)

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


# Kinds that bring an image further along the path. Rollback and break-glass go their own ways, and first.
MOVES_ON: Final = frozenset({PromotionRequest.Kind.FORWARD, PromotionRequest.Kind.REBUILD_REFRESH})


class ReviewDebt(models.Model):
    """A use of break-glass that another person must still review: what it bypassed, and what the review said."""

    class Outcome(models.TextChoices):
        JUSTIFIED = "justified"
        UNJUSTIFIED = "unjustified"

    request = models.OneToOneField(PromotionRequest, on_delete=models.PROTECT, related_name="debt")
    incident = models.CharField(max_length=200)
    bypassed: models.JSONField[Any, Any] = models.JSONField(default=list)  # titles; [] when all requirements were met
    due_at = models.DateTimeField()
    reminded_at = models.DateTimeField(null=True, blank=True)  # when the audit log said that it is overdue
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    outcome = models.CharField(max_length=12, choices=Outcome, blank=True)
    comment = models.TextField(blank=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(settled_at=None, settled_by=None, outcome="")
                | Q(settled_at__isnull=False, settled_by__isnull=False, outcome__in=("justified", "unjustified")),
                name="reviewdebt_settled_by_somebody_with_an_outcome",
            ),
        )
        indexes = (models.Index(fields=("due_at",), condition=Q(settled_at=None), name="reviewdebt_open"),)

    def __str__(self) -> str:
        return f"review of {self.request}"


class Vote(models.Model):
    """The vote of one person on a request, bound to the evaluation that the person saw."""

    class Value(models.TextChoices):
        APPROVE = "approve"
        OBJECT = "object"  # the request waits until it is withdrawn or overruled
        REJECT = "reject"  # final
        WITHDRAW = "withdraw"  # an approval or an objection that was taken back

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
    # Of an approval: the assertion of the voter's passkey over it, as `signatures.votes` describes; null: not signed.
    signed: models.JSONField[Any, Any] = models.JSONField(null=True)
    # Whether it was given with a fresh second factor, or signed; null: before this was stored.
    is_strong = models.BooleanField(null=True)
    at = models.DateTimeField(auto_now_add=True)
    # Set when the image got worse after the vote. The vote stays on record but no longer counts.
    lapsed_at = models.DateTimeField(null=True, blank=True)
    lapse_reason = models.TextField(blank=True)
    # Of an objection: somebody who manages the environment decided that it does not stop the request.
    overruled_at = models.DateTimeField(null=True, blank=True)
    overruled_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    overrule_reason = models.TextField(blank=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("request", "voter"), name="vote_once_per_request_and_voter"),
            models.CheckConstraint(
                condition=Q(value__in=("approve", "object", "reject", "withdraw")), name="vote_value_known"
            ),
            models.CheckConstraint(
                condition=Q(overruled_at=None) | Q(value="object", overruled_by__isnull=False),
                name="vote_only_objections_are_overruled",
            ),
        )

    def __str__(self) -> str:
        return f"{self.voter} {self.value}s {self.request}"

    @property
    def is_standing(self) -> bool:
        """Whether the vote is in force: it was not taken back, and did not lapse."""
        return self.lapsed_at is None and self.value != self.Value.WITHDRAW


class Comment(models.Model):
    """What somebody said about a request. A comment without `thread` opens a thread; the others answer it."""

    request = models.ForeignKey(PromotionRequest, on_delete=models.CASCADE, related_name="comments")
    thread = models.ForeignKey("self", on_delete=models.CASCADE, related_name="answers", null=True)
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    text = models.TextField()
    at = models.DateTimeField(auto_now_add=True)
    is_blocking = models.BooleanField(default=False)  # of a thread: the request waits until it is resolved
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(thread=None) | Q(is_blocking=False, resolved_at=None, resolved_by=None),
                name="comment_only_threads_block_and_end",
            ),
            models.CheckConstraint(
                condition=Q(resolved_at=None, resolved_by=None)
                | Q(resolved_at__isnull=False, resolved_by__isnull=False),
                name="comment_resolved_by_somebody",
            ),
        )

    def __str__(self) -> str:
        return f"comment {self.pk} on {self.request}"


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
