"""Alerts, and what is needed to see differences: the findings that were there at the last look, and what changed."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q

from accounts.models import Team, User
from lifecycle.advisories.models import Advisory
from lifecycle.clusters.models import Cluster
from lifecycle.environments.models import Environment
from lifecycle.sbom.models import PackageVersion


class Alert(models.Model):
    """A difference that one team was told about. One alert can be live for each fingerprint.

    It closes when its cause is gone, or when somebody resolves it with a reason. If the cause is still there a day
    later, a new alert names this one as its `former`.
    """

    class State(models.TextChoices):
        OPEN = "open"
        ACKNOWLEDGED = "acknowledged"  # somebody works on it
        SNOOZED = "snoozed"  # open again at `snoozed_until`
        RESOLVED = "resolved"

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "open": frozenset({"acknowledged", "snoozed", "resolved"}),
        "acknowledged": frozenset({"open", "snoozed", "resolved"}),  # open: the severity rose
        "snoozed": frozenset({"open", "acknowledged", "snoozed", "resolved"}),
    }

    kind = models.CharField(max_length=60)  # the name of an AlertKind
    fingerprint = models.CharField(max_length=64)  # sha256 of what it is about (types.Cause)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="alerts", db_index=False)
    vulnerability = models.CharField(max_length=200, blank=True)
    digest = models.CharField(max_length=135, null=True)
    # Where it runs, for alerts about a workload; null and empty for the others.
    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="alerts", null=True, db_index=False)
    namespace = models.CharField(max_length=253, blank=True, db_default="")
    workload = models.CharField(max_length=320, blank=True, db_default="")  # "Deployment/api"
    # To which the namespace is bound. Its team sees where it runs, besides that of the cluster.
    environment = models.ForeignKey(Environment, on_delete=models.SET_NULL, related_name="+", null=True, db_index=False)
    rule = models.CharField(max_length=200, blank=True, db_default="")  # of what found it, such as Falco's
    severity = models.CharField(max_length=8, choices=Advisory.Severity, default=Advisory.Severity.UNKNOWN)
    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
    count = models.PositiveIntegerField(default=1)  # how often the cause was seen
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    evidence: models.JSONField[Any, Any] = models.JSONField(default=dict)
    # The team's repositories with affected images in use, and the number of these images in each. Arrays, not rows:
    # one synchronisation can raise thousands of alerts for thousands of repositories.
    repository_ids: ArrayField[Any, Any] = ArrayField(models.BigIntegerField(), default=list)
    image_counts: ArrayField[Any, Any] = ArrayField(models.IntegerField(), default=list)
    images = models.PositiveIntegerField(default=0)  # an image in two repositories counts once
    former = models.ForeignKey("self", on_delete=models.SET_NULL, related_name="+", null=True)
    told_at = models.DateTimeField(null=True)
    reminded_at = models.DateTimeField(null=True)
    acted_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)  # the last person
    acted_at = models.DateTimeField(null=True)
    reason = models.TextField(blank=True)  # of the last act, or why it closed
    snoozed_until = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)  # null: it closed
    resolved_at = models.DateTimeField(null=True)
    rechecked_at = models.DateTimeField(null=True)  # when it was looked whether the cause persists
    # After a person resolved it, its cause went, and the teams of images that waited for it were told.
    is_handed_over = models.BooleanField(default=False, db_default=False)

    # Annotations of queries.alerts_visible_to.
    images_seen: int
    is_place_seen: bool

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("fingerprint",), condition=~Q(state="resolved"), name="alert_one_live_per_fingerprint"
            ),
            models.CheckConstraint(
                condition=Q(state="resolved", resolved_at__isnull=False)
                | (~Q(state="resolved") & Q(resolved_at=None, resolved_by=None)),
                name="alert_has_end_exactly_when_resolved",
            ),
            models.CheckConstraint(
                condition=Q(state="snoozed", snoozed_until__isnull=False)
                | (~Q(state="snoozed") & Q(snoozed_until=None)),
                name="alert_snoozed_until_a_time",
            ),
        )
        indexes = (
            models.Index(fields=("team", "state", "-id"), name="alert_by_team"),
            models.Index(fields=("fingerprint", "-id"), name="alert_by_fingerprint"),
            models.Index(fields=("vulnerability",), name="alert_by_vulnerability"),
            models.Index(fields=("-id",), condition=~Q(state="resolved"), name="alert_live"),
            models.Index(
                fields=("id",), condition=Q(resolved_by__isnull=False, is_handed_over=False), name="alert_to_hand_over"
            ),
            models.Index(fields=("cluster", "-id"), condition=Q(cluster__isnull=False), name="alert_by_cluster"),
            GinIndex(fields=("repository_ids",), name="alert_live_by_repository", condition=~Q(state="resolved")),
        )

    def __str__(self) -> str:
        return f"A-{self.pk}"

    @property
    def is_live(self) -> bool:
        return self.state in self.NEXT


class SeenFinding(models.Model):
    """An open finding of a package version at the last look. What differs from it is told.

    No foreign key constraint: rows are written in bulk, and package versions are never deleted while images have them.
    """

    package = models.ForeignKey(
        PackageVersion, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    vulnerability = models.CharField(max_length=200)
    severity = models.CharField(max_length=8)
    is_exploited = models.BooleanField(default=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("package", "vulnerability"), name="seenfinding_once"),)
        indexes = (models.Index(fields=("vulnerability",), name="seenfinding_by_vulnerability"),)

    def __str__(self) -> str:
        return f"{self.vulnerability} in {self.package_id}"


class ChangedPackages(models.Model):
    """Package versions whose findings changed since the last look. Rows are added with the change, and then deleted.

    Without package versions: VEX statements changed, so that each live alert is checked.
    `is_first`: they are new to Gravingdock. Their first findings are those of a new image, and no difference.
    """

    package_ids: ArrayField[Any, Any] = ArrayField(models.BigIntegerField())
    is_first = models.BooleanField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "changed packages"

    def __str__(self) -> str:
        return f"{len(self.package_ids)} package versions"


class AlertPass(models.Model):
    """When differences were last looked for. One row; without it, everything is seen for the first time."""

    looked_at = models.DateTimeField()
    checked_at = models.DateTimeField()  # when all live alerts were last checked for their cause
    exploits_read_at = models.DateTimeField(null=True)  # the newest list of exploits then; null without one
    due_revision = models.PositiveIntegerField(default=0, db_default=0)  # of the table of due dates then

    class Meta:
        verbose_name_plural = "alert passes"

    def __str__(self) -> str:
        return f"alerts at {self.looked_at:%Y-%m-%d %H:%M}"
