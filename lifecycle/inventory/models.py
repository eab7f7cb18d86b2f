"""What runs where. Machines write these rows in bulk; clusters and their settings, which people change, are elsewhere.

Intervals begin at `since` and last until `until`; null: it still runs. Rows are never changed to say something else
about the past.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.inventory.constants import LATE_AFTER, SILENT_AFTER
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image, Repository


class Reporter(models.Model):
    """Who reports the containers of a cluster, or of one of its hosts. It speaks only for its own containers."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="reporters", db_index=False)
    name = models.CharField(max_length=253)
    boot = models.CharField(max_length=200)  # changes when it starts anew
    former_boots: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=200), default=list)
    sequence = models.BigIntegerField()  # of the last report that was accepted
    is_import = models.BooleanField(default=False)  # output of another tool: it has no heartbeat
    first_at = models.DateTimeField()
    seen_at = models.DateTimeField()  # its last report arrived then
    full_at = models.DateTimeField(null=True)  # its last full report
    applied_at = models.DateTimeField(null=True)  # the last report that was applied was observed then
    doubled_at = models.DateTimeField(null=True)  # a former boot reported too: two agents run
    ended_at = models.DateTimeField(null=True)  # it was silent for so long that its host is taken as gone
    # Hash of the certificates that the webhooks of its cluster trust, as it reported last. "": not all the same. Null:
    # it never said.
    bundle_sha256 = models.CharField(max_length=64, null=True)
    bundle_at = models.DateTimeField(null=True)  # since when it reports this hash
    templates_at = models.DateTimeField(null=True)  # it named templates without Pods last then; null: it never did

    class Meta:
        constraints = (models.UniqueConstraint(fields=("cluster", "name"), name="reporter_once_per_cluster_and_name"),)

    def __str__(self) -> str:
        return f"{self.name} of {self.cluster}"

    @property
    def state(self) -> str:
        """fresh, late, silent or ended; `imported` for output of another tool, which comes when somebody sends it."""
        if self.ended_at is not None:
            return "ended"
        if self.is_import:
            return "imported"
        age = clock.now() - self.seen_at
        return "silent" if age > SILENT_AFTER else "late" if age > LATE_AFTER else "fresh"


class RuntimeReport(models.Model):
    """One report. The body is kept until it is applied; the row, so that the same report gets the same answer."""

    reporter = models.ForeignKey(Reporter, on_delete=models.CASCADE, related_name="reports", db_index=False)
    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="reports", db_index=False)
    report_id = models.CharField(max_length=200)
    kind = models.CharField(max_length=9)  # full, delta, heartbeat
    format = models.CharField(max_length=10, blank=True)  # of another tool; "" for gravingdock.report.v1
    boot = models.CharField(max_length=200)
    sequence = models.BigIntegerField()
    observed_at = models.DateTimeField()  # ours, when the reporter's clock is ahead (`warning`)
    received_at = models.DateTimeField()
    warning = models.CharField(max_length=300, blank=True)
    body = models.BinaryField(null=True)  # as it came
    is_gzip = models.BooleanField(default=False)
    job = models.ForeignKey(Job, on_delete=models.SET_NULL, related_name="+", null=True)
    applied_at = models.DateTimeField(null=True)
    containers = models.PositiveIntegerField(null=True)  # that were read
    refused_count = models.PositiveIntegerField(default=0)
    refused: models.JSONField[Any, Any] = models.JSONField(default=list)  # [{pointer, why}], the first ones

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("cluster", "report_id"), name="runtimereport_once_per_cluster_and_id"),
        )
        indexes = (
            models.Index(fields=("reporter", "id"), condition=Q(applied_at=None), name="runtimereport_to_apply"),
            models.Index(fields=("received_at",), name="runtimereport_by_arrival"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.report_id}"


class PodSpec(models.Model):
    """The skeleton of a pod spec, once per cluster and sha256: without values, arguments and commands."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="+", db_index=False)
    sha256 = models.CharField(max_length=64)
    spec: models.JSONField[Any, Any] = models.JSONField()
    seen_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("cluster", "sha256"), name="podspec_once_per_cluster_and_sha"),)

    def __str__(self) -> str:
        return self.sha256


class PodTemplate(models.Model):
    """The pod template of a controller that has no Pod now: scaled to zero, suspended, or between two runs."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="+")
    reporter = models.ForeignKey(Reporter, on_delete=models.CASCADE, related_name="+", db_index=False)
    namespace = models.CharField(max_length=253, blank=True)
    workload_kind = models.CharField(max_length=63)
    workload_name = models.CharField(max_length=253)
    spec = models.CharField(max_length=64)  # sha256 of a PodSpec of the cluster

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("reporter", "namespace", "workload_kind", "workload_name"),
                name="podtemplate_once_per_reporter_and_workload",
            ),
        )

    def __str__(self) -> str:
        return f"{self.workload_kind} {self.namespace}/{self.workload_name}"


class ClusterNamespace(models.Model):
    """What a reporter says about a namespace: network policies, and the level of Pod Security that it enforces."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="namespaces", db_index=False)
    name = models.CharField(max_length=253)
    network_policies = models.IntegerField(null=True)  # null: not said
    pss = models.CharField(max_length=10, blank=True)
    seen_at = models.DateTimeField()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("cluster", "name"), name="clusternamespace_once_per_cluster_and_name"),
        )

    def __str__(self) -> str:
        return self.name


class Workload(models.Model):
    """Where something runs: the cluster, the namespace, and the controller of its pods."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="+", db_index=False)
    namespace = models.CharField(max_length=253)
    workload_kind = models.CharField(max_length=63, blank=True)
    workload_name = models.CharField(max_length=253, blank=True)
    since = models.DateTimeField()
    until = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    @property
    def workload(self) -> str:
        """`Deployment/api`."""
        return f"{self.workload_kind}/{self.workload_name}" if self.workload_kind else self.workload_name


class RunningContainer(Workload):
    """One container while it exists. An image volume counts too."""

    reporter = models.ForeignKey(Reporter, on_delete=models.CASCADE, related_name="containers", db_index=False)
    key = models.CharField(max_length=600)
    pod = models.CharField(max_length=253, blank=True)
    node = models.CharField(max_length=253, blank=True)
    arch = models.CharField(max_length=40, blank=True)
    kind = models.CharField(max_length=9)  # init, main, ephemeral, volume
    name = models.CharField(max_length=253, blank=True)
    reference = models.CharField(max_length=1000)  # the image as the author of the pod wrote it
    digests: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=135))  # as reported; empty: not resolved
    digest = models.CharField(max_length=135, blank=True)  # of `image`, else the first reported
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+", null=True, db_index=False)
    platform = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+", null=True, db_index=False)
    repository = models.ForeignKey(Repository, on_delete=models.PROTECT, related_name="+", null=True, db_index=False)
    container_id = models.CharField(max_length=200, blank=True)
    short_id = models.CharField(max_length=12, blank=True)  # what Falco names it
    state = models.CharField(max_length=10)
    started_at = models.DateTimeField(null=True)
    spec = models.CharField(max_length=64, blank=True)  # sha256 of a PodSpec of the cluster

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gte=F("since")), name="runningcontainer_ends_after_it_began"
            ),
            models.UniqueConstraint(
                fields=("reporter", "key"), condition=Q(until=None), name="runningcontainer_one_live_per_key"
            ),
        )
        indexes = (
            models.Index(fields=("cluster", "namespace", "pod"), condition=Q(until=None), name="container_live_by_pod"),
            models.Index(fields=("short_id",), condition=Q(until=None) & ~Q(short_id=""), name="container_live_by_id"),
            models.Index(fields=("image",), condition=Q(until=None), name="container_live_by_image"),
            models.Index(fields=("until",), condition=Q(until__isnull=False), name="container_ended"),
            models.Index(fields=("reporter", "key"), condition=Q(until__isnull=False), name="container_ended_by_key"),
        )

    def __str__(self) -> str:
        return f"{self.name} in {self.namespace}/{self.pod}"


class RunningImage(Workload):
    """One image in one workload while at least one of its containers runs it."""

    reference = models.CharField(max_length=1000)
    digest = models.CharField(max_length=135, blank=True)  # "": not resolved
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="running", null=True, db_index=False)
    platform = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+", null=True, db_index=False)
    # Whose image it is by the name that the pod gives: the repository of ours with this name. Null: none of ours.
    repository = models.ForeignKey(
        Repository, on_delete=models.PROTECT, related_name="running", null=True, db_index=False
    )
    environment = models.ForeignKey(Environment, on_delete=models.SET_NULL, related_name="running", null=True)
    containers = models.PositiveIntegerField()

    # Annotations of queries.running_images_visible_to: what of the row its reader may be shown.
    is_place_seen: bool  # cluster, namespace, workload and environment
    is_image_seen: bool  # whether the image is known, its digest, and its findings
    is_repository_seen: bool

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("cluster", "namespace", "workload_kind", "workload_name", "digest", "platform", "reference"),
                condition=Q(until=None),
                nulls_distinct=False,
                name="runningimage_one_live_per_workload_and_digest",
            ),
        )
        indexes = (
            models.Index(fields=("image",), name="runningimage_by_image"),
            models.Index(fields=("platform",), name="runningimage_by_platform"),
            models.Index(fields=("repository", "-id"), name="runningimage_by_repository"),
            models.Index(fields=("cluster", "-id"), name="runningimage_by_cluster"),
            models.Index(fields=("-id",), condition=Q(until=None), name="runningimage_live"),
        )

    def __str__(self) -> str:
        return f"{self.reference} in {self.namespace}/{self.workload}"
