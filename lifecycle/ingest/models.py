"""Notification events from registries, stored raw. They are hints; the registry is read for the state."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from lifecycle.registry.models import Registry


class Delivery(models.Model):
    """One notification event, stored raw and once. `(instance, event_id)` identifies it in its registry."""

    registry = models.ForeignKey(Registry, on_delete=models.CASCADE, related_name="deliveries")
    instance = models.CharField(max_length=200)
    event_id = models.CharField(max_length=200)
    action = models.CharField(max_length=40, blank=True)
    body = models.BinaryField()
    problem = models.CharField(max_length=300, blank=True)  # the reason why the event had no effect
    received_at = models.DateTimeField(auto_now_add=True)
    handled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = (
            models.UniqueConstraint(fields=("registry", "instance", "event_id"), name="delivery_once_per_event"),
        )
        indexes = (models.Index(fields=("id",), condition=Q(handled_at=None), name="delivery_waiting"),)

    def __str__(self) -> str:
        return f"{self.action} {self.event_id}"
