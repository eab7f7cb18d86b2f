"""What admission would say, and the manifest of a cluster, in `/api/v1/clusters/{slug}/`."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.admission import services
from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.clusters.access import cluster_for


class ExplainClusterBody(StrictSerializer):
    """Images, or an object as a manifest has it: exactly one of them."""

    namespace = serializers.CharField(max_length=253, help_text="Where it would run")
    images = serializers.ListField(
        child=serializers.CharField(max_length=600, allow_blank=True, trim_whitespace=False),
        max_length=services.IMAGES_MAX, required=False, default=list, help_text="References of images",
    )  # fmt: skip
    object = serializers.DictField(
        required=False, allow_null=True, default=None, help_text="A Pod, or a workload with a pod template"
    )
    user = serializers.CharField(
        max_length=253, required=False, default="", allow_blank=True, help_text="Who would create it, as in the cluster"
    )
    groups = serializers.ListField(
        child=serializers.CharField(max_length=253), max_length=50, required=False, default=list,
        help_text="Groups of that user",
    )  # fmt: skip


class JudgedImageSerializer(serializers.Serializer[Any]):
    where = serializers.CharField(help_text="Which container or volume names the image")
    reference = serializers.CharField(help_text="As it was given")
    digest = serializers.CharField(allow_null=True, help_text="Digest that is judged; null if not known")
    allowed = serializers.BooleanField(help_text="Whether the image may start there")
    code = serializers.CharField(help_text="`allowed`, or why not, for example `not_promoted`")
    reason = serializers.CharField(help_text="Why not, in one sentence; empty if it is allowed")
    who = serializers.CharField(help_text="Who can resolve it; empty if it is allowed")


class SnapshotSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField(help_text="Number of the snapshot; 0: built for this answer")
    age_s = serializers.FloatField(help_text="Its age in seconds")


class BreakGlassSerializer(serializers.Serializer[Any]):
    permitted = serializers.BooleanField(help_text="Whether the user may break glass in the cluster")
    reason = serializers.CharField(allow_null=True, help_text="Reason of an annotation that counts; null without one")
    opened = serializers.ListField(child=serializers.CharField(), help_text="Codes that it opens")
    refused = serializers.BooleanField(help_text="Whether the annotation itself is refused")


class ExplainClusterSerializer(serializers.Serializer[Any]):
    allowed = serializers.BooleanField(help_text="The answer in this mode: only enforce refuses")
    mode = serializers.CharField(help_text="Mode of the namespace")
    environment = serializers.CharField(allow_null=True, help_text="`TEAM/ENVIRONMENT`; null: it is not bound")
    snapshot = SnapshotSerializer()
    images = JudgedImageSerializer(many=True)
    breakglass = BreakGlassSerializer()


class ExplainClusterView(APIView):
    @extend_schema(request=ExplainClusterBody, responses=ExplainClusterSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Say what admission would decide about images or an object. Nothing is recorded."""
        user = caller(request)
        cluster = cluster_for(user, slug)
        body = ExplainClusterBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        return Response(services.explain(cluster, actor=user, given=values.pop("object"), **values))


class ClusterManifestView(APIView):
    @extend_schema(
        parameters=[OpenApiParameter("mutate", bool, description="Also name images of Pods by digest")],
        responses={(200, "application/yaml"): OpenApiTypes.STR},
    )
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Return the YAML for `kubectl apply`: webhooks, agent, rights and network, with placeholders for secrets."""
        cluster = cluster_for(caller(request), slug)
        is_mutating = request.query_params.get("mutate", "") in {"1", "true"}
        text = services.manifest_for(cluster, is_mutating=is_mutating)
        answer = HttpResponse(text, content_type="application/yaml")
        answer["Content-Disposition"] = f'attachment; filename="gravingdock-{cluster.slug}.yaml"'
        return answer
