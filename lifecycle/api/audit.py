"""The audit log in `/api/v1/`."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.serializing import require_valid
from lifecycle.audit.forms import FilterForm
from lifecycle.audit.models import AuditEvent
from lifecycle.audit.queries import filtered, for_list
from lifecycle.audit.types import EventFilter
from lifecycle.authority.access import event_for
from lifecycle.authority.queries import events_visible_to
from lifecycle.sealed_log.exporting import FILE_NAME, MEDIA_TYPE, Wanted, export, proof_of
from lifecycle.sealed_log.queries import with_seal

_FILTERS = [
    OpenApiParameter("action", str, description="Action or its beginning: `promotion` matches promotion.approved."),
    OpenApiParameter("actor", str),
    OpenApiParameter("team", str),
    OpenApiParameter(
        "subject", str, description="A digest (also short), PR-13, W-2, a repository, environment or user."
    ),
    OpenApiParameter("outcome", str, enum=AuditEvent.Outcome.values),
    OpenApiParameter("since", {"type": "string", "format": "date"}, description="First day (UTC)."),
    OpenApiParameter("until", {"type": "string", "format": "date"}, description="Last day (UTC)."),
]
_WANTED = [
    OpenApiParameter("since", {"type": "string", "format": "date"}, description="First day (UTC)"),
    OpenApiParameter("until", {"type": "string", "format": "date"}, description="Last day (UTC)"),
    OpenApiParameter(
        "subject",
        {"type": "string", "maxLength": 300},
        description="Digest, PR-13, `team shop`, `person kim` or `environment shop/prod`; all without it and days",
    ),
    OpenApiParameter(
        "since_size",
        {"type": "integer", "minimum": 1},
        description="Size of a checkpoint that you kept: adds a proof for it",
    ),
]


class AuditEventSerializer(serializers.ModelSerializer[AuditEvent]):
    team = serializers.CharField(source="team.slug", read_only=True, default=None, allow_null=True)
    is_sealed = serializers.BooleanField(read_only=True, help_text="Whether the sealed log has the event")

    class Meta:
        model = AuditEvent
        fields = (
            "id", "at", "action", "outcome", "actor_name", "token_lookup", "address", "request_id", "team_id", "team",
            "subject_kind", "subject_id", "digest", "repository", "environment", "reason", "details", "is_sealed",
        )  # fmt: skip
        read_only_fields = fields


class ExportSerializer(serializers.Serializer[Any]):
    """What to export, as `_WANTED` describes it."""

    since = serializers.DateField(required=False)
    until = serializers.DateField(required=False)
    subject = serializers.CharField(required=False, max_length=300)
    since_size = serializers.IntegerField(required=False, min_value=1)


class AuditEventViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[AuditEvent]):
    """Audit events of the teams in which you have `audit.read`, newest first."""

    serializer_class = AuditEventSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[AuditEvent]:
        events = with_seal(for_list(events_visible_to(caller(self.request)))).order_by("-pk")
        if self.action != "list":
            return events
        return filtered(events, EventFilter(**require_valid(FilterForm(self.request.query_params))))

    @extend_schema(parameters=_WANTED, responses={(200, "application/zip"): OpenApiTypes.BINARY})
    @action(detail=False, methods=["get"], url_path="sealed-export", pagination_class=None)
    def sealed_export(self, request: Request) -> FileResponse:
        """Return a signed export of the sealed log. `gravingdock-verify` checks it offline. The export is recorded."""
        given = ExportSerializer(data=request.query_params)
        given.is_valid(raise_exception=True)
        stream = export(caller(request), Wanted(**given.validated_data))
        return FileResponse(stream, as_attachment=True, filename=FILE_NAME, content_type=MEDIA_TYPE)

    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    @action(detail=True, methods=["get"])
    def proof(self, request: Request, pk: str) -> HttpResponse:
        """Return the proof that an event is in the log (https://c2sp.org/tlog-proof). 409 until it is sealed."""
        return HttpResponse(proof_of(event_for(caller(request), int(pk))), content_type="text/plain; charset=utf-8")

    @extend_schema(parameters=_FILTERS)
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List audit events. The filters are the same as on the audit log page."""
        return super().list(request, *args, **kwargs)
