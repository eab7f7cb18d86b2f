"""Stored responses of idempotent API requests."""

from __future__ import annotations

from typing import Any

from django.db import models

from accounts.models import User


class IdempotencyKey(models.Model):
    """The response to a POST with an `Idempotency-Key`, stored for a day (draft-ietf-httpapi-idempotency-key)."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    request_sha256 = models.BinaryField(max_length=32)  # method, path with query, and body
    status = models.IntegerField()
    body: models.JSONField[Any, Any] = models.JSONField(null=True)  # JSON text in a string, without secrets
    location = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "key"), name="idempotencykey_once_per_user"),)
        indexes = (models.Index(fields=("created_at",), name="idempotencykey_by_age"),)

    def __str__(self) -> str:
        return self.key
