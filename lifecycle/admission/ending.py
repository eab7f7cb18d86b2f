"""Deleting a cluster: it ends at once, and its history goes later."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import DateTimeField, Value
from django.db.models.functions import Greatest

from accounts.models import User
from lifecycle import events
from lifecycle.admission.models import AdmissionDecision
from lifecycle.admission.queries import open_debts
from lifecycle.alerts.models import Alert
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_clusters import ClusterDeleted
from lifecycle.clusters.access import cluster_for, why_not_manage
from lifecycle.clusters.models import Cluster, Mode
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, StaleVersion
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.inventory.models import Reporter, RunningContainer, RunningImage

HISTORY_KEPT: Final = timedelta(days=90)  # what ran and what was decided, after the deletion


def what_ends_with(cluster: Cluster) -> dict[str, int]:
    """Return how many rows of each kind end when a cluster is deleted, or go with its history."""
    running = RunningImage.objects.filter(cluster=cluster)
    return {
        "bindings": cluster.bindings.count(),
        "secrets": cluster.secrets.count(),
        "running_images": running.filter(until=None).count(),
        "running_containers": RunningContainer.objects.filter(cluster=cluster, until=None).count(),
        "past_images": running.exclude(until=None).count(),
        "alerts": Alert.objects.filter(cluster=cluster).exclude(state=Alert.State.RESOLVED).count(),
        "decisions": AdmissionDecision.objects.filter(cluster=cluster).count(),
    }


def why_not_delete(actor: User, cluster: Cluster) -> Reason | None:
    """Return why `actor` cannot delete a cluster now, None when they can."""
    reason = why_not_manage(actor, cluster.team)
    if reason is not None:
        return reason
    if cluster.mode == Mode.ENFORCE or cluster.bindings.filter(mode=Mode.ENFORCE).exists():
        return Reason(
            "It enforces: without Gravingdock's answers, it would refuse every Pod. Remove its webhooks, then set the"
            " mode to off.",
            Conflict,
        )
    debts = open_debts(cluster).count()
    if debts:
        return Reason(f"{debts} uses of break-glass wait for their review.", Conflict)
    return None


@transaction.atomic
def delete_cluster(slug: str, *, actor: User, revision: int | None = None) -> None:
    """Delete a cluster (environment.manage): its secrets and bindings go, and what runs there ends now.

    Nobody finds the cluster any more. What ran and what was decided stays for HISTORY_KEPT, also what reports say that
    are not applied yet; its name stays taken until then, because history names it. Raises NotFound, NotPermitted,
    Conflict, StaleVersion.
    """
    cluster = cluster_for(actor, slug, locked=True)
    refuse_if(why_not_delete(actor, cluster))
    if revision is not None and revision != cluster.revision:
        raise StaleVersion("Another user changed this cluster. Load it again, then repeat your change.")
    counts, now = what_ends_with(cluster), clock.now()
    end = Greatest("since", Value(now, output_field=DateTimeField()))
    for model in (RunningContainer, RunningImage):
        model.objects.filter(cluster=cluster, until=None).update(until=end)
    Reporter.objects.filter(cluster=cluster, ended_at=None).update(ended_at=now)
    cluster.bindings.all().delete()
    cluster.secrets.all().delete()
    cluster.mode, cluster.ended_at = Mode.OFF, now
    cluster.enforced_at = cluster.unbound_enforced_at = None
    cluster.revision += 1
    cluster.save(update_fields=["mode", "ended_at", "enforced_at", "unbound_enforced_at", "revision"])
    details = ClusterDeleted(slug=cluster.slug, kind=cluster.kind, **counts)
    audit.record(Action.CLUSTER_DELETED, actor=actor, subject=cluster, team=cluster.team, details=details)
    events.publish(events.ClusterChanged(cluster.pk))


def forget_clusters(now: datetime) -> int:
    """Remove the history of a cluster that was deleted long ago; return how many. One at a time: it can be large."""
    row = Cluster.objects.filter(ended_at__lt=now - HISTORY_KEPT).order_by("ended_at").first()
    if row is None:
        return 0
    row.delete()
    return 1
