"""Repositories and images in `/api/v1/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.jobs import JobSerializer
from lifecycle.api.pagination import KeysetPagination
from lifecycle.api.parameters import choice
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import image_for, image_in, open_repository_for, repository_named
from lifecycle.authority.lists import ListedImage, images_page
from lifecycle.authority.queries import images_with_places, repositories_open_to
from lifecycle.comparison.queries import compare as compare_images
from lifecycle.evidence.due import with_due_dates
from lifecycle.evidence.exporting import EXPORTS, export, file_name
from lifecycle.evidence.findings import FINDING_SORTS, findings_of_image
from lifecycle.evidence.judgement import Known, add_platforms, judgement_of, judgement_of_index
from lifecycle.evidence.waived import with_waivers
from lifecycle.ingest import metadata
from lifecycle.ingest.managing import DESCRIPTION_MAX, describe_repository
from lifecycle.ingest.openness import set_archived, set_visibility
from lifecycle.ingest.protection import protect_tags
from lifecycle.ingest.removing import delete_repository
from lifecycle.quarantine.queries import add_covers, covers_shown
from lifecycle.quarantine.types import Cover
from lifecycle.registry.constants import PROTECTED_PATTERNS_MAX
from lifecycle.registry.models import Image, Metadata, Repository, RepositoryImage, Tag
from lifecycle.registry.platforms import PlatformEntry, entries_of_images, platform_ids
from lifecycle.registry.queries import metadata_of
from lifecycle.sbom.queries import packages_as_json


def _file_of(media_type: str) -> OpenApiTypes:
    """Return how the API document describes an export: JSON has its own schema elsewhere, the rest is a file."""
    return OpenApiTypes.ANY if "json" in media_type else OpenApiTypes.BINARY


class RepositorySerializer(serializers.ModelSerializer[Repository]):
    team = serializers.CharField(source="team.slug", read_only=True)
    registry = serializers.CharField(source="registry.name", read_only=True)

    class Meta:
        model = Repository
        fields = ("id", "registry", "team", "name", "family", "description", "visibility", "archived_at",
                  "protected_tags", "created_at", "updated_at")  # fmt: skip
        read_only_fields = fields


class RepositoryBody(StrictSerializer):
    """What to change; what is left out stays."""

    description = serializers.CharField(max_length=DESCRIPTION_MAX, required=False, allow_blank=True)
    visibility = serializers.ChoiceField(choices=Repository.Visibility.values, required=False)
    archived = serializers.BooleanField(required=False)


class ProtectedTagsSerializer(StrictSerializer):
    patterns = serializers.ListField(child=serializers.CharField(max_length=128), max_length=PROTECTED_PATTERNS_MAX)


class RepositoryViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Repository]):
    """The repositories you can see."""

    queryset = Repository.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = RepositorySerializer
    lookup_value_regex = r"[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Repository]:
        visible = repositories_open_to(caller(self.request))
        name = self.request.query_params.get("name", "") if self.action == "list" else ""
        rows = visible.filter(name=name) if name else visible
        return rows.select_related("team", "registry").order_by("pk")

    @extend_schema(parameters=[OpenApiParameter("name", str, description="Only the repository of this name.")])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the repositories you can see."""
        return super().list(request, *args, **kwargs)

    @extend_schema(request=RepositoryBody, responses={200: RepositorySerializer})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change the description (image.amend), the visibility or the archive state (team.manage), all or none.

        `internal` repositories can be seen and pulled by every account, `public` ones by everybody, if ANONYMOUS_ACCESS
        is on. Nothing is pushed to an archived repository, rebuilt in it or promoted from it.
        """
        body = RepositoryBody(data=request.data)
        body.is_valid(raise_exception=True)
        wanted, actor = body.validated_data, caller(request)
        repository = open_repository_for(actor, int(pk))
        with transaction.atomic():
            if "description" in wanted:
                describe_repository(repository.pk, wanted["description"], actor=actor)
            if "visibility" in wanted:
                set_visibility(repository.pk, wanted["visibility"], actor=actor)
            if "archived" in wanted:
                set_archived(repository.pk, wanted["archived"], actor=actor)
        changed = Repository.objects.select_related("team", "registry").get(pk=repository.pk)
        return Response(self.get_serializer(changed).data)

    @extend_schema(
        parameters=[OpenApiParameter("name", str, required=True, description="Its name again, as a confirmation.")],
        responses={202: JobSerializer},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a repository with its images in the registry (team.manage and image.delete). Returns the job.

        The error names what keeps it, for example promotion requests: then archive it.
        """
        actor = caller(request)
        job = delete_repository(
            open_repository_for(actor, int(pk)).pk, actor=actor, name=request.query_params.get("name", "")
        )
        return Response(JobSerializer(job).data, status=202)

    @extend_schema(request=ProtectedTagsSerializer, responses={200: RepositorySerializer})
    @action(detail=True, methods=["put"], url_path="protected-tags")
    def protected_tags(self, request: Request, pk: str) -> Response:
        """Set the patterns of protected tags. Moves of these tags without image.amend are reverted."""
        body = ProtectedTagsSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        repository = protect_tags(int(pk), body.validated_data["patterns"], actor=caller(request))
        return Response(self.get_serializer(repository).data)


class MetadataSerializer(serializers.ModelSerializer[Metadata]):
    digest = serializers.CharField(
        source="image.digest", default=None, allow_null=True, help_text="null: of the repository itself"
    )
    changed_by = serializers.CharField(source="changed_by.username", default=None, allow_null=True)

    class Meta:
        model = Metadata
        fields = ("key", "kind", "value", "digest", "changed_by", "changed_at")
        read_only_fields = fields


class MetadataListSerializer(serializers.Serializer[Any]):
    results = MetadataSerializer(many=True)


class MetadataBody(StrictSerializer):
    key = serializers.CharField(max_length=100)
    kind = serializers.ChoiceField(choices=Metadata.Kind.values, default=Metadata.Kind.TEXT.value)
    value = serializers.CharField(max_length=1000)
    digest = serializers.CharField(max_length=135, default="", help_text="An image of the repository; empty: all of it")


_DIGEST = OpenApiParameter("digest", str, description="Of this image in the repository, and of the repository itself.")


class MetadataView(APIView):
    """Metadata of a repository, and of the images in it."""

    @extend_schema(operation_id="repository_metadata_list", parameters=[_DIGEST], responses=MetadataListSerializer)
    def get(self, request: Request, repository_id: int) -> Response:
        """List the metadata of a repository, and with `digest` of an image in it."""
        repository = open_repository_for(caller(request), repository_id)
        digest = request.query_params.get("digest", "")
        image = image_in(repository, digest).image if digest else None
        return Response(
            MetadataListSerializer({"results": metadata_of(repository, image).select_related("image")}).data
        )

    @extend_schema(operation_id="repository_metadata_set", request=MetadataBody, responses=MetadataSerializer)
    def put(self, request: Request, repository_id: int) -> Response:
        """Set one key. Needs image.amend."""
        body = MetadataBody(data=request.data)
        body.is_valid(raise_exception=True)
        row = metadata.set_metadata(repository_id, actor=caller(request), **body.validated_data)
        return Response(MetadataSerializer(row).data)

    @extend_schema(
        operation_id="repository_metadata_remove",
        parameters=[OpenApiParameter("key", str, required=True), OpenApiParameter("digest", str)],
        responses={204: None},
    )
    def delete(self, request: Request, repository_id: int) -> Response:
        """Remove one key. Needs image.amend."""
        query = request.query_params
        digest = query.get("digest", "")
        metadata.remove_metadata(repository_id, query.get("key", ""), actor=caller(request), digest=digest)
        return Response(status=204)


class PlaceSerializer(serializers.Serializer[Any]):
    repository = serializers.CharField(source="repository.name")
    tags = serializers.SerializerMethodField()

    def get_tags(self, place: RepositoryImage) -> list[str]:
        """Return the tags that currently point at the image in this repository."""
        tags: list[Tag] = getattr(place.image, "tags_seen", [])  # set by images_with_places
        return sorted(tag.name for tag in tags if tag.repository_id == place.repository_id)


class FindingCountsSerializer(serializers.Serializer[Any]):
    """Open findings by severity. A count is null while the image is not scanned.

    An index has the counts of its worst platform; `why` names each platform of which something is unknown.
    """

    state = serializers.ChoiceField(
        choices=[known.value for known in Known],
        help_text="open, none (all packages were judged), or unknown (see why)",
    )
    critical = serializers.IntegerField(allow_null=True)
    high = serializers.IntegerField(allow_null=True)
    medium = serializers.IntegerField(allow_null=True)
    low = serializers.IntegerField(allow_null=True)
    unknown = serializers.IntegerField(allow_null=True, help_text="Findings of severity unknown or none")
    fixable = serializers.IntegerField(allow_null=True)
    unjudged = serializers.IntegerField(allow_null=True, help_text="Packages that could not be judged")
    unjudged_reasons = serializers.DictField(child=serializers.IntegerField(), help_text="Number of packages by reason")
    why = serializers.CharField(help_text="What is unknown, as a phrase; empty when nothing is")


class CoverSerializer(serializers.Serializer[Any]):
    """A live quarantine that covers an image: nobody can promote it, or build on it."""

    id = serializers.IntegerField()
    reason = serializers.CharField(help_text="Empty for an image that you see only because it is open")
    direct = serializers.BooleanField(help_text="false: the image is built on the quarantined one")


def _covers(covers: Sequence[Cover]) -> list[dict[str, Any]]:
    return [{"id": item.quarantine_id, "reason": item.reason, "direct": item.is_direct} for item in covers]


class ImageSerializer(serializers.ModelSerializer[Image]):
    places = PlaceSerializer(
        source="places_seen", many=True, read_only=True, help_text="Repositories with this image that you can see"
    )
    quarantines = serializers.SerializerMethodField()
    findings = serializers.SerializerMethodField()

    class Meta:
        model = Image
        fields = (
            "digest", "places", "kind", "media_type", "platform", "size_bytes", "distro", "labels", "annotations",
            "base_name", "base_digest", "created_at", "first_seen_at", "scanned_at", "scan_problem", "package_count",
            "unjudged_count", "quarantines", "findings",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(CoverSerializer(many=True))
    def get_quarantines(self, image: Image) -> list[dict[str, Any]]:
        """Return the live quarantines that cover the image."""
        return _covers(getattr(image, "covers", []))  # set by the view

    @extend_schema_field(FindingCountsSerializer)
    def get_findings(self, image: Image) -> dict[str, Any]:
        """Return the open findings by severity, as stored, and what is unknown. Of an index: on its worst platform."""
        return _findings_of(image, getattr(image, "platform_entries", None))  # set on an index, by the view


_COUNTS: Final = ("critical", "high", "medium", "low", "unknown", "fixable")


def _findings_of(image: Image | ListedImage, entries: Sequence[PlatformEntry] | None) -> dict[str, Any]:
    """Return the fields of FindingCountsSerializer. `entries` are the platforms of an index, None for another image."""
    index = judgement_of_index(entries) if entries is not None else None
    known, counted = (index.judgement, index.worst) if index else (judgement_of(image), image)
    is_counted = known.open_count is not None
    counts = {name: getattr(counted, f"{name}_count") if is_counted else None for name in _COUNTS}
    return {
        "state": known.state.value,
        **counts,
        "unjudged": known.unjudged_count if is_counted else None,
        "unjudged_reasons": dict(known.reasons),
        "why": known.why,
    }


_LISTED: Final = ImageSerializer.Meta.fields[:-2]  # all but `quarantines` and `findings`


def _listed(
    image: ListedImage, entries: Sequence[PlatformEntry] | None, covers: Sequence[Cover] = ()
) -> dict[str, Any]:
    """Return the fields of ImageSerializer for a row of the list. A test compares the two."""
    row = {name: getattr(image, name) for name in _LISTED}
    row["quarantines"] = _covers(covers)
    row["findings"] = _findings_of(image, entries)
    return row


class ImageViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Image]):
    """Images by digest, in the repositories you can see. Filter the list by `repository` and `tag`."""

    queryset = Image.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = ImageSerializer
    lookup_field = "digest"
    lookup_value_regex = r"sha(?:256|512):[a-f0-9]+"

    def get_queryset(self) -> QuerySet[Image]:
        return images_with_places(caller(self.request)).defer("manifest", "config")

    def get_object(self) -> Image:
        image = super().get_object()
        add_platforms([image])
        add_covers([image], caller(self.request))
        return image

    @extend_schema(
        parameters=[
            OpenApiParameter("repository", str, description="Only images in this repository."),
            OpenApiParameter("tag", str, description="Only images with this tag."),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the images you can see, newest first."""
        query, paginator = request.query_params, KeysetPagination()
        rows = images_page(
            caller(request),
            repository=query.get("repository", ""),
            tag=query.get("tag", ""),
            below=paginator.last(request),
            limit=paginator.limit(request) + 1,  # one more, if there are more pages
        )
        indexes = [Image(pk=row.id, kind=row.kind) for row in rows if row.kind == Image.Kind.INDEX]
        entries = entries_of_images(indexes) if indexes else {}
        covers = covers_shown([row.id for row in rows], caller(request))
        page = [(row.id, _listed(row, entries.get(row.id), covers.get(row.id, []))) for row in rows]
        return paginator.page_of(page, request)

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "exploited",
                str,
                enum=["true", "false"],
                description="Only findings known to be exploited (KEV), or not",
            ),
            OpenApiParameter("sort", str, enum=[*FINDING_SORTS], description="Most urgent first; default: by purl"),
        ],
        responses={200: dict},
    )
    @action(detail=True, methods=["get"])
    def findings(self, request: Request, digest: str) -> Response:
        """Return the findings of the image, one object for each distinct pair of purl and vulnerability.

        `advisory` is the record that counts. `manage.py findings --image` prints one line for each record.
        `state` is `open`, `unknown`, or what the VEX statement in `vex` says; `under_investigation` is still open.
        `is_exploited` is null while no list of known exploited vulnerabilities was loaded, `epss` without a score.
        `due_at` is null for a finding that is never due by the table of due dates.
        `waivers` has the approved waivers that cover a finding. One that holds in all environments makes it `waived`;
        with one for a single environment, it stays open.
        """
        exploited = choice(request, "exploited", ("true", "false"))
        sort = choice(request, "sort", FINDING_SORTS)
        image = self.get_object()
        user = caller(request)
        found = with_waivers(image, with_due_dates(image, findings_of_image(image, reader=user)), user)
        if exploited:
            found = [each for each in found if each.exploit and each.exploit["is_exploited"] is (exploited == "true")]
        if sort:
            found.sort(key=FINDING_SORTS[sort])
        return Response({"results": [each.as_json() for each in found]})

    @extend_schema(responses={200: dict})
    @action(detail=True, methods=["get"])
    def packages(self, request: Request, digest: str) -> Response:
        """Return the packages of the image (all platforms of an index), and how each is matched with advisories.

        `judged_as` names the distribution's package that owns the files of a package of a language.
        """
        return Response({"results": packages_as_json(platform_ids(self.get_object()))})

    @extend_schema(
        parameters=[
            OpenApiParameter("kind", str, OpenApiParameter.PATH, enum=[*EXPORTS]),
            OpenApiParameter("repository", str, description="Include its metadata, and that of the image in it."),
        ],
        responses={(200, kind.partition(";")[0]): _file_of(kind) for kind, _ in EXPORTS.values()},
    )
    @action(detail=True, methods=["get"], url_path=r"exports/(?P<kind>[a-z.]{1,20})")
    def exports(self, request: Request, digest: str, kind: str) -> HttpResponseBase:
        """Return a file with the packages or findings of the image (all platforms of an index).

        404 while the packages are unknown: an empty file would look like an image without findings.
        """
        name = request.query_params.get("repository", "")
        image, known = self.get_object(), {}
        if name:
            repository = repository_named(caller(request), name)
            known = metadata.as_record(repository, image_in(repository, digest).image)
        media_type, parts = export(image, kind, metadata=known, reader=caller(request))
        answer = StreamingHttpResponse(parts, content_type=media_type)
        answer["Content-Disposition"] = f'attachment; filename="{file_name(name, digest, kind)}"'
        return answer

    @extend_schema(
        parameters=[
            OpenApiParameter("to", str, required=True, description="Digest of the image that replaces this one.")
        ],
        responses={200: dict},
    )
    @action(detail=True, methods=["get"])
    def compare(self, request: Request, digest: str) -> Response:
        """Return the differences between this image and the image `to` that replaces it. You need access to both."""
        other = image_for(caller(request), request.query_params.get("to", ""))
        return Response(compare_images(self.get_object(), other).as_json())
