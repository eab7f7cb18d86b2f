"""Jobs in `/api/v1/`: the progress and the log of background work."""

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
from lifecycle.api.flat import FlatListMixin
from lifecycle.jobs import steering
from lifecycle.jobs.access import job_for
from lifecycle.jobs.kinds import names
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.jobs.queries import jobs_visible_to

LOG_PAGE: Final = 500  # lines per response


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
    """Log lines after the line `after`. Repeat the request with the returned `after` until `is_final` is true."""

    lines = LogLineSerializer(many=True)
    after = serializers.IntegerField()
    is_final = serializers.BooleanField()


def log_answer(request: Request, lines: QuerySet[JobLogLine], *, is_final: bool) -> Response:
    """Return the lines after `?after=`, oldest first.

    The caller reads `is_final` before `lines`, so that no line can be missed.
    """
    text = request.query_params.get("after", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValidationError({"after": ["Enter the id of a log line."]})
    page = list(lines.filter(pk__gt=int(text)).order_by("pk")[:LOG_PAGE])
    after = page[-1].pk if page else int(text)
    return Response(LogSerializer({"lines": page, "after": after, "is_final": is_final and len(page) < LOG_PAGE}).data)


class JobViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Job]):
    """Your jobs, newest first. Admins see all jobs."""

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
            raise ValidationError({name: [f"Choose one of {', '.join(values)}."]})
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
        """Return lines of the job's log, oldest first. `after` is the id of the last line you have."""
        job = job_for(caller(request), int(pk))
        return log_answer(request, job.log_lines.all(), is_final=job.is_final)

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel a waiting or running job. Returns 409 with the reason if the job cannot be cancelled."""
        return Response(self.get_serializer(steering.cancel(int(pk), actor=caller(request))).data)

    @extend_schema(request=None, responses={201: JobSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Retry a failed or cancelled job as a new job. Returns 409 with the reason if the job cannot be retried."""
        return Response(self.get_serializer(steering.retry(int(pk), actor=caller(request))).data, status=201)
