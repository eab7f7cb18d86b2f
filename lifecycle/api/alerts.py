"""Alerts in `/api/v1/`: parse, call the service, return the result."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.alerts import services
from lifecycle.alerts.access import alert_for
from lifecycle.alerts.models import Alert
from lifecycle.alerts.queries import (
    LIVE,
    alerts_visible_to,
    filtered,
    images_of,
    repositories_of,
)
from lifecycle.alerts.sight import shown
from lifecycle.alerts.types import all_kinds
from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core.severities import SEVERITIES

_STATES: Final = (LIVE, *Alert.State.values)


class AlertSerializer(serializers.ModelSerializer[Alert]):
    """A difference that a team was told about. It is live until its state is resolved."""

    team = serializers.CharField(source="team.slug", read_only=True, help_text="The team that owns the layer at fault")
    images = serializers.IntegerField(
        source="images_seen", read_only=True, help_text="Affected images in use, in repositories that you can see"
    )
    evidence = serializers.SerializerMethodField(help_text="Up to five packages with the reason in words")
    former = serializers.IntegerField(
        source="former_id", read_only=True, allow_null=True, help_text="The alert about the same before this one"
    )
    vulnerability = serializers.CharField(read_only=True, help_text="The vulnerability; empty for other kinds")
    cluster = serializers.SerializerMethodField(help_text="null: it is about no workload; empty: you cannot see it")
    namespace = serializers.SerializerMethodField(
        help_text="Where it runs; empty for other kinds, or if you cannot see it"
    )
    workload = serializers.SerializerMethodField(help_text="Such as Deployment/api; empty as the namespace")
    rule = serializers.CharField(read_only=True, help_text="Of what found it, such as Falco's; else empty")
    count = serializers.IntegerField(read_only=True, help_text="How often its cause was seen")
    first_at = serializers.DateTimeField(read_only=True, help_text="When its cause was first seen")
    last_at = serializers.DateTimeField(read_only=True, help_text="When its cause was last seen")
    acted_by = serializers.CharField(
        source="acted_by.username",
        read_only=True,
        default=None,
        allow_null=True,
        help_text="The last person who acted",
    )
    acted_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When they did")
    snoozed_until = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When it is told again")
    resolved_by = serializers.CharField(
        source="resolved_by.username",
        read_only=True,
        default=None,
        allow_null=True,
        help_text="null: it closed because its cause is gone",
    )

    class Meta:
        model = Alert
        fields: tuple[str, ...] = (
            "id", "kind", "state", "severity", "vulnerability", "digest", "cluster", "namespace",
            "workload", "rule", "team", "images", "count", "first_at",
            "last_at", "evidence", "former", "acted_by", "acted_at", "reason", "snoozed_until", "resolved_by",
            "resolved_at",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.DictField())
    def get_evidence(self, alert: Alert) -> dict[str, Any]:
        """Return the evidence."""
        return dict(shown(alert).evidence)

    def get_cluster(self, alert: Alert) -> str | None:
        return shown(alert).cluster

    def get_namespace(self, alert: Alert) -> str:
        return shown(alert).namespace

    def get_workload(self, alert: Alert) -> str:
        return shown(alert).workload


class AlertRepositorySerializer(serializers.Serializer[Any]):
    repository = serializers.CharField()
    images = serializers.IntegerField(help_text="Affected images in use there when the alert was last refreshed")


class AlertImageSerializer(serializers.Serializer[Any]):
    digest = serializers.CharField()
    repository = serializers.CharField()
    team = serializers.CharField()


class AlertDetailSerializer(AlertSerializer):
    repositories = AlertRepositorySerializer(many=True, read_only=True, help_text="Those that you can see")
    affected = AlertImageSerializer(many=True, read_only=True, help_text="Affected images in use now; at most 200")
    waiting_on_base = AlertImageSerializer(
        many=True, read_only=True, help_text="Images built on these, which wait for this team; at most 200"
    )

    class Meta(AlertSerializer.Meta):
        fields = (*AlertSerializer.Meta.fields, "repositories", "affected", "waiting_on_base")
        read_only_fields = fields


class AlertReasonBody(StrictSerializer):
    reason = serializers.CharField(max_length=services.REASON_MAX, required=False, default="", allow_blank=True)


class AlertSnoozeBody(AlertReasonBody):
    until = serializers.DateTimeField(help_text=f"At most {services.SNOOZE_DAYS_MAX} days ahead")


class AlertResolveBody(StrictSerializer):
    reason = serializers.CharField(max_length=services.REASON_MAX)


class AlertViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Alert]):
    """What changed for teams: findings that are new, worse, newly exploited or fixed."""

    queryset = Alert.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = AlertSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Alert]:
        user = caller(self.request)
        rows = alerts_visible_to(user).order_by("-pk")
        if self.action != "list":
            return rows
        given = self.request.query_params
        team = given.get("team", "")
        if team and not teams_visible_to(user).filter(slug=team).exists():
            raise ValidationError({"team": ["No team that you can see has this slug."]})
        return filtered(
            rows,
            state=_one_of(given, "state", _STATES),
            kind=_one_of(given, "kind", [kind.name for kind in all_kinds()]),
            severity=_one_of(given, "severity", SEVERITIES),
            team=team,
            name=given.get("vulnerability", "")[:200],
            cluster=given.get("cluster", "")[:60],
        )

    @extend_schema(
        parameters=[
            OpenApiParameter("state", str, enum=_STATES, description="live: all but resolved"),
            OpenApiParameter("kind", str, description="Such as finding.new"),
            OpenApiParameter("severity", str, enum=SEVERITIES),
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("cluster", str, description="Name of a cluster"),
            OpenApiParameter("vulnerability", str, description="Its name, such as CVE-2026-1"),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the alerts you can see, newest first."""
        return super().list(request, *args, **kwargs)

    @extend_schema(responses=AlertDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one alert, with the repositories and images that you can see."""
        user = caller(request)
        alert = alert_for(user, int(kwargs["pk"]))
        answer = dict(AlertSerializer(alert).data)
        answer["repositories"] = [
            {"repository": row.name, "images": count} for row, count in repositories_of(alert, user)
        ]
        for name, waiting in (("affected", False), ("waiting_on_base", True)):
            answer[name] = [AlertImageSerializer(image).data for image in images_of(alert, user, waiting=waiting)]
        return Response(answer)

    def _answer(self, alert: Alert) -> Response:
        return Response(AlertSerializer(alert).data)

    @extend_schema(request=AlertReasonBody, responses=AlertSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: str) -> Response:
        """Say that somebody works on it (runtime.manage): the team is not reminded."""
        body = AlertReasonBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        return self._answer(services.acknowledge(int(pk), actor=caller(request), **body.validated_data))

    @extend_schema(request=AlertSnoozeBody, responses=AlertSerializer)
    @action(detail=True, methods=["post"])
    def snooze(self, request: Request, pk: str) -> Response:
        """Put it off until a time (runtime.manage). Then it is open again, and the team is told."""
        body = AlertSnoozeBody(data=request.data)
        body.is_valid(raise_exception=True)
        return self._answer(services.snooze(int(pk), actor=caller(request), **body.validated_data))

    @extend_schema(request=AlertResolveBody, responses=AlertSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, pk: str) -> Response:
        """Close it with a reason (runtime.manage). If its cause stays, a new alert names it a day later."""
        body = AlertResolveBody(data=request.data)
        body.is_valid(raise_exception=True)
        return self._answer(services.resolve(int(pk), actor=caller(request), **body.validated_data))


def _one_of(given: Any, name: str, allowed: Any) -> str:
    value: str = given.get(name, "")
    if value and value not in allowed:
        raise ValidationError({name: [f"Choose one of {', '.join(allowed)}."]})
    return value
