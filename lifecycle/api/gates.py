"""Windows and holds in `/api/v1/`: when promotions may run."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.serializing import StrictSerializer
from lifecycle.environments.models import Hold, PromotionWindow
from lifecycle.promotion.holds import holds_visible_to, lift_hold, put_hold
from lifecycle.promotion.opening import create_window, delete_window, windows_visible_to


class WindowSerializer(serializers.ModelSerializer[PromotionWindow]):
    """Freeze or allowed hours. Without team and environment, it applies to the whole site."""

    team = serializers.CharField(source="team.slug", default=None, allow_null=True, read_only=True)
    environment = serializers.CharField(source="environment.slug", default=None, allow_null=True, read_only=True)
    created_by = serializers.CharField(source="created_by.username", read_only=True)

    class Meta:
        model = PromotionWindow
        fields = (
            "id", "name", "kind", "team", "environment", "starts_at", "duration_s", "time_zone", "rule",
            "allows_rollback", "created_by", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class WindowBody(StrictSerializer):
    name = serializers.CharField(max_length=120)
    kind = serializers.ChoiceField(choices=PromotionWindow.Kind.choices)
    starts_at = serializers.CharField(max_length=30, help_text="Local time without offset: 2026-11-26T16:00")
    duration_s = serializers.IntegerField(min_value=1, max_value=31_622_400)
    time_zone = serializers.CharField(max_length=64)
    rule = serializers.CharField(max_length=200, required=False, default="", allow_blank=True)
    allows_rollback = serializers.BooleanField(required=False, default=True)
    team = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)
    environment = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)


class WindowViewSet(FlatListMixin, viewsets.GenericViewSet[PromotionWindow]):
    """The freezes and allowed hours that you can see."""

    queryset = PromotionWindow.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = WindowSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[PromotionWindow]:
        return windows_visible_to(caller(self.request)).order_by("pk")

    @extend_schema(request=WindowBody, responses={201: WindowSerializer})
    def create(self, request: Request) -> Response:
        """Set a window (environment.manage; admins for the whole site). It applies at once."""
        body = WindowBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        window = create_window(actor=caller(request), **values)
        return Response(self.get_serializer(window).data, status=201)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Remove a window."""
        delete_window(int(pk), actor=caller(request))
        return Response(status=204)


class HoldSerializer(serializers.ModelSerializer[Hold]):
    """A hold, or with `is_stop` a stop of the line."""

    team = serializers.CharField(source="team.slug", default=None, allow_null=True, read_only=True)
    environment = serializers.CharField(source="environment.slug", default=None, allow_null=True, read_only=True)
    repository = serializers.CharField(source="repository.name", default=None, allow_null=True, read_only=True)
    owner = serializers.CharField(source="owner.username", read_only=True)

    class Meta:
        model = Hold
        fields = (
            "id", "team", "environment", "repository", "scope", "is_stop", "reason", "owner", "created_at",
            "expires_at",
        )  # fmt: skip
        read_only_fields = fields


class HoldBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000)
    team = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)
    environment = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)
    repository = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)
    scope = serializers.ChoiceField(choices=Hold.Scope.choices, required=False, default=Hold.Scope.ALL.value)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    is_stop = serializers.BooleanField(required=False, default=False)


class HoldViewSet(FlatListMixin, viewsets.GenericViewSet[Hold]):
    """The holds and stops that apply now and that you can see."""

    queryset = Hold.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = HoldSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Hold]:
        return holds_visible_to(caller(self.request))

    @extend_schema(request=HoldBody, responses={201: HoldSerializer})
    def create(self, request: Request) -> Response:
        """Put promotions on hold, or stop the line (environment.manage; admins for the whole site)."""
        body = HoldBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        return Response(self.get_serializer(put_hold(actor=caller(request), **values)).data, status=201)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Lift a hold: its owner, and who could set it."""
        lift_hold(int(pk), actor=caller(request))
        return Response(status=204)
