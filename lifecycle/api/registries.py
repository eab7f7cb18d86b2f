"""Registries in `/api/v1/`: list, add, change, test and remove them (admins only)."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.preconditions import revision_wanted, with_etag
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import registries_for, registry_for
from lifecycle.authority.services import registries
from lifecycle.authority.services.registries import CERTIFICATE_MAX, PASSWORD_MAX
from lifecycle.oci.probing import Problem
from lifecycle.registry.models import Registry

_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the registry that you read; optional."
)


class RegistrySerializer(serializers.ModelSerializer[Registry]):
    """A registry. Its password is never shown."""

    username = serializers.CharField(read_only=True, help_text="Our user name there; empty without credentials")

    class Meta:
        model = Registry
        fields = ("id", "name", "endpoint", "is_managed", "username", "ca_certificate", "revision", "created_at")
        read_only_fields = fields


class RegistryBody(StrictSerializer):
    name = serializers.CharField(max_length=60)
    endpoint = serializers.CharField(max_length=300, help_text="Address without path: `https://host[:port]`")
    username = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)
    password = serializers.CharField(
        max_length=PASSWORD_MAX, required=False, default="", allow_blank=True, trim_whitespace=False,
        help_text="Stored encrypted; never shown",
    )  # fmt: skip
    without_tls = serializers.BooleanField(
        required=False, default=False, help_text="Allow `http://`: the password travels readable"
    )
    ca_certificate = serializers.CharField(
        max_length=CERTIFICATE_MAX, required=False, default="", allow_blank=True,
        help_text="PEM of an authority to trust for this registry",
    )  # fmt: skip


class RegistryChangeBody(StrictSerializer):
    """What to change; what is left out stays. An empty `username` removes the credentials."""

    name = serializers.CharField(max_length=60, required=False)
    endpoint = serializers.CharField(max_length=300, required=False, help_text="Needs the password again")
    username = serializers.CharField(max_length=255, required=False, allow_blank=True)
    password = serializers.CharField(
        max_length=PASSWORD_MAX, required=False, allow_blank=True, trim_whitespace=False,
        help_text="Empty: it stays the same",
    )  # fmt: skip
    without_tls = serializers.BooleanField(required=False, help_text="Allow `http://`: the password travels readable")
    ca_certificate = serializers.CharField(max_length=CERTIFICATE_MAX, required=False, allow_blank=True)


class RegistryTestSerializer(serializers.Serializer[Any]):
    is_ok = serializers.BooleanField(help_text="Whether it is a registry that takes our credentials")
    problem = serializers.ChoiceField(
        choices=[each.value for each in Problem], help_text="What is wrong; empty if nothing"
    )
    detail = serializers.CharField(source="text")


class RegistryViewSet(FlatListMixin, viewsets.GenericViewSet[Registry]):
    """The managed registry, and those that admins added (admins only)."""

    queryset = Registry.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = RegistrySerializer
    lookup_value_regex = "[0-9]{1,18}"
    calls_others: ClassVar[frozenset[str]] = frozenset({"test"})

    def get_queryset(self) -> QuerySet[Registry]:
        return registries_for(caller(self.request)).order_by("pk")

    @extend_schema(responses=RegistrySerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one registry. The `ETag` is its revision."""
        return self._answer(registry_for(caller(request), int(pk)))

    @extend_schema(request=RegistryBody, responses={201: RegistrySerializer})
    def create(self, request: Request) -> Response:
        """Add a registry, with our credentials for it."""
        body = RegistryBody(data=request.data)
        body.is_valid(raise_exception=True)
        registry = registries.add_registry(actor=caller(request), **body.validated_data)
        return self._answer(registry, status=201)

    @extend_schema(request=RegistryChangeBody, responses=RegistrySerializer, parameters=[_IF_MATCH])
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change a registry, or our credentials for it."""
        body = RegistryChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        registry = registries.change_registry(
            int(pk), actor=caller(request), revision=revision_wanted(request), **body.validated_data
        )
        return self._answer(registry)

    @extend_schema(responses={204: None}, parameters=[_IF_MATCH])
    def destroy(self, request: Request, pk: str) -> Response:
        """Remove a registry that nothing uses. The error says what does."""
        registries.remove_registry(int(pk), actor=caller(request), revision=revision_wanted(request))
        return Response(status=204)

    @extend_schema(request=None, responses=RegistryTestSerializer)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Ask the registry whether it is one and takes our credentials. Changes nothing."""
        return Response(RegistryTestSerializer(registries.test_registry(int(pk), actor=caller(request))).data)

    def _answer(self, registry: Registry, *, status: int = 200) -> Response:
        return with_etag(Response(RegistrySerializer(registry).data, status=status), registry.revision)
