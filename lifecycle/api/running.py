"""What runs where in `/api/v1/`: reports of clusters, what runs now or ran at a time, and where an image runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final

from django.db.models import Q, QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.authority.access import image_for
from lifecycle.clusters.access import cluster_for
from lifecycle.clusters.queries import clusters_visible_to
from lifecycle.core.errors import NotFound
from lifecycle.inventory.models import Reporter, RunningImage, RuntimeReport
from lifecycle.inventory.queries import at_time, digests_shown, running_images_visible_to, running_of, with_digest
from lifecycle.runtime import accepting
from lifecycle.runtime.exposure import known_of
from lifecycle.runtime.formats import FORMATS
from lifecycle.runtime.reports import too_large
from lifecycle.runtime.times import read_time
from lifecycle.runtime.types import REPORT_MAX_BYTES

_HELP_AT: Final = "A time, such as 2026-11-30T12:00:00Z: what ran then. Default: what runs now"


class ReportParser(BaseParser):
    """Takes the body as it is: reading it is the service's work, also when it is gzip."""

    media_type = "*/*"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Mapping[str, bytes]:
        content: bytes = stream.read(REPORT_MAX_BYTES + 1)
        if len(content) > REPORT_MAX_BYTES:
            raise too_large()
        return {"body": content}


class ReportAcceptedSerializer(serializers.Serializer[Any]):
    """A report that was accepted. Its job says what it changed, and which entries were refused."""

    report_id = serializers.CharField(help_text="As sent; made up for output of another tool")
    kind = serializers.CharField(help_text="full, delta or heartbeat")
    sequence = serializers.IntegerField(help_text="Number of the report since its reporter started")
    job = serializers.IntegerField(allow_null=True, help_text="The job that applies it; null for a heartbeat")
    warning = serializers.CharField(help_text="Empty, or what is odd about it")


class RefusedEntrySerializer(serializers.Serializer[Any]):
    pointer = serializers.CharField(help_text="JSON pointer into the report")
    why = serializers.CharField(help_text="Why the entry was left out")


class ReportSerializer(serializers.ModelSerializer[RuntimeReport]):
    """One report of a cluster."""

    report_id = serializers.CharField(read_only=True, help_text="As sent; made up for output of another tool")
    reporter = serializers.CharField(source="reporter.name", read_only=True, help_text="Whose containers it lists")
    kind = serializers.CharField(read_only=True, help_text="full, delta or heartbeat")
    sequence = serializers.IntegerField(read_only=True, help_text="Number of the report since its reporter started")
    observed_at = serializers.DateTimeField(read_only=True, help_text="Our time, when the reporter's is ahead")
    received_at = serializers.DateTimeField(read_only=True, help_text="When it arrived")
    format = serializers.CharField(read_only=True, help_text="Empty, or the tool whose output it is")
    job = serializers.IntegerField(source="job_id", read_only=True, allow_null=True, help_text="What applies it")
    warning = serializers.CharField(read_only=True, help_text="Empty, or what is odd about it")
    applied_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="null: it waits")
    containers = serializers.IntegerField(read_only=True, allow_null=True, help_text="That were read")
    refused_count = serializers.IntegerField(read_only=True, help_text="Entries that were left out")
    refused = RefusedEntrySerializer(many=True, read_only=True, help_text="The first 100 of them")

    class Meta:
        model = RuntimeReport
        fields = (
            "report_id", "reporter", "kind", "format", "sequence", "observed_at", "received_at", "applied_at", "job",
            "warning", "containers", "refused_count", "refused",
        )  # fmt: skip
        read_only_fields = fields


class ReporterSerializer(serializers.ModelSerializer[Reporter]):
    """Who reports the containers of a cluster, or of one of its hosts."""

    name = serializers.CharField(read_only=True, help_text="It speaks only for its own containers")
    boot = serializers.CharField(read_only=True, help_text="Changes when it starts anew")
    sequence = serializers.IntegerField(read_only=True, help_text="Of its last report")
    full_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="Its last full report arrived")
    state = serializers.CharField(read_only=True, help_text="fresh, late (90 s), silent (10 minutes), or imported")
    seen_at = serializers.DateTimeField(read_only=True, help_text="Its last report arrived")
    applied_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="What it saw then is stored")
    doubled_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="A second agent sent as it then")

    class Meta:
        model = Reporter
        fields = ("name", "state", "boot", "sequence", "seen_at", "full_at", "applied_at", "doubled_at")
        read_only_fields = fields


class ClusterReportsView(APIView):
    """Reports of what runs in a cluster."""

    def get_parsers(self) -> list[BaseParser]:
        """A body is a report, perhaps gzip."""
        return [ReportParser()]

    @extend_schema(operation_id="cluster_reporters", responses=ReporterSerializer(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """List who reports a cluster, and when each was last seen."""
        cluster = cluster_for(caller(request), slug)
        return Response(
            ReporterSerializer(Reporter.objects.filter(cluster=cluster).order_by("name")[:500], many=True).data
        )

    @extend_schema(
        operation_id="cluster_report",
        request={"application/json": OpenApiTypes.OBJECT},
        responses={202: ReportAcceptedSerializer},
        parameters=[
            OpenApiParameter("format", str, enum=FORMATS, description="Output of another tool, unchanged"),
            OpenApiParameter("reporter", str, description="With format: whose containers it lists"),
        ],
    )
    def post(self, request: Request, slug: str) -> Response:
        """Report what runs (runtime.report). The same `report_id` gets the same answer."""
        body = request.data.get("body") if isinstance(request.data, Mapping) else b""
        given = request.query_params
        report = accepting.accept(
            slug, body or b"", actor=caller(request), form=given.get("format", ""),
            key=request.headers.get("Idempotency-Key", "").strip('"')[:128], reporter=given.get("reporter", ""),
            is_gzip=request.headers.get("Content-Encoding", "").strip().lower() == "gzip",
        )  # fmt: skip
        return Response(ReportAcceptedSerializer(accepting.answer_of(report)).data, status=202)


class ClusterReportView(APIView):
    """One report of a cluster."""

    @extend_schema(operation_id="cluster_report_read", responses=ReportSerializer)
    def get(self, request: Request, slug: str, report_id: str) -> Response:
        """Return a report, and which of its entries were refused. Reports are kept for two days."""
        cluster = cluster_for(caller(request), slug)
        row = RuntimeReport.objects.filter(cluster=cluster, report_id=report_id).select_related("reporter")
        report = row.defer("body").first()
        if report is None:
            raise NotFound("Report not found, or you don't have access.")
        return Response(ReportSerializer(report).data)


class KnownSerializer(serializers.Serializer[Any]):
    """Open findings by severity. null: the image is unknown, or nobody scanned it."""

    critical = serializers.IntegerField(help_text="Number of open findings")
    high = serializers.IntegerField(help_text="Number of open findings")
    medium = serializers.IntegerField(help_text="Number of open findings")
    low = serializers.IntegerField(help_text="Number of open findings")
    unknown = serializers.IntegerField(help_text="Severity none or unknown")


class RunningImageSerializer(serializers.ModelSerializer[RunningImage]):
    """An image in a workload, from the first to the last of its containers."""

    cluster = serializers.SerializerMethodField(help_text="Where it runs; empty, as the next four: you cannot see it")
    environment = serializers.SerializerMethodField(help_text="TEAM/ENVIRONMENT of the namespace; null: not bound")
    workload_kind = serializers.SerializerMethodField(help_text="Such as Deployment")
    workload_name = serializers.SerializerMethodField(help_text="Name of the controller of its pods")
    namespace = serializers.SerializerMethodField(help_text="Or the project of Compose, or the cluster of ECS")
    since = serializers.DateTimeField(read_only=True, help_text="Start of its first container")
    image = serializers.CharField(source="reference", read_only=True, help_text="As its pods name it")
    digest = serializers.SerializerMethodField(help_text="Empty: the reporter does not know it")
    is_known = serializers.SerializerMethodField(help_text="Whether you can see it in a registry of ours")
    repository = serializers.SerializerMethodField(help_text="The repository that its name is; null: none you can see")
    containers = serializers.IntegerField(read_only=True, help_text="When it was last reported")
    until = serializers.DateTimeField(read_only=True, allow_null=True, help_text="null: it still runs")
    known_then = serializers.SerializerMethodField(help_text="What was known at `at`; null without it")
    known_now = serializers.SerializerMethodField(help_text="What is known now")

    class Meta:
        model = RunningImage
        fields = (
            "cluster", "environment", "namespace", "workload_kind", "workload_name", "image", "digest", "is_known",
            "repository", "containers", "since", "until", "known_then", "known_now",
        )  # fmt: skip
        read_only_fields = fields

    def get_cluster(self, row: RunningImage) -> str:
        return row.cluster.slug if row.is_place_seen else ""

    def get_namespace(self, row: RunningImage) -> str:
        return row.namespace if row.is_place_seen else ""

    def get_workload_kind(self, row: RunningImage) -> str:
        return row.workload_kind if row.is_place_seen else ""

    def get_workload_name(self, row: RunningImage) -> str:
        return row.workload_name if row.is_place_seen else ""

    def get_environment(self, row: RunningImage) -> str | None:
        place = row.environment if row.is_place_seen else None
        return f"{place.team.slug}/{place.slug}" if place else None

    def get_digest(self, row: RunningImage) -> str:
        digests: Mapping[int, str] = self.context.get("digests", {})
        return digests.get(row.pk, "")

    def get_is_known(self, row: RunningImage) -> bool:
        return row.image_id is not None and bool(row.is_image_seen)

    def get_repository(self, row: RunningImage) -> str | None:
        return row.repository.name if row.repository and row.is_repository_seen else None

    @extend_schema_field(KnownSerializer(allow_null=True))
    def get_known_then(self, row: RunningImage) -> Any:
        return self.context.get("then", {}).get(row.pk)

    @extend_schema_field(KnownSerializer(allow_null=True))
    def get_known_now(self, row: RunningImage) -> Any:
        return self.context.get("now", {}).get(row.pk)


class RunningViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[RunningImage]):
    """What runs where: in clusters of your teams, and images of repositories that you can see."""

    queryset = RunningImage.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = RunningImageSerializer

    def get_queryset(self) -> QuerySet[RunningImage]:
        user, given = caller(self.request), self.request.query_params
        rows = at_time(running_images_visible_to(user), _time(given.get("at", ""))).order_by("-pk")
        cluster, environment = given.get("cluster", ""), given.get("environment", "")
        if cluster:
            if not clusters_visible_to(user, with_deleted=True).filter(slug=cluster).exists():
                raise ValidationError({"cluster": ["No cluster that you can see has this name."]})
            rows = rows.filter(Q(is_place_seen=True), cluster__slug=cluster)
        if environment:
            team, _, slug = environment.rpartition("/")
            places = rows.filter(Q(is_place_seen=True), environment__slug=slug)
            rows = places.filter(environment__team__slug=team) if team else places
        if given.get("namespace"):
            rows = rows.filter(Q(is_place_seen=True), namespace=given["namespace"])
        if given.get("digest"):
            rows = with_digest(rows, given["digest"])
        return rows

    @extend_schema(
        parameters=[
            OpenApiParameter("at", OpenApiTypes.DATETIME, description=_HELP_AT),
            OpenApiParameter("cluster", str),
            OpenApiParameter("environment", str, description="ENVIRONMENT or TEAM/ENVIRONMENT"),
            OpenApiParameter("namespace", str),
            OpenApiParameter("digest", str),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List what runs, newest first. With `at`: what ran then, what was known then, and what is known now."""
        page = self.paginate_queryset(self.get_queryset()) or []
        return self.get_paginated_response(_documents(page, request.query_params.get("at", "")))


class ImageRuntimeSerializer(serializers.Serializer[Any]):
    results = RunningImageSerializer(many=True, help_text="Newest first; at most 200")


class ImageRuntimeView(APIView):
    """Where an image runs and ran."""

    @extend_schema(
        operation_id="image_runtime",
        responses=ImageRuntimeSerializer,
        parameters=[OpenApiParameter("at", OpenApiTypes.DATETIME, description=_HELP_AT)],
    )
    def get(self, request: Request, digest: str) -> Response:
        """Return where an image runs, under its own digest, its platforms' or its index's, and where it ran."""
        image, at = image_for(caller(request), digest), request.query_params.get("at", "")
        rows = running_of(image, caller(request)).order_by("-pk")
        if at:
            rows = at_time(rows, _time(at))
        return Response({"results": _documents(list(rows[:200]), at)})


def _time(text: str) -> Any:
    moment = read_time(text) if text else None
    if text and moment is None:
        raise ValidationError({"at": ["Enter a time such as 2026-11-30T12:00:00Z."]})
    return moment


def _documents(rows: list[RunningImage], at: str) -> list[dict[str, Any]]:
    """Return the rows as their reader may see them, with what is known of their images."""
    moment = _time(at)
    seen = [row for row in rows if row.is_image_seen]
    context = {
        "now": known_of(seen), "then": known_of(seen, moment) if moment else {}, "digests": digests_shown(rows),
    }  # fmt: skip
    documents: list[dict[str, Any]] = RunningImageSerializer(rows, many=True, context=context).data  # type: ignore[assignment]  # a list
    return documents
