"""Private advisories in `/api/v1/`: parse, call the service, return the result."""

from __future__ import annotations

from typing import Any

import orjson
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.advisories import private
from lifecycle.advisories.models import PrivateAdvisory
from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer


class PrivateAdvisorySerializer(serializers.ModelSerializer[PrivateAdvisory]):
    """One revision of an OSV record of your own. It counts for all teams while it is live."""

    advisory = serializers.CharField(source="osv_id", read_only=True, help_text="Id of the record")
    document = serializers.DictField(read_only=True, help_text="The OSV record")
    withdrawn = serializers.BooleanField(source="is_withdrawal", read_only=True, help_text="It withdraws the record")
    author = serializers.CharField(source="author.username", read_only=True, help_text="Who proposed it")
    decided_by = serializers.CharField(
        source="decided_by.username", read_only=True, default=None, allow_null=True, help_text="The second person"
    )
    decided_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When they decided")
    decision = serializers.CharField(read_only=True, help_text="What they wrote")

    class Meta:
        model = PrivateAdvisory
        fields: tuple[str, ...] = (
            "id", "advisory", "state", "withdrawn", "document", "author", "reason", "created_at", "decided_by",
            "decided_at", "decision",
        )  # fmt: skip
        read_only_fields = fields


class PrivateAdvisoryBody(StrictSerializer):
    document = serializers.DictField(help_text="An OSV record. A later revision has the same id")
    reason = serializers.CharField(max_length=private.TEXT_MAX, required=False, default="", allow_blank=True)


class PrivateAdvisoryReasonBody(StrictSerializer):
    reason = serializers.CharField(max_length=private.TEXT_MAX, required=False, default="", allow_blank=True)


def _reason(request: Request) -> str:
    body = PrivateAdvisoryReasonBody(data=request.data or {})
    body.is_valid(raise_exception=True)
    reason: str = body.validated_data["reason"]
    return reason


class PrivateAdvisoryViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[PrivateAdvisory]
):
    """Private advisories: those that count, and the proposals that you can see."""

    queryset = PrivateAdvisory.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = PrivateAdvisorySerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[PrivateAdvisory]:
        rows = private.private_advisories_visible_to(caller(self.request)).order_by("-pk")
        state = self.request.query_params.get("state", "") if self.action == "list" else ""
        if state and state not in PrivateAdvisory.State.values:
            raise ValidationError({"state": [f"Choose one of {', '.join(PrivateAdvisory.State.values)}."]})
        return rows.filter(state=state) if state else rows

    @extend_schema(parameters=[OpenApiParameter("state", str, enum=PrivateAdvisory.State.values)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List those that are live, your own proposals, and for admins all of them, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one revision."""
        return super().retrieve(request, *args, **kwargs)

    def _answer(self, row: PrivateAdvisory, status: int = 200) -> Response:
        return Response(PrivateAdvisorySerializer(row).data, status=status)

    @extend_schema(request=PrivateAdvisoryBody, responses={201: PrivateAdvisorySerializer})
    def create(self, request: Request) -> Response:
        """Propose an advisory or another revision (waiver.approve in a whole team). An admin has to approve it."""
        body = PrivateAdvisoryBody(data=request.data)
        body.is_valid(raise_exception=True)
        content = orjson.dumps(body.validated_data["document"])
        row = private.propose(content, actor=caller(request), reason=body.validated_data["reason"])
        return self._answer(row, 201)

    @extend_schema(request=PrivateAdvisoryReasonBody, responses=PrivateAdvisorySerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Approve a proposal of somebody else (admins). Packages are matched with it at once."""
        return self._answer(private.approve(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(request=PrivateAdvisoryReasonBody, responses=PrivateAdvisorySerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Reject a proposal of somebody else with a reason (admins)."""
        return self._answer(private.reject(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(request=None, responses=PrivateAdvisorySerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Take a proposal of your own back."""
        return self._answer(private.cancel(int(pk), actor=caller(request)))
