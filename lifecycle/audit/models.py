"""The audit log. The application's database role can only append events. Each has a pending row until it is sealed."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models.fields.json import KT

from accounts.models import Team, User


class AuditEvent(models.Model):
    """One recorded action. `canonical` contains the exact bytes that will be sealed."""

    class Outcome(models.TextChoices):
        OK = "ok"
        DENIED = "denied"
        FAILED = "failed"

    at = models.DateTimeField()  # the database's clock
    action = models.CharField(max_length=80)  # stable dotted word: promotion.approved
    outcome = models.CharField(max_length=6, choices=Outcome, default=Outcome.OK)
    actor = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    actor_name = models.CharField(max_length=150)  # the user name at that time
    token_lookup = models.CharField(max_length=16, blank=True)  # identifies the API token used; not secret
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
    canonical = models.BinaryField()  # all fields above as JSON in the style of RFC 8785

    class Meta:
        indexes = (
            models.Index(fields=("team", "-id"), name="auditevent_by_team"),
            models.Index(fields=("subject_kind", "subject_id", "-id"), name="auditevent_by_subject"),
            models.Index(fields=("digest", "-id"), name="auditevent_by_digest"),
            models.Index(fields=("action", "-id"), name="auditevent_by_action"),
            models.Index(fields=("actor_name", "-id"), name="auditevent_by_actor"),
            models.Index(fields=("repository", "-id"), name="auditevent_by_repository"),
            models.Index(
                fields=("environment", "-id"), condition=~models.Q(environment=""), name="auditevent_by_environment"
            ),
            models.Index(KT("details__user"), models.F("id").desc(), name="auditevent_by_user"),
            models.Index(KT("details__role"), models.F("id").desc(), name="auditevent_by_role"),
            BrinIndex(fields=("at",), name="auditevent_by_time"),  # rows come in time order, so few pages are enough
        )

    def __str__(self) -> str:
        return f"{self.action} {self.pk}"


class AuditPending(models.Model):
    """An event that is not sealed yet. A trigger inserts the row for the sealer."""

    event_id = models.BigIntegerField(primary_key=True)

    class Meta:
        verbose_name_plural = "audit pending"

    def __str__(self) -> str:
        return str(self.event_id)
