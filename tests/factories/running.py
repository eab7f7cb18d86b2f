"""Clusters and reports of what runs in them."""

from __future__ import annotations

import json
import uuid
from typing import Any

from accounts.models import Team, User
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Repository
from lifecycle.runtime import accepting
from tests.factories import dock as rows


def cluster(team: Team, slug: str = "north", **more: Any) -> Cluster:
    made: Cluster = Cluster.objects.create(team=team, slug=slug, created_by=rows.user("cluster-maker"), **more)
    return made


def entry(
    digest: str, *, key: str = "", where: Repository | None = None, tag: str = "1.0", **more: Any
) -> dict[str, Any]:
    """Return the entry of a container that runs an image of a repository."""
    name = f"{where.registry.host}/{where.name}" if where else "docker.io/library/stranger"
    workload = more.get("workload", {"kind": "Deployment", "name": "api"})
    key = key or f"{workload['name']}/main/app"
    return {
        "key": key, "namespace": "shop", "workload": workload, "pod": f"pod-{key.partition('/')[0]}", "kind": "main",
        "name": "app", "image": f"{name}:{tag}", "image_id": f"{name}@{digest}" if digest else "", "state": "running",
        "container_id": "containerd://" + uuid.uuid5(uuid.NAMESPACE_URL, key).hex * 2, "arch": "amd64",
    } | more  # fmt: skip


def document(sequence: int, *entries: Any, kind: str = "full", **more: Any) -> dict[str, Any]:
    return {
        "schema": "gravingdock.report.v1", "report_id": f"r-{uuid.uuid4()}", "boot": "b-1", "sequence": sequence,
        "kind": kind, "observed_at": clock.now().isoformat(), "reporter": "agent", "containers": list(entries),
    } | more  # fmt: skip


def report(where: Cluster, actor: User, sequence: int, *entries: Any, **more: Any) -> None:
    """Send a report and apply it."""
    accepting.accept(where.slug, json.dumps(document(sequence, *entries, **more)).encode(), actor=actor)
    work()


def work(*kinds: str) -> None:
    """Run the waiting jobs of these kinds: those of reports by default."""
    for job in Job.objects.filter(kind__in=kinds or ["report"], state=Job.State.WAITING).order_by("pk"):
        running.run(job.pk)
        job.refresh_from_db()
        assert job.state == Job.State.SUCCEEDED, job.last_error
