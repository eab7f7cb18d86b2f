"""Notifications as a registry sends them."""

from __future__ import annotations

import json
from typing import Any

from lifecycle.core import clock
from lifecycle.ingest import services as ingest
from lifecycle.jobs.models import Job
from lifecycle.oci.constants import MediaType
from lifecycle.registry.services import ensure_managed_registry


def event(number: int, digest: str, *, tag: str = "", action: str = "push", actor: str = "anna") -> dict[str, Any]:
    target = {"repository": "shop/api", "digest": digest, "tag": tag}
    if action == "push":
        target["mediaType"] = MediaType.OCI_MANIFEST.value
    return {"id": str(number), "action": action, "target": target, "actor": {"name": actor}}


def deliver(*events: dict[str, Any]) -> None:
    """Take events in, and do what they queued."""
    ingest.receive(ensure_managed_registry(), json.dumps({"events": events}).encode())
    for job in Job.objects.filter(kind="ingest", state=Job.State.WAITING).order_by("pk"):
        Job.objects.filter(pk=job.pk).update(state=Job.State.SUCCEEDED, finished_at=clock.now())
        ingest.handle_delivery(job.subject_id)
