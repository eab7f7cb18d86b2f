"""Events from clusters that wait to be folded into alerts."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q

from lifecycle.clusters.models import Cluster


class RuntimeEvent(models.Model):
    """One event of Falco, or a CloudEvent. Those with an id stay for a day, so that each is counted once."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(max_length=6)  # falco, event
    event_id = models.CharField(max_length=64, blank=True)  # sha256 of the sender's id; "": it has none
    event: models.JSONField[Any, Any] = models.JSONField(null=True)  # a SeenEvent, masked; null: it was folded
    received_at = models.DateTimeField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("cluster", "kind", "event_id"), condition=~Q(event_id=""), name="runtimeevent_once_per_id"
            ),
        )
        indexes = (
            models.Index(fields=("cluster", "id"), condition=Q(event__isnull=False), name="runtimeevent_waiting"),
            models.Index(fields=("received_at",), name="runtimeevent_by_arrival"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
