"""Jobs over `/api/v1/`: how far the work that you asked for is."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework import mixins, serializers, viewsets

from lifecycle.api.caller import caller
from lifecycle.jobs.models import Job


class JobSerializer(serializers.ModelSerializer[Job]):
    class Meta:
        model = Job
        fields = (
            "id", "kind", "state", "attempts", "max_attempts", "progress_done", "progress_total", "progress_text",
            "error_code", "last_error", "created_at", "started_at", "finished_at",
        )  # fmt: skip
        read_only_fields = fields


class JobViewSet(mixins.RetrieveModelMixin, viewsets.GenericViewSet[Job]):
    """A job that runs on your behalf; an admin sees every job."""

    queryset = Job.objects.none()  # only names the model for the schema; get_queryset decides
    serializer_class = JobSerializer

    def get_queryset(self) -> QuerySet[Job]:
        user = caller(self.request)
        return Job.objects.all() if user.is_superuser else Job.objects.filter(actor=user)
