"""The audit trail over `/api/v1/`."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework import mixins, serializers, viewsets

from lifecycle.api.caller import caller
from lifecycle.audit.models import AuditEvent
from lifecycle.audit.queries import events_visible_to


class AuditEventSerializer(serializers.ModelSerializer[AuditEvent]):
    class Meta:
        model = AuditEvent
        fields = (
            "id", "at", "action", "outcome", "actor_name", "token_lookup", "address", "request_id", "team_id",
            "subject_kind", "subject_id", "digest", "repository", "environment", "reason", "details",
        )  # fmt: skip
        read_only_fields = fields


class AuditEventViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[AuditEvent]):
    """Events of the teams you may audit, newest first; `action` and `digest` filter the list."""

    queryset = AuditEvent.objects.none()  # only names the model for the schema; get_queryset decides
    serializer_class = AuditEventSerializer

    def get_queryset(self) -> QuerySet[AuditEvent]:
        rows = events_visible_to(caller(self.request))
        for name in ("action", "digest"):
            if value := self.request.query_params.get(name):
                rows = rows.filter(**{name: value})
        return rows.order_by("-pk")
