"""Recipes, watches and rebuild waves in `/api/v1/`: parse the request, call the service, return the result."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import generics, mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.jobs import LogSerializer, log_answer
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import repository_for, team_for
from lifecycle.core.errors import LimitExceeded, NotFound
from lifecycle.rebuild import estimates, planning, queries, services
from lifecycle.rebuild.access import job_for, wave_for
from lifecycle.rebuild.contexts import CONTEXT_MAX
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, RebuildWave, Recipe, UpstreamWatch

BODY_MAX: Final = CONTEXT_MAX * 3 // 2  # bytes; base64 turns 3 bytes into 4, and the body also contains the recipe


class Base64Field(serializers.Field[bytes, str, str, Any]):
    """Bytes of a file, as base64 (RFC 4648, section 4)."""

    def to_internal_value(self, data: Any) -> bytes:
        if not isinstance(data, str):
            raise serializers.ValidationError("Enter the content of the file as base64.")
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise serializers.ValidationError("Invalid base64.") from None

    def to_representation(self, value: bytes) -> str:
        return base64.b64encode(value).decode()


extend_schema_field(OpenApiTypes.BYTE)(Base64Field)


class RecipeSerializer(serializers.ModelSerializer[Recipe]):
    repository = serializers.CharField(source="repository.name", read_only=True)
    author = serializers.CharField(source="author.username", read_only=True)
    build_args = serializers.DictField(child=serializers.CharField(), read_only=True)
    base_references = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Recipe
        fields = (
            "repository", "revision", "containerfile", "context_digest", "build_args", "base_references", "tag",
            "author", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class RecipeBody(StrictSerializer):
    containerfile = serializers.CharField(max_length=services.CONTAINERFILE_MAX, trim_whitespace=False)
    # The API's name for this field. The metaclass removes the attribute, so `Serializer.context` is not shadowed.
    context = serializers.DictField(  # type: ignore[assignment]  # see above
        child=Base64Field(), required=False, default=dict
    )
    build_args = serializers.DictField(
        child=serializers.CharField(allow_blank=True, trim_whitespace=False, max_length=4000),
        required=False,
        default=dict,
    )
    tag = serializers.CharField(max_length=128, required=False, default="latest")


class RecipeView(generics.GenericAPIView[Recipe]):
    """The build recipe of a repository."""

    serializer_class = RecipeSerializer

    @extend_schema(responses=RecipeSerializer)
    def get(self, request: Request, repository_id: int) -> Response:
        """Return the current recipe; 404 if there is none."""
        recipe = queries.current_recipe(repository_for(caller(request), repository_id))
        if recipe is None:
            raise NotFound("This repository has no recipe.")
        return Response(self.get_serializer(recipe).data)

    @extend_schema(request=RecipeBody, responses=RecipeSerializer)
    def put(self, request: Request, repository_id: int) -> Response:
        """Set the current recipe (recipe.manage).

        An unchanged recipe does not create a new revision.
        """
        if int(request.META.get("CONTENT_LENGTH") or 0) > BODY_MAX:
            raise LimitExceeded(f"The recipe with its files is too large. The limit is {BODY_MAX} bytes.")
        body = RecipeBody(data=request.data)
        body.is_valid(raise_exception=True)
        recipe = services.put_recipe(repository_id, actor=caller(request), **body.validated_data)
        return Response(self.get_serializer(recipe).data)


class BuilderSerializer(serializers.Serializer[BuilderPermit]):
    """Whether the embedded builder can run recipes here, and who turned it on."""

    is_on = serializers.BooleanField(read_only=True)
    through = serializers.ChoiceField(choices=["team", "repository"], allow_null=True, read_only=True)
    turned_on_by = serializers.CharField(allow_null=True, read_only=True)
    turned_on_at = serializers.DateTimeField(allow_null=True, read_only=True)

    def to_representation(self, instance: BuilderPermit) -> dict[str, Any]:
        return {
            "is_on": True,
            "through": "repository" if instance.team_id is None else "team",
            "turned_on_by": instance.turned_on_by.username,
            "turned_on_at": serializers.DateTimeField().to_representation(instance.turned_on_at),
        }


def _builder_answer(permit: BuilderPermit | None) -> Response:
    if permit is None:
        return Response({"is_on": False, "through": None, "turned_on_by": None, "turned_on_at": None})
    return Response(BuilderSerializer(permit).data)


class TeamBuilderView(generics.GenericAPIView[BuilderPermit]):
    """The switch of the embedded builder for all repositories of a team."""

    serializer_class = BuilderSerializer

    @extend_schema(responses=BuilderSerializer)
    def get(self, request: Request, team: str) -> Response:
        """Return whether the builder is on for the team."""
        row = team_for(caller(request), team)
        return _builder_answer(BuilderPermit.objects.select_related("turned_on_by").filter(team=row).first())

    @extend_schema(request=None, responses=BuilderSerializer)
    def put(self, request: Request, team: str) -> Response:
        """Turn the builder on for the team (admins only)."""
        return _builder_answer(services.turn_builder_on(actor=caller(request), team=team))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, team: str) -> Response:
        """Turn the builder off for the team (admins only). It stays on for repositories that have their own switch."""
        services.turn_builder_off(actor=caller(request), team=team)
        return Response(status=204)


class RepositoryBuilderView(generics.GenericAPIView[BuilderPermit]):
    """The switch of the embedded builder for one repository."""

    serializer_class = BuilderSerializer

    @extend_schema(responses=BuilderSerializer)
    def get(self, request: Request, repository_id: int) -> Response:
        """Return whether the builder is on for the repository, by itself or through its team."""
        return _builder_answer(queries.builder_permit_of(repository_for(caller(request), repository_id)))

    @extend_schema(request=None, responses=BuilderSerializer)
    def put(self, request: Request, repository_id: int) -> Response:
        """Turn the builder on for the repository (admins only)."""
        return _builder_answer(services.turn_builder_on(actor=caller(request), repository_id=repository_id))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, repository_id: int) -> Response:
        """Turn the builder off for the repository (admins only); 409 when it is on for the whole team."""
        services.turn_builder_off(actor=caller(request), repository_id=repository_id)
        return Response(status=204)


class WatchSerializer(serializers.ModelSerializer[UpstreamWatch]):
    repository = serializers.CharField(source="repository.name", read_only=True)
    created_by = serializers.CharField(source="created_by.username", read_only=True)
    problem = serializers.CharField(
        read_only=True,
        default="",
        help_text="Reason why the last move of the tag created no plan. Plans use the permissions of `created_by`.",
    )

    class Meta:
        model = UpstreamWatch
        fields = ("id", "repository", "tag", "last_digest", "problem", "created_by", "created_at")
        read_only_fields = fields


class WatchBody(StrictSerializer):
    tag = serializers.CharField(max_length=128, required=False, default="latest")


class WatchesView(generics.ListAPIView[UpstreamWatch]):
    """The watched tags of a repository. A rebuild wave is planned when such a tag moves."""

    queryset = UpstreamWatch.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = WatchSerializer

    def get_queryset(self) -> QuerySet[UpstreamWatch]:
        repository = repository_for(caller(self.request), self.kwargs["repository_id"])
        return queries.watches_of(repository).order_by("pk")

    @extend_schema(request=WatchBody, responses={201: WatchSerializer})
    def post(self, request: Request, repository_id: int) -> Response:
        """Watch a tag (image.rebuild). Returns the existing watch if the tag is already watched."""
        body = WatchBody(data=request.data)
        body.is_valid(raise_exception=True)
        watch = services.watch_base(repository_id, actor=caller(request), **body.validated_data)
        return Response(self.get_serializer(watch).data, status=201)


class WatchView(generics.GenericAPIView[UpstreamWatch]):
    """One watch."""

    serializer_class = WatchSerializer

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, repository_id: int, watch_id: int) -> Response:
        """Stop watching a tag (image.rebuild)."""
        services.unwatch(repository_id, watch_id, actor=caller(request))
        return Response(status=204)


class SkippedSerializer(serializers.Serializer[dict[str, str]]):
    repository = serializers.CharField()
    reason = serializers.CharField()


class WaveSerializer(serializers.ModelSerializer[RebuildWave]):
    """A rebuild wave. `jobs_by_state` counts only the images you can see."""

    base = serializers.CharField(source="repository.name", read_only=True)
    team = serializers.CharField(source="repository.team.slug", read_only=True)
    old_digest = serializers.CharField(source="old_base.digest", read_only=True, default=None, allow_null=True)
    new_digest = serializers.CharField(source="new_base.digest", read_only=True)
    planned_by = serializers.CharField(source="planned_by.username", read_only=True)
    confirmed_by = serializers.CharField(source="confirmed_by.username", read_only=True, default=None, allow_null=True)
    jobs_by_state = serializers.SerializerMethodField()

    class Meta:
        model = RebuildWave
        fields: tuple[str, ...] = (
            "id", "state", "trigger", "base", "team", "old_digest", "new_digest", "planned_by", "confirmed_by",
            "created_at", "confirmed_at", "finished_at", "jobs_by_state",
        )  # fmt: skip
        read_only_fields = fields

    def get_jobs_by_state(self, wave: RebuildWave) -> dict[str, int]:
        counts: dict[int, dict[str, int]] = self.context["job_counts"]
        return counts.get(wave.pk, {})


class CandidateSerializer(serializers.Serializer[Any]):
    """An environment with an older version of the image. The new image could be promoted to it."""

    team = serializers.CharField(source="environment.team.slug")
    environment = serializers.CharField(source="environment.slug")
    tag = serializers.CharField(help_text="Tag of the image in the environment")


class RebuildJobSerializer(serializers.ModelSerializer[RebuildJob]):
    repository = serializers.CharField(source="repository.name", read_only=True)
    repository_id = serializers.IntegerField(read_only=True)
    team = serializers.CharField(source="repository.team.slug", read_only=True)
    parents = serializers.SerializerMethodField()
    recipe_revision = serializers.IntegerField(source="recipe.revision", read_only=True, default=None, allow_null=True)
    old_digest = serializers.CharField(source="old_image.digest", read_only=True)
    new_digest = serializers.CharField(source="new_image.digest", read_only=True, default=None, allow_null=True)
    method = serializers.ChoiceField(
        choices=RebuildJob.Method.choices, read_only=True, allow_blank=True, help_text="Empty until it is planned"
    )
    would_fix = serializers.ListField(child=serializers.CharField(), read_only=True, allow_null=True)
    would_fix_note = serializers.SerializerMethodField()
    still_open = serializers.ListField(child=serializers.CharField(), read_only=True)
    fixed = serializers.ListField(child=serializers.CharField(), read_only=True)
    introduced = serializers.ListField(child=serializers.CharField(), read_only=True)
    seconds = serializers.SerializerMethodField()
    promote_to = serializers.SerializerMethodField()

    class Meta:
        model = RebuildJob
        fields = (
            "id", "level", "repository", "repository_id", "team", "tag", "parents", "state", "method", "method_reason",
            "recipe_revision", "problem", "attempts", "old_digest", "new_digest", "would_fix", "would_fix_note",
            "findings_before", "findings_after", "fixed", "introduced", "still_open", "remaining_count", "started_at",
            "finished_at", "seconds", "promote_to",
        )  # fmt: skip
        read_only_fields = fields

    def get_parents(self, job: RebuildJob) -> list[str]:
        """Return the repositories in this wave that this image is built on and that you can see."""
        shown: dict[int, str] = self.context["shown"]
        return sorted(shown[parent.pk] for parent in job.parents.all() if parent.pk in shown)

    def get_would_fix_note(self, job: RebuildJob) -> str:
        """Return a note about the limits of `would_fix`."""
        return estimates.note_of(job)

    def get_seconds(self, job: RebuildJob) -> float | None:
        """Return the duration in seconds, from the start to the end of the scan; null until then."""
        if job.started_at is None or job.finished_at is None:
            return None
        return round((job.finished_at - job.started_at).total_seconds(), 1)

    @extend_schema_field(CandidateSerializer(many=True))
    def get_promote_to(self, job: RebuildJob) -> Any:
        """Return the environments with an older version of the image, to which the result could be promoted."""
        return CandidateSerializer(self.context["candidates"].get(job.pk, []), many=True).data


class WaveDetailSerializer(WaveSerializer):
    """A rebuild wave with its images by level. Only images you can see are included."""

    jobs = RebuildJobSerializer(many=True, source="jobs_shown", read_only=True)
    skipped = SkippedSerializer(many=True, source="skipped_shown", read_only=True)

    class Meta(WaveSerializer.Meta):
        fields = (*WaveSerializer.Meta.fields, "jobs", "skipped")
        read_only_fields = fields


class WaveBody(StrictSerializer):
    base = serializers.CharField(
        max_length=500, help_text="Repository with `:tag` or `@digest`. The default tag is `latest`."
    )


class WaveViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[RebuildWave]):
    """Rebuild waves: plans to rebuild the images built on a changed base, and their results. Filter by `state`."""

    queryset = RebuildWave.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = WaveSerializer
    calls_others = frozenset({"create"})  # planning reads the registry, so it must not run in a transaction
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[RebuildWave]:
        rows = queries.waves_visible_to(caller(self.request))
        if state := self.request.query_params.get("state"):
            rows = rows.filter(state=state)
        return rows.order_by("-pk")

    @extend_schema(parameters=[OpenApiParameter("state", str)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the waves for bases you can see, newest first."""
        page = self.paginate_queryset(self.get_queryset()) or []
        counts = queries.job_counts(caller(request), [wave.pk for wave in page])
        shown = WaveSerializer(page, many=True, context={"job_counts": counts})
        return self.get_paginated_response(shown.data)

    @extend_schema(responses=WaveDetailSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one wave with its images."""
        return self._answer(request, wave_for(caller(request), int(pk)))

    @extend_schema(request=WaveBody, responses={200: WaveDetailSerializer, 201: WaveDetailSerializer})
    def create(self, request: Request) -> Response:
        """Plan a wave for a base, without starting it.

        Returns 200 with the existing wave if one is already planned or running.
        """
        body = WaveBody(data=request.data)
        body.is_valid(raise_exception=True)
        wave, is_new = planning.plan(body.validated_data["base"], actor=caller(request))
        return self._answer(request, wave, status=201 if is_new else 200)

    @extend_schema(request=None, responses={202: WaveDetailSerializer})
    @action(detail=True, methods=["post"])
    def confirm(self, request: Request, pk: str) -> Response:
        """Start a planned wave (image.rebuild on every repository in the wave)."""
        return self._answer(request, services.confirm_wave(int(pk), actor=caller(request)), status=202)

    @extend_schema(request=None, responses=WaveDetailSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel a wave. Running builds stop within seconds, and finished images are kept."""
        return self._answer(request, services.cancel_wave(int(pk), actor=caller(request)))

    @extend_schema(request=None, responses={202: WaveDetailSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Retry the failed and blocked images of a wave."""
        return self._answer(request, services.retry_wave(int(pk), actor=caller(request)), status=202)

    @extend_schema(parameters=[OpenApiParameter("after", int)], responses=LogSerializer)
    @action(detail=True, methods=["get"], url_path=r"jobs/(?P<job_id>\d+)/log")
    def log(self, request: Request, pk: str, job_id: str) -> Response:
        """Return lines of one image's log, oldest first. `after` is the id of the last line you have."""
        job = job_for(caller(request), int(pk), int(job_id))
        return log_answer(request, queries.log_of(job), is_final=job.state not in services.OPEN_STATES)

    def _answer(self, request: Request, wave: RebuildWave, *, status: int = 200) -> Response:
        actor = caller(request)
        # Not only visible rows: a right that ends now must not turn a change that was made into an error.
        wave = queries.with_joins(RebuildWave.objects.all()).get(pk=wave.pk)
        jobs = list(queries.jobs_visible_to(actor, wave).prefetch_related("parents"))
        counts: dict[str, int] = {}
        for job in jobs:
            counts[job.state] = counts.get(job.state, 0) + 1
        wave.jobs_shown = jobs  # type: ignore[attr-defined]  # only for the serializer
        wave.skipped_shown = queries.skipped_visible_to(actor, wave)  # type: ignore[attr-defined]  # as above
        context = {
            "job_counts": {wave.pk: counts},
            "shown": {job.pk: job.repository.name for job in jobs},
            "candidates": queries.slots_to_update(jobs, actor=actor),
        }
        return Response(WaveDetailSerializer(wave, context=context).data, status=status)
