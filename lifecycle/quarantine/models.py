"""Quarantined images, and the images that are exempt from a quarantine."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from accounts.models import Team, User
from lifecycle.registry.models import Image, Repository


class Quarantine(models.Model):
    """A block of one digest, and of all images built on it if `descendants` is set, until a second person lifts it.

    `queries.COVERED_SQL` says which images it covers. No row is stored for them, so a later image is covered too.
    """

    class State(models.TextChoices):
        ACTIVE = "active"
        RELEASE_REQUESTED = "release_requested"  # still blocks
        RELEASED = "released"

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "active": frozenset({"release_requested"}),
        "release_requested": frozenset({"active", "released"}),
    }

    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="quarantines")
    team = models.ForeignKey(Team, on_delete=models.SET_NULL, related_name="+", null=True)  # whose image it is
    reason = models.TextField()
    incident = models.CharField(max_length=300, blank=True)  # a ticket or a link
    descendants = models.BooleanField(default=True)
    withdraw = models.BooleanField(default=False, db_default=False)  # stops pulls too: see withdrawing.py
    state = models.CharField(max_length=17, choices=State, default=State.ACTIVE)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    release_requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    release_requested_at = models.DateTimeField(null=True)
    release_reason = models.TextField(blank=True)
    released_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    released_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("image",), condition=Q(released_at=None), name="quarantine_one_live_per_image"
            ),
            models.CheckConstraint(
                condition=Q(released_by=None) | ~Q(released_by=F("release_requested_by")),
                name="quarantine_released_by_a_second_person",
            ),
            models.CheckConstraint(
                condition=Q(state="released", released_at__isnull=False, released_by__isnull=False)
                | (~Q(state="released") & Q(released_at=None, released_by=None)),
                name="quarantine_has_end_exactly_when_released",
            ),
            models.CheckConstraint(
                condition=Q(state="active") | Q(release_requested_by__isnull=False),
                name="quarantine_release_has_requester",
            ),
        )

    def __str__(self) -> str:
        return f"Q-{self.pk}"

    @property
    def is_live(self) -> bool:
        return self.state in self.NEXT


class QuarantineExemption(models.Model):
    """An image built on a quarantined one that was found to be harmless. An index is exempt with its platforms."""

    quarantine = models.ForeignKey(Quarantine, on_delete=models.CASCADE, related_name="exemptions", db_index=False)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    reason = models.TextField()
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("quarantine", "image"), name="quarantineexemption_once_per_quarantine_and_image"
            ),
        )

    def __str__(self) -> str:
        return f"{self.image} of {self.quarantine}"


class Withdrawal(models.Model):
    """One image that a quarantine withdraws from one repository, with the tags it had when the quarantine began."""

    class State(models.TextChoices):
        PENDING = "pending"
        COPIED = "copied"  # the vault has it; the repository perhaps not any more
        REMOVED = "removed"
        RESTORED = "restored"

    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "pending": frozenset({"copied", "removed", "restored"}),
        "copied": frozenset({"removed", "restored"}),
        "removed": frozenset({"restored"}),
    }

    quarantine = models.ForeignKey(Quarantine, on_delete=models.CASCADE, related_name="withdrawals", db_index=False)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="withdrawals")
    tags: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=128), default=list)
    state = models.CharField(max_length=8, choices=State, default=State.PENDING)
    problem = models.CharField(max_length=300, blank=True, default="")
    removed_at = models.DateTimeField(null=True)
    restored_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("quarantine", "repository", "image"), name="withdrawal_once_per_repository_and_image"
            ),
        )

    def __str__(self) -> str:
        return f"{self.image} from {self.repository}"
