"""Jobs over `/api/v1/`: how far the work that you asked for is, and its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.jobs import steering
from lifecycle.jobs.access import job_for
from lifecycle.jobs.kinds import names
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.jobs.queries import jobs_visible_to

LOG_PAGE: Final = 500  # lines an answer


class JobSerializer(serializers.ModelSerializer[Job]):
    actor = serializers.CharField(source="actor.username", read_only=True)
    kind = serializers.ChoiceField(choices=names(), read_only=True)

    class Meta:
        model = Job
        fields = (
            "id", "kind", "state", "subject_id", "actor", "attempts", "max_attempts", "progress_done",
            "progress_total", "progress_text", "error_code", "last_error", "created_at", "started_at", "finished_at",
        )  # fmt: skip
        read_only_fields = fields


class LogLineSerializer(serializers.ModelSerializer[JobLogLine]):
    class Meta:
        model = JobLogLine
        fields = ("id", "at", "text")
        read_only_fields = fields


class LogSerializer(serializers.Serializer[Any]):
    """Lines behind `after`; ask again with `after` as given here, until `is_final` and no lines come."""

    lines = LogLineSerializer(many=True)
    after = serializers.IntegerField()
    is_final = serializers.BooleanField()


def log_answer(request: Request, lines: QuerySet[JobLogLine], *, is_final: bool) -> Response:
    """Return the lines behind `?after=`, oldest first; read `is_final` before `lines`, so that none can be missed."""
    text = request.query_params.get("after", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValidationError({"after": ["The id of a line."]})
    page = list(lines.filter(pk__gt=int(text)).order_by("pk")[:LOG_PAGE])
    after = page[-1].pk if page else int(text)
    return Response(LogSerializer({"lines": page, "after": after, "is_final": is_final and len(page) < LOG_PAGE}).data)


class JobViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Job]):
    """Jobs that run on your behalf, newest first; an admin sees every job."""

    serializer_class = JobSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Job]:
        jobs = jobs_visible_to(caller(self.request)).order_by("-pk")
        if self.action == "list":
            if kind := self._choice("kind", names()):
                jobs = jobs.filter(kind=kind)
            if state := self._choice("state", Job.State.values):
                jobs = jobs.filter(state=state)
        return jobs

    def _choice(self, name: str, values: Sequence[str]) -> str:
        value: str = self.request.query_params.get(name, "")
        if value and value not in values:
            raise ValidationError({name: [f"One of {', '.join(values)}."]})
        return value

    @extend_schema(
        parameters=[
            OpenApiParameter("kind", str, enum=names()),
            OpenApiParameter("state", str, enum=Job.State.values),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List jobs."""
        return super().list(request, *args, **kwargs)

    @extend_schema(parameters=[OpenApiParameter("after", int)], responses=LogSerializer)
    @action(detail=True, methods=["get"])
    def log(self, request: Request, pk: str) -> Response:
        """Return lines of the job's log, oldest first; `after` is the last line's id that you have."""
        job = job_for(caller(request), int(pk))
        return log_answer(request, job.log_lines.all(), is_final=job.is_final)

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Stop a job that waits or runs; 409 with the reason where that makes no sense."""
        return Response(self.get_serializer(steering.cancel(int(pk), actor=caller(request))).data)

    @extend_schema(request=None, responses={201: JobSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Queue what failed or was cancelled again, as a new job; 409 with the reason where that makes no sense."""
        return Response(self.get_serializer(steering.retry(int(pk), actor=caller(request))).data, status=201)
