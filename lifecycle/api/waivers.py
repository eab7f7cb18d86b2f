"""Waivers in `/api/v1/`: parse, call the service, return the result."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import environment_for, repository_of, team_for
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.policies import waivers
from lifecycle.policies.models import Waiver
from lifecycle.policies.queries import waivers_visible_to

_FIELDS = (
    "id", "state", "rule", "advisory", "package", "team", "repository", "environment", "digest", "reason", "ticket",
    "until", "requested_by", "decided_by", "decision", "created_at", "decided_at", "ended_at",
)  # fmt: skip


class WaiverSerializer(serializers.ModelSerializer[Waiver]):
    """An exception to one rule. `advisory` and `package` are empty when it covers the whole rule."""

    rule = serializers.CharField(read_only=True, help_text="Key of the rule")
    team = serializers.CharField(source="team.slug", read_only=True)
    repository = serializers.CharField(source="repository.name", read_only=True, default=None, allow_null=True)
    environment = serializers.CharField(source="environment.slug", read_only=True, default=None, allow_null=True)
    requested_by = serializers.CharField(source="requested_by.username", read_only=True)
    decided_by = serializers.CharField(source="decided_by.username", read_only=True, default=None, allow_null=True)

    class Meta:
        model = Waiver
        fields = _FIELDS
        read_only_fields = fields


class WaiverBody(StrictSerializer):
    team = serializers.CharField(max_length=60)
    rule = serializers.CharField(max_length=60, help_text="Key of the rule")
    repository = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)
    environment = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)
    digest = serializers.CharField(max_length=135, required=False, default="", allow_blank=True)
    advisory = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)
    package = serializers.CharField(max_length=500, required=False, default="", allow_blank=True)
    reason = serializers.CharField(max_length=2000)
    ticket = serializers.CharField(max_length=300)
    until = serializers.DateTimeField(help_text="When it ends")


class WaiverDecisionBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


class WaiverViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Waiver]):
    """Waivers of rules in the teams, repositories and environments you can see."""

    queryset = Waiver.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = WaiverSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Waiver]:
        rows = waivers_visible_to(caller(self.request)).order_by("-pk")
        state = self.request.query_params.get("state") if self.action == "list" else None
        if state is None:
            return rows
        if state not in Waiver.State.values:
            raise serializers.ValidationError({"state": [f"Choose one of {', '.join(Waiver.State.values)}."]})
        return rows.filter(state=state)

    @extend_schema(parameters=[OpenApiParameter("state", str, enum=Waiver.State.values)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the waivers you can see, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one waiver."""
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=WaiverBody, responses={201: WaiverSerializer})
    def create(self, request: Request) -> Response:
        """Request a waiver (waiver.request). A second person must approve it."""
        body = WaiverBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        user, team = caller(request), team_for(caller(request), values.pop("team"))
        repository, environment = values.pop("repository"), values.pop("environment")
        made = waivers.request_waiver(
            team,
            values.pop("rule"),
            actor=user,
            repository=repository_of(repositories_visible_to(user), team.slug, repository) if repository else None,
            environment=environment_for(user, team=team.slug, slug=environment) if environment else None,
            **values,
        )
        return self._answer(made, status=201)

    def _answer(self, waiver: Waiver, *, status: int = 200) -> Response:
        return Response(self.get_serializer(waiver).data, status=status)

    def _reason(self, request: Request) -> str:
        body = WaiverDecisionBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        reason: str = body.validated_data["reason"]
        return reason

    @extend_schema(request=WaiverDecisionBody, responses=WaiverSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Approve a waiver as a second person (waiver.approve; not your own)."""
        return self._answer(waivers.approve_waiver(int(pk), actor=caller(request), reason=self._reason(request)))

    @extend_schema(request=WaiverDecisionBody, responses=WaiverSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Reject a waiver permanently (waiver.approve; not your own). A reason is required."""
        return self._answer(waivers.reject_waiver(int(pk), actor=caller(request), reason=self._reason(request)))

    @extend_schema(request=WaiverDecisionBody, responses=WaiverSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        """End a waiver before its time: your own, or with waiver.approve."""
        return self._answer(waivers.revoke_waiver(int(pk), actor=caller(request), reason=self._reason(request)))
