"""Environments in `/api/v1/`."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework import mixins, serializers, viewsets

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.authority.queries import environments_visible_to
from lifecycle.environments.models import Environment


class EnvironmentSerializer(serializers.ModelSerializer[Environment]):
    team = serializers.CharField(source="team.slug", read_only=True)

    class Meta:
        model = Environment
        fields = ("id", "team", "slug", "name", "position", "prefix", "required_approvals")
        read_only_fields = fields


class EnvironmentViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Environment]):
    """The environments of the teams you can see."""

    queryset = Environment.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = EnvironmentSerializer

    def get_queryset(self) -> QuerySet[Environment]:
        return environments_visible_to(caller(self.request)).order_by("pk")
