"""What the checks of files found in an image, in `/api/v1/`."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.authority.access import image_for
from lifecycle.evidence.contents import contents_of
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import trees_of
from lifecycle.sbom.contents import Kind
from lifecycle.sbom.models import ContentCheck


class FileProblemSerializer(serializers.Serializer[Any]):
    """One problem of one file. It never says what the file contains."""

    kind = serializers.ChoiceField(choices=[kind.value for kind in Kind])
    path = serializers.CharField(help_text="Path in the image, with a leading slash")
    detail = serializers.CharField(help_text="Id of a rule for secrets, or name of a malware signature; or empty")
    layer = serializers.IntegerField(help_text="Layer that brought the file; 0 is the lowest")


class PlatformContentsSerializer(serializers.Serializer[Any]):
    """The files of one platform manifest. With a `problem`, what is not listed is unknown, not absent."""

    digest = serializers.CharField()
    platform = serializers.CharField(help_text="Such as linux/amd64; empty if not known")
    checked_at = serializers.DateTimeField(allow_null=True, help_text="null: not checked")
    problem = serializers.CharField(help_text="Why the check is not complete, or empty")
    malware = serializers.ChoiceField(
        choices=ContentCheck.Malware.choices, help_text="off: no scanner is set; unknown: not every file was looked at"
    )
    malware_problem = serializers.CharField(help_text="Why malware is unknown, or empty")
    engine = serializers.CharField(help_text="The malware scanner and its signatures, or empty")
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="Number of files by kind")
    found = FileProblemSerializer(many=True, help_text="The first files of each kind and layer")


class ImageContentsSerializer(serializers.Serializer[Any]):
    results = PlatformContentsSerializer(many=True)


class ImageContentsView(APIView):
    """The checks of an image's files: setuid files, private keys, malware and others."""

    @extend_schema(operation_id="image_contents", responses=ImageContentsSerializer)
    def get(self, request: Request, digest: str) -> Response:
        """Return what was found in the files of the image: all platforms of an index."""
        image = image_for(caller(request), digest)
        ids = [pk for _, pk in trees_of([image])[image.pk].manifests]
        rows = Image.objects.only("pk", "digest", "os", "architecture", "variant").in_bulk(ids)
        found = contents_of(ids)
        results = [{"digest": rows[pk].digest, "platform": rows[pk].platform, **found[pk].as_json()} for pk in ids]
        return Response(ImageContentsSerializer({"results": results}).data)
