"""SBOMs of images in `/api/v1/`: sent ones, our own scan, which of them decides; and the scan of a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import image_for
from lifecycle.core.errors import LimitExceeded
from lifecycle.evidence.documents import judge_document
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import platforms_of
from lifecycle.sbom import brought, lists
from lifecycle.sbom.blind_spots import blind_spots
from lifecycle.sbom.differences import differences
from lifecycle.sbom.documents import DOCUMENT_MAX, DocumentRefused, read_document
from lifecycle.sbom.end_of_life import supports_of
from lifecycle.sbom.models import PackageList
from lifecycle.trust.sboms import Source, sources_of

_BODY: Final[dict[Any, Any]] = {
    "application/vnd.cyclonedx+json": OpenApiTypes.OBJECT,
    "application/vnd.cyclonedx+xml": OpenApiTypes.STR,
    "application/spdx+json": OpenApiTypes.OBJECT,
    "application/json": OpenApiTypes.OBJECT,
}


class DocumentParser(BaseParser):
    """Takes the body as it is, whatever its type: the content says which format it is."""

    media_type = "*/*"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Mapping[str, bytes]:
        content: bytes = stream.read(DOCUMENT_MAX + 1)
        if len(content) > DOCUMENT_MAX:
            raise LimitExceeded(f"The SBOM is larger than {DOCUMENT_MAX // 1024**2} MiB.", limit=DOCUMENT_MAX)
        return {"document": content}


def _content(request: Request) -> bytes:
    content = request.data.get("document") if isinstance(request.data, Mapping) else None
    if not isinstance(content, bytes) or not content:
        raise DocumentRefused("The document is empty. Send the SBOM as the body of the request.")
    return content


class UnnamedSerializer(serializers.Serializer[Any]):
    place = serializers.CharField(help_text="JSON pointer, or line of an XML document")
    name = serializers.CharField(help_text="Name of the component; empty if it has none")
    version = serializers.CharField(help_text="Version of the component; empty if it has none")


class ImageSbomSerializer(serializers.Serializer[Source]):
    """An SBOM of one platform manifest, and whether it decides what packages the image has."""

    id = serializers.IntegerField()
    image_digest = serializers.CharField(source="image.digest", help_text="The platform manifest that it is about")
    platform = serializers.CharField(source="image.platform", help_text="Such as linux/amd64; empty if not known")
    kind = serializers.ChoiceField(
        choices=PackageList.Kind.choices, help_text="own: our scan or an import; sent; registry: found there"
    )
    format = serializers.CharField(help_text="Such as CycloneDX 1.5 JSON")
    tool = serializers.CharField(help_text="What made it; empty if it does not say")
    digest = serializers.CharField(help_text="Of the document")
    is_used = serializers.BooleanField(help_text="Whether its packages are those of the image")
    why = serializers.CharField(help_text="Why it decides, or why not")
    package_count = serializers.IntegerField()
    dropped_count = serializers.IntegerField(help_text="Components without a package URL: unknown")
    created_at = serializers.DateTimeField()
    sent_by = serializers.CharField(allow_null=True, help_text="User who sent it; null for others")
    repository = serializers.CharField(allow_null=True, help_text="Where it was found; null for others")
    withdrawn_at = serializers.DateTimeField(allow_null=True, help_text="null: it is not withdrawn")
    withdrawn_by = serializers.CharField(allow_null=True, help_text="User who withdrew it")


class BlindSpotSerializer(serializers.Serializer[Any]):
    image_digest = serializers.CharField(help_text="The platform manifest that it is about")
    text = serializers.CharField(help_text="One sentence")


class SupportSerializer(serializers.Serializer[Any]):
    image_digest = serializers.CharField(help_text="The platform manifest that it is about")
    name = serializers.CharField(help_text="Distribution or runtime, such as debian or python")
    version = serializers.CharField(help_text="Its version in the image")
    ends_on = serializers.DateField(allow_null=True, help_text="Last day of free security support; null: not known")
    is_over = serializers.BooleanField(allow_null=True, help_text="Whether it has ended; null: not known")


class ImageSbomsSerializer(serializers.Serializer[Any]):
    results = ImageSbomSerializer(many=True)
    blind_spots = BlindSpotSerializer(many=True, help_text="What our own scan cannot see")
    support = SupportSerializer(many=True, help_text="Until when distribution and recognised runtimes are supported")


class DifferenceSerializer(serializers.Serializer[Any]):
    type = serializers.CharField(help_text="Type of its package URL")
    name = serializers.CharField(help_text="With its namespace")
    mine = serializers.ListField(child=serializers.CharField(), help_text="Versions in this SBOM")
    theirs = serializers.ListField(child=serializers.CharField(), help_text="Versions in our scan")


class DifferencesSerializer(serializers.Serializer[Any]):
    """What differs from our own scan: the first rows of each kind, and how many there are."""

    only_mine = DifferenceSerializer(many=True)
    only_theirs = DifferenceSerializer(many=True)
    other_version = DifferenceSerializer(many=True)
    only_mine_count = serializers.IntegerField(help_text="Packages that only this SBOM has")
    only_theirs_count = serializers.IntegerField(help_text="Packages that only our scan has")
    other_version_count = serializers.IntegerField(help_text="Packages in other versions")
    same_count = serializers.IntegerField(help_text="Packages in the same versions")


class ImageSbomDetailSerializer(ImageSbomSerializer):
    dropped = UnnamedSerializer(many=True, help_text="The first components without a package URL")
    differences = DifferencesSerializer(allow_null=True, help_text="null: nothing to compare with")


class WithdrawBody(StrictSerializer):
    reason = serializers.CharField(max_length=500, required=False, default="", allow_blank=True)


class ImageSbomsView(APIView):
    """The SBOMs of an image: our own scan, and those that people or the registry bring."""

    def get_parsers(self) -> list[BaseParser]:
        """A body is a document, of any media type."""
        return [DocumentParser()]

    @extend_schema(operation_id="image_sboms", responses=ImageSbomsSerializer)
    def get(self, request: Request, digest: str) -> Response:
        """List the SBOMs of the image, of all platforms of an index, and which of them are used."""
        image = image_for(caller(request), digest)
        platforms = platforms_of(image)
        spots, supports = blind_spots(platforms), supports_of(platforms)
        document = {
            "results": sources_of(caller(request), platforms),
            "blind_spots": [{"image_digest": one.digest, "text": text} for one in platforms for text in spots[one.pk]],
            "support": [
                {"image_digest": one.digest, **each.as_json()} for one in platforms for each in supports[one.pk]
            ],
        }
        return Response(ImageSbomsSerializer(document).data)

    @extend_schema(
        operation_id="image_sbom_send",
        request=_BODY,
        responses={201: ImageSbomDetailSerializer, 200: ImageSbomDetailSerializer},
    )
    def post(self, request: Request, digest: str) -> Response:
        """Send an SBOM of one platform (image.scan). It decides instead of our scan, which is kept.

        CycloneDX 1.2 to 1.7 (JSON, XML), SPDX 2.2 and 2.3 (JSON), SPDX 3.0 (JSON), or an in-toto statement about one.
        The same document again returns 200.
        """
        row, is_new = brought.send(digest, _content(request), actor=caller(request))
        source = _source_of(request, row.image, row.pk)
        return Response(_detail(source), status=201 if is_new else 200)


class ImageSbomView(APIView):
    """One SBOM of an image."""

    @extend_schema(operation_id="image_sbom", responses=ImageSbomDetailSerializer)
    def get(self, request: Request, digest: str, sbom_id: int) -> Response:
        """Return an SBOM, what of it could not be judged, and its differences from our own scan."""
        image = image_for(caller(request), digest)
        return Response(_detail(_source_of(request, image, sbom_id)))


class ImageSbomWithdrawView(APIView):
    """The withdrawal of one SBOM of an image."""

    @extend_schema(operation_id="image_sbom_withdraw", request=WithdrawBody, responses=ImageSbomDetailSerializer)
    def post(self, request: Request, digest: str, sbom_id: int) -> Response:
        """Withdraw a brought SBOM (image.scan): it decides nothing any more."""
        body = WithdrawBody(data=request.data)
        body.is_valid(raise_exception=True)
        row = brought.withdraw(digest, sbom_id, actor=caller(request), reason=body.validated_data["reason"])
        return Response(_detail(_source_of(request, row.image, row.pk)))


def _source_of(request: Request, image: Image, sbom_id: int) -> Source:
    found = sources_of(caller(request), platforms_of(image))
    source = next((source for source in found if source.id == sbom_id), None)
    if source is None:
        raise brought.sbom_not_found()
    return source


def _detail(source: Source) -> dict[str, Any]:
    own = lists.own_list(source.image.pk)
    is_comparable = source.row is not None and own is not None and not source.is_own
    document = dict(ImageSbomSerializer(source).data)
    document["dropped"] = [{"place": row[0], "name": row[1], "version": row[2]} for row in source.dropped]
    document["differences"] = (
        DifferencesSerializer(differences(source.row, own)).data
        if is_comparable and source.row is not None and own is not None
        else None
    )
    return document


class ScannedFindingSerializer(serializers.Serializer[Any]):
    """A finding, with the fields of `images/{digest}/findings/`."""

    purl = serializers.CharField(help_text="Package URL of the component")
    advisory = serializers.CharField(allow_null=True, help_text="The record that counts; null: it cannot be judged")
    aliases = serializers.ListField(child=serializers.CharField(), help_text="Other names of the vulnerability")
    fixed_version = serializers.CharField(allow_null=True, help_text="null: no fix available")
    severity = serializers.CharField(help_text="critical, high, medium, low, none or unknown")
    state = serializers.CharField(help_text="open, or unknown with the reason")
    vulnerability = serializers.CharField(required=False, help_text="The name that all records share")
    reason = serializers.CharField(required=False, help_text="Why it is unknown, or what it assumes")


class UnknownSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(help_text="Why they could not be judged")
    count = serializers.IntegerField(help_text="Number of components")


class ScanSerializer(serializers.Serializer[Any]):
    """The judgement of a document. Nothing of it is stored."""

    format = serializers.CharField(help_text="Such as CycloneDX 1.5 JSON")
    tool = serializers.CharField(help_text="What made the document; empty if it does not say")
    distro = serializers.CharField(help_text="Such as debian-12; empty if not known")
    package_count = serializers.IntegerField(help_text="Packages with a package URL")
    findings = ScannedFindingSerializer(many=True)
    unknown = UnknownSerializer(many=True, help_text="Why components could not be judged, most first")
    dropped = UnnamedSerializer(many=True, help_text="The first components without a package URL")


class ScanView(APIView):
    """The findings of an SBOM that is not stored."""

    def get_parsers(self) -> list[BaseParser]:
        """A body is a document, of any media type."""
        return [DocumentParser()]

    @extend_schema(operation_id="scan", request=_BODY, responses=ScanSerializer)
    def post(self, request: Request) -> Response:
        """Judge an SBOM by the advisories of now. Nothing is stored."""
        document = read_document(_content(request))
        judged = judge_document(document)
        return Response(
            {
                "format": document.format,
                "tool": document.tool,
                "distro": document.distro,
                "package_count": judged.package_count,
                "findings": [finding.as_json() for finding in judged.findings],
                "unknown": [{"reason": reason, "count": count} for reason, count in judged.unknown.items()],
                "dropped": [{"place": one.place, "name": one.name, "version": one.version} for one in document.unnamed],
            }
        )
