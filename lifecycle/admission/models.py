"""What admission decided, the debts of break-glass, and when the snapshot is out of date."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import User
from lifecycle.admission.constants import JUDGED_MAX
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Image


class AdmissionEpoch(models.Model):
    """One change of what reviews are answered from, written in the transaction of the change.

    A row for each change, and no counter: a counter would make all transactions wait for each other. The writer of the
    snapshot deletes old rows.
    """

    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (models.Index(fields=("at",), name="admissionepoch_by_time"),)

    def __str__(self) -> str:
        return f"epoch {self.pk}"


class AdmissionVerdict(models.Model):
    """Whether the rules at point admission allow a promoted image in an environment. Judged again and again."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="+")
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+", db_index=False)
    is_allowed = models.BooleanField()
    reason = models.CharField(max_length=300, blank=True)  # the first rule that blocks it
    judged_at = models.DateTimeField()
    is_due = models.BooleanField(default=False)  # judge it again as soon as possible

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("environment", "image"), name="admissionverdict_once_per_image"),
        )

    def __str__(self) -> str:
        return f"{self.image} in {self.environment}"


class Workload(models.Model):
    """What people deploy, and where: the Deployment of a Pod, not its ReplicaSet."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="+", db_index=False)
    namespace = models.CharField(max_length=253, blank=True)
    workload_kind = models.CharField(max_length=253, blank=True)
    workload_name = models.CharField(max_length=253, blank=True)

    class Meta:
        abstract = True

    @property
    def workload(self) -> str:
        """`Deployment shop/web`."""
        return f"{self.workload_kind} {self.namespace}/{self.workload_name}"


def _judged() -> ArrayField[Any, Any]:
    """All images that were judged: the digest, or the reference of one without. Null: nobody noted them."""
    return ArrayField(models.CharField(max_length=JUDGED_MAX), null=True)


class AdmissionDecision(Workload):
    """An object that was refused, that would have been in another mode, or that a break-glass let through."""

    class Result(models.TextChoices):
        REFUSED = "refused"
        WOULD_REFUSE = "would_refuse"  # allowed, because the mode is observe or warn
        BROKE_GLASS = "broke_glass"

    key = models.CharField(max_length=40, unique=True)  # in the address of its page; nobody can guess it
    environment = models.ForeignKey(Environment, on_delete=models.SET_NULL, related_name="+", null=True)
    object_kind = models.CharField(max_length=253, blank=True)
    object_name = models.CharField(max_length=253, blank=True)
    operation = models.CharField(max_length=20, blank=True)
    user_name = models.CharField(max_length=253, blank=True)  # as the API server names who asked
    mode = models.CharField(max_length=7)
    result = models.CharField(max_length=12, choices=Result)
    code = models.CharField(max_length=30)  # of the first image
    images: models.JSONField[Any, Any] = models.JSONField(default=list)  # as ImageResult.as_json
    judged = _judged()
    breakglass = models.TextField(blank=True)  # the reason of a break-glass that counted
    snapshot_number = models.BigIntegerField()
    address = models.CharField(max_length=45, blank=True)  # of the API server
    at = models.DateTimeField()

    class Meta:
        indexes = (
            models.Index(fields=("cluster", "-at"), name="admissiondecision_by_cluster"),
            models.Index(fields=("at",), name="admissiondecision_by_time"),
            models.Index(fields=("cluster", "namespace", "workload_name", "at"), name="admissiondecision_by_workload"),
        )

    def __str__(self) -> str:
        return self.key


class AdmissionCount(Workload):
    """How many objects of a workload were decided in a minute without a row of their own. Code "": allowed."""

    minute = models.DateTimeField()
    code = models.CharField(max_length=30, blank=True)
    count = models.PositiveIntegerField()
    judged = _judged()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("cluster", "minute", "namespace", "workload_kind", "workload_name", "code"),
                name="admissioncount_once_per_minute",
            ),
        )
        indexes = (
            models.Index(fields=("minute",), name="admissioncount_by_time"),
            models.Index(fields=("cluster", "namespace", "workload_name", "minute"), name="admissioncount_by_workload"),
        )

    def __str__(self) -> str:
        return f"{self.count} of {self.workload}"


class AdmissionBatch(models.Model):
    """A file of decisions that was loaded, so that it is not loaded twice."""

    name = models.CharField(max_length=100, unique=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "admission batches"

    def __str__(self) -> str:
        return self.name


class AdmissionLoad(models.Model):
    """How far the decisions of one spool are in the database. One row for each machine and folder."""

    name = models.CharField(max_length=64, unique=True)  # sha256 of host and folder
    loaded_until = models.DateTimeField()  # every decision until then is loaded, or was lost
    lost_at = models.DateTimeField(null=True)  # when decisions were last found to be dropped or unreadable

    def __str__(self) -> str:
        return f"decisions until {self.loaded_until:%Y-%m-%d %H:%M:%S}"


class AdmissionDebt(Workload):
    """A break-glass in a cluster that another person has to review: one for a workload and its images."""

    class Outcome(models.TextChoices):
        JUSTIFIED = "justified"
        UNJUSTIFIED = "unjustified"

    digests = ArrayField(models.CharField(max_length=700))  # digest of each image, or its reference without one
    fingerprint = models.CharField(max_length=64, db_index=True)  # sha256 of cluster, workload and digests
    decision_key = models.CharField(max_length=40)  # of the first decision
    reason = models.TextField()  # as in the annotation
    user_name = models.CharField(max_length=253, blank=True)  # who brought the annotation in first, for pages
    # All who brought it in, as the API server names them; never a controller, which carries it on.
    user_names = ArrayField(models.CharField(max_length=253), default=list, blank=True)
    count = models.PositiveIntegerField(default=1)  # objects that it let through
    opened_at = models.DateTimeField()
    last_at = models.DateTimeField()
    due_at = models.DateTimeField()
    reviewed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    reviewed_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=11, choices=Outcome, blank=True)
    comment = models.TextField(blank=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(reviewed_at=None, reviewed_by=None, outcome="")
                | (Q(reviewed_at__isnull=False, reviewed_by__isnull=False) & ~Q(outcome="")),
                name="admissiondebt_reviewed_with_person_and_outcome",
            ),
            models.UniqueConstraint(
                fields=("fingerprint",), condition=Q(reviewed_at=None), name="admissiondebt_one_open_per_fingerprint"
            ),
        )
        indexes = (models.Index(fields=("cluster",), condition=Q(reviewed_at=None), name="admissiondebt_open"),)

    def __str__(self) -> str:
        return f"break-glass of {self.workload}"

    @property
    def is_overdue(self) -> bool:
        """Whether nobody reviewed it in time, so that it opens nothing until a reviewer calls it justified."""
        return self.reviewed_at is None and self.due_at <= clock.now()


class AdmissionEntry(Workload):
    """A break-glass annotation that somebody who may break glass brought in, while admission refused.

    Kubernetes' controllers may carry it on to Pods of the workload, for the images of its debt and no others: until the
    debt is due, and afterwards only if the review said that it was justified.
    """

    text_sha256 = models.CharField(max_length=64)  # of the annotation
    fingerprint = models.CharField(max_length=64)  # of the debt: cluster, workload and digests
    debt = models.ForeignKey(AdmissionDebt, on_delete=models.CASCADE, related_name="+")  # the last of this fingerprint
    user_name = models.CharField(max_length=253)  # who brought it in last, as the API server names people
    entered_at = models.DateTimeField()  # last

    class Meta:
        verbose_name_plural = "admission entries"
        constraints = (
            models.UniqueConstraint(
                fields=("cluster", "text_sha256", "fingerprint"), name="admissionentry_once_per_debt_and_text"
            ),
        )

    def __str__(self) -> str:
        return f"{self.user_name} broke the glass for {self.workload}"
