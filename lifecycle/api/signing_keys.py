"""The keys that sign promoted images, in `/api/v1/`: their public parts, and the change from one to the next."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.trust import signing
from lifecycle.trust.models import SigningKey


class SigningKeySerializer(serializers.ModelSerializer[SigningKey]):
    """A signing key. What a retired key has signed stays valid for whoever trusts it."""

    state = serializers.ChoiceField(
        choices=("active", "retired"), read_only=True, help_text="Every active key signs; at most two are"
    )
    place = serializers.CharField(read_only=True, help_text="Where the private part is")
    public_key = serializers.CharField(read_only=True, help_text="PEM, as cosign and skopeo read it")
    created_by = serializers.CharField(source="created_by.username", read_only=True)

    class Meta:
        model = SigningKey
        fields = ("name", "state", "place", "fingerprint", "public_key", "created_by", "created_at", "retired_at")
        read_only_fields = fields


class SigningKeyBody(StrictSerializer):
    name = serializers.CharField(max_length=60, help_text="Lower-case letters, digits and single hyphens")


class SigningKeyRetireBody(StrictSerializer):
    reason = serializers.CharField(max_length=500, required=False, default="", allow_blank=True)


class SigningKeyViewSet(ListModelMixin, viewsets.GenericViewSet[SigningKey]):
    """The keys that sign promoted images, newest first, with their public parts."""

    queryset = SigningKey.objects.select_related("created_by").order_by("-pk")
    serializer_class = SigningKeySerializer
    lookup_field = "name"
    lookup_value_regex = "[a-z0-9-]{1,60}"

    def retrieve(self, request: Request, name: str) -> Response:
        """Return one key."""
        return Response(self.get_serializer(signing.signing_key(name)).data)

    @extend_schema(request=SigningKeyBody, responses={201: SigningKeySerializer})
    def create(self, request: Request) -> Response:
        """Make a new key (admins). It signs from now on, beside the former one, until that is retired.

        Keys outside of Gravingdock are registered on the server, with `manage.py signing_key create --uri`.
        """
        body = SigningKeyBody(data=request.data)
        body.is_valid(raise_exception=True)
        row = signing.create_key(body.validated_data["name"], actor=caller(request))
        return Response(self.get_serializer(row).data, status=201)

    @extend_schema(request=SigningKeyRetireBody, responses=SigningKeySerializer)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, name: str) -> Response:
        """Retire a key (admins): it signs no longer. A private part that is stored here is deleted."""
        body = SigningKeyRetireBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        row = signing.retire_key(name, actor=caller(request), reason=values["reason"])
        return Response(self.get_serializer(row).data)
