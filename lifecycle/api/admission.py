"""What admission would say, and the manifest of a cluster, in `/api/v1/clusters/{slug}/`."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.admission import services
from lifecycle.admission.forecasting import Forecast, ForecastRow, forecast, forecast_of_bindings
from lifecycle.admission.models import AdmissionDebt
from lifecycle.admission.queries import open_debts
from lifecycle.api.caller import caller
from lifecycle.api.clusters import BindingsBody
from lifecycle.api.serializing import StrictSerializer
from lifecycle.clusters.access import cluster_for, why_not_manage
from lifecycle.core.reasons import refuse_if

_DEBTS_MAX: Final = 200
_FORECAST_MAX: Final = 200


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
    @extend_schema(responses={(200, "application/yaml"): OpenApiTypes.STR})
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Return the YAML for `kubectl apply`: webhooks, agent, rights and network, with placeholders for secrets."""
        cluster = cluster_for(caller(request), slug)
        answer = HttpResponse(services.manifest_for(cluster), content_type="application/yaml")
        answer["Content-Disposition"] = f'attachment; filename="gravingdock-{cluster.slug}.yaml"'
        return answer


class ForecastRowSerializer(serializers.Serializer[Any]):
    namespace = serializers.CharField(help_text="Where it runs")
    workload_kind = serializers.CharField(help_text="Such as Deployment")
    workload_name = serializers.CharField(help_text="What people deploy")
    containers = serializers.IntegerField(help_text="That run now")
    environment = serializers.CharField(help_text="`TEAM/ENVIRONMENT`; empty: the namespace is not bound")
    images = JudgedImageSerializer(many=True, help_text="What would be refused; empty: nothing")
    breakglass = serializers.CharField(help_text="Break-glass annotation of its Pods; empty: none is known")
    breakglass_counts = serializers.BooleanField(help_text="Whether the annotation would open something")


class ForecastSerializer(serializers.Serializer[Any]):
    workloads = serializers.IntegerField(help_text="That were judged")
    templates = serializers.IntegerField(help_text="Of these, those without Pods now")
    containers = serializers.IntegerField(help_text="That they run")
    refused_count = serializers.IntegerField(help_text="Workloads whose Pods could not start again")
    refused = ForecastRowSerializer(many=True, help_text="The first 200 of them, by namespace and name")
    annotated_count = serializers.IntegerField(help_text="Workloads with a break-glass annotation")
    annotated = ForecastRowSerializer(many=True, help_text="The first 200 of them")
    unknown = serializers.ListField(child=serializers.CharField(), help_text="What cannot be known, in sentences")


class ClusterForecastView(APIView):
    @extend_schema(operation_id="cluster_forecast", responses=ForecastSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Say what mode `enforce` would refuse of what is known to run in a cluster (environment.manage)."""
        user = caller(request)
        return self._answer(forecast(cluster_for(user, slug), actor=user))

    @extend_schema(operation_id="cluster_bindings_forecast", request=BindingsBody, responses=ForecastSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Say what would be refused with these bindings, and is not refused now (environment.manage). Saves nothing."""
        user = caller(request)
        refuse_if(why_not_manage(user, cluster_for(user, slug).team))
        body = BindingsBody(data=request.data)
        body.is_valid(raise_exception=True)
        return self._answer(forecast_of_bindings(slug, body.wishes(), actor=user))

    def _answer(self, found: Forecast) -> Response:
        shown = {
            "workloads": found.workloads,
            "templates": found.templates,
            "containers": found.containers,
            "refused_count": len(found.refused),
            "refused": [_forecast_row(row) for row in found.refused[:_FORECAST_MAX]],
            "annotated_count": len(found.annotated),
            "annotated": [_forecast_row(row) for row in found.annotated[:_FORECAST_MAX]],
            "unknown": found.unknown,
        }
        return Response(ForecastSerializer(shown).data)


def _forecast_row(row: ForecastRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__} | {"images": [each.as_json() for each in row.images]}


class ClusterBundleSerializer(serializers.Serializer[Any]):
    bundle = serializers.CharField(
        help_text="PEM of the authorities to trust; empty: clusters trust the address anyway"
    )
    sha256 = serializers.CharField(help_text="What an agent reports as `bundle_sha256` when its webhooks have it")
    confirmed = serializers.BooleanField(help_text="Whether the agent of the cluster reported it last")
    confirmed_at = serializers.DateTimeField(allow_null=True, help_text="Since when; null if it has not")


class ClusterBundleView(APIView):
    @extend_schema(operation_id="cluster_bundle", responses=ClusterBundleSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Return the certificates that the webhooks of a cluster should trust, and whether its agent confirmed them."""
        cluster = cluster_for(caller(request), slug)
        return Response(ClusterBundleSerializer(services.bundle_for(cluster)).data)


class AdmissionDebtSerializer(serializers.ModelSerializer[AdmissionDebt]):
    """A use of break-glass in a cluster, for one workload and its images."""

    namespace = serializers.CharField(read_only=True, help_text="Where it runs")
    workload_kind = serializers.CharField(read_only=True, help_text="Such as Deployment")
    workload_name = serializers.CharField(read_only=True, help_text="What people deploy")
    digests = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="What it opens: digests, references of images without one, failed checks",
    )
    reason = serializers.CharField(read_only=True, help_text="As in the annotation")
    user_name = serializers.CharField(read_only=True, help_text="Who broke the glass, as the cluster names people")
    count = serializers.IntegerField(read_only=True, help_text="Objects that it let through")
    opened_at = serializers.DateTimeField(read_only=True, help_text="When the glass was broken")
    due_at = serializers.DateTimeField(read_only=True, help_text="Until when it opens its images unreviewed")
    reviewed_by = serializers.CharField(
        source="reviewed_by.username", read_only=True, default=None, allow_null=True, help_text="null: nobody yet"
    )
    reviewed_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="null: not reviewed yet")
    outcome = serializers.CharField(read_only=True, help_text="`justified`, `unjustified`, or empty: not reviewed yet")
    comment = serializers.CharField(read_only=True, help_text="What the review found")

    class Meta:
        model = AdmissionDebt
        fields = (
            "id", "namespace", "workload_kind", "workload_name", "digests", "reason", "user_name", "count",
            "opened_at", "due_at", "reviewed_by", "reviewed_at", "outcome", "comment",
        )  # fmt: skip
        read_only_fields = fields


class AdmissionDebtsSerializer(serializers.Serializer[Any]):
    results = AdmissionDebtSerializer(many=True, help_text="The oldest first; at most 200")


class ReviewDebtBody(StrictSerializer):
    outcome = serializers.ChoiceField(choices=AdmissionDebt.Outcome.values, help_text="`justified` or `unjustified`")
    comment = serializers.CharField(max_length=services.COMMENT_MAX, help_text="What you found")


class AdmissionDebtsView(APIView):
    @extend_schema(operation_id="cluster_debts", responses=AdmissionDebtsSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """List the uses of break-glass in a cluster that nobody has reviewed."""
        cluster = cluster_for(caller(request), slug)
        rows = open_debts(cluster).select_related("reviewed_by")[:_DEBTS_MAX]
        return Response(AdmissionDebtsSerializer({"results": rows}).data)


class ReviewDebtView(APIView):
    @extend_schema(operation_id="cluster_debt_review", request=ReviewDebtBody, responses=AdmissionDebtSerializer)
    def post(self, request: Request, slug: str, pk: int) -> Response:
        """Review a use of break-glass of another person (promotion.approve)."""
        user = caller(request)
        cluster = cluster_for(user, slug)
        body = ReviewDebtBody(data=request.data)
        body.is_valid(raise_exception=True)
        debt = services.review_debt(cluster, pk, actor=user, **body.validated_data)
        return Response(AdmissionDebtSerializer(debt).data)
