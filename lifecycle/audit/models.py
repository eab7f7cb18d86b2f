"""The audit trail: append-only for the application role; a pending row for each event waits for the sealer."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.indexes import BrinIndex
from django.db import models

from accounts.models import Team, User


class AuditEvent(models.Model):
    """Something was decided, done, or refused. `canonical` holds the exact bytes that will be sealed."""

    class Outcome(models.TextChoices):
        OK = "ok"
        DENIED = "denied"
        FAILED = "failed"

    at = models.DateTimeField()  # the database's clock
    action = models.CharField(max_length=80)  # stable dotted word: promotion.approved
    outcome = models.CharField(max_length=6, choices=Outcome, default=Outcome.OK)
    actor = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    actor_name = models.CharField(max_length=150)  # as it was then
    token_lookup = models.CharField(max_length=16, blank=True)  # the API token used, never its secret
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=64, blank=True)
    team = models.ForeignKey(Team, on_delete=models.SET_NULL, related_name="+", null=True, db_constraint=False)
    subject_kind = models.CharField(max_length=40, blank=True)
    subject_id = models.BigIntegerField(null=True)
    digest = models.CharField(max_length=135, blank=True)  # the image concerned
    repository = models.CharField(max_length=255, blank=True)
    environment = models.CharField(max_length=60, blank=True)
    reason = models.TextField(blank=True)
    details: models.JSONField[Any, Any] = models.JSONField(default=dict)
    canonical = models.BinaryField()  # RFC 8785 style JSON of all of the above

    class Meta:
        indexes = (
            models.Index(fields=("team", "-id"), name="auditevent_by_team"),
            models.Index(fields=("subject_kind", "subject_id", "-id"), name="auditevent_by_subject"),
            models.Index(fields=("digest", "-id"), name="auditevent_by_digest"),
            models.Index(fields=("action", "-id"), name="auditevent_by_action"),
            models.Index(fields=("actor_name", "-id"), name="auditevent_by_actor"),
            models.Index(fields=("repository", "-id"), name="auditevent_by_repository"),
            BrinIndex(fields=("at",), name="auditevent_by_time"),  # rows come in the order of time: a few pages do
        )

    def __str__(self) -> str:
        return f"{self.action} {self.pk}"


class AuditPending(models.Model):
    """Written by a trigger with every event, taken by the sealer."""

    event_id = models.BigIntegerField(primary_key=True)

    class Meta:
        verbose_name_plural = "audit pending"

    def __str__(self) -> str:
        return str(self.event_id)
