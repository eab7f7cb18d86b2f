"""Advisories in `/api/v1/`: what the feeds say of one, and the images of the caller that it affects."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.advisories.exploits import exploit_feeds, exploits_of, together
from lifecycle.advisories.models import Advisory
from lifecycle.api.caller import caller
from lifecycle.api.pagination import KeysetPagination
from lifecycle.core.errors import NotFound
from lifecycle.registry.models import Image
from lifecycle.search.queries import images_with_packages_seen
from lifecycle.search.vulnerabilities import CarrierRow, Vulnerability, affected_packages, carrier_rows, vulnerability


class AdvisoryRecordSerializer(serializers.Serializer[Advisory]):
    """A record of one feed. Several feeds, and several distributions, can have a record of one vulnerability."""

    id = serializers.CharField(source="osv_id", help_text="Id of the record in its feed")
    feed = serializers.CharField(source="feed.name", help_text="Name of the feed")
    summary = serializers.CharField(help_text="One line about the flaw")
    published_at = serializers.DateTimeField(allow_null=True, help_text="As the record states it")
    modified_at = serializers.DateTimeField(allow_null=True, help_text="As the record states it")


class AdvisorySerializer(serializers.Serializer[Any]):
    """One vulnerability, under any of its names."""

    id = serializers.CharField(help_text="The requested id")
    names = serializers.ListField(child=serializers.CharField(), help_text="Its other ids: aliases and upstream")
    severity = serializers.CharField(help_text="Of the first record that states one; else unknown")
    severity_by = serializers.CharField(help_text="The record that the severity is from; empty for unknown")
    cvss_score = serializers.FloatField(allow_null=True, help_text="0 to 10; null without a vector")
    cvss_vector = serializers.CharField(help_text="Empty where no record has one")
    is_exploited = serializers.BooleanField(
        allow_null=True, help_text="Whether a KEV list names it; null while none was loaded"
    )
    exploited_on = serializers.DateField(allow_null=True, help_text="When a KEV list first named it")
    exploit_due_on = serializers.DateField(allow_null=True, help_text="Until when KEV asks to fix it")
    is_ransomware = serializers.BooleanField(allow_null=True, help_text="Whether KEV knows of its use in ransomware")
    epss = serializers.FloatField(allow_null=True, help_text="Probability of exploitation in 30 days, 0 to 1")
    epss_percentile = serializers.FloatField(allow_null=True, help_text="Share of CVEs with a lower score, 0 to 1")
    records = AdvisoryRecordSerializer(many=True)


class AffectedPackageSerializer(serializers.Serializer[Any]):
    purl = serializers.CharField(help_text="As the SBOM has it")
    fixed_version = serializers.CharField(help_text="The version that fixes it; empty where none is known")
    vex = serializers.CharField(help_text="Status of the VEX statement that counts in this image; empty without")


class AffectedImageSerializer(serializers.Serializer[Any]):
    """An image that you can see, with the packages that the advisory affects, or may affect."""

    digest = serializers.CharField(source="image.digest", help_text="Digest of the platform manifest")
    repository = serializers.SerializerMethodField(help_text="One of its repositories that you can see")
    packages = AffectedPackageSerializer(many=True)

    def get_repository(self, row: CarrierRow) -> str:
        """Return the name of the repository, with the tag where it has one."""
        return row.place.label if row.place is not None else ""


def _found(osv_id: str) -> Vulnerability:
    found = vulnerability(osv_id)
    if found is None:
        raise NotFound("No feed has an advisory with this id.")
    return found


class AdvisoryView(APIView):
    """What the feeds say of one vulnerability."""

    @extend_schema(operation_id="advisories_retrieve", responses=AdvisorySerializer)
    def get(self, _request: Request, osv_id: str) -> Response:
        """Return one vulnerability, under any of its names."""
        found = _found(osv_id)
        exploit = together(found.cves, exploits_of(found.cves)).as_json(exploit_feeds())
        answer = {
            "id": osv_id,
            "names": found.names,
            "severity": found.rated.severity if found.rated else "unknown",
            "severity_by": found.rated.severity_by if found.rated else "",
            "cvss_score": found.scored.score if found.scored else None,
            "cvss_vector": found.scored.vector if found.scored else "",
            "records": found.records,
        }
        return Response(AdvisorySerializer(answer | exploit).data)


class AdvisoryImagesView(ListAPIView[Image]):
    """The images you can see that an advisory affects."""

    queryset = Image.objects.none()  # only for the schema
    serializer_class = AffectedImageSerializer
    pagination_class = KeysetPagination

    @extend_schema(operation_id="advisories_images_list", responses=AffectedImageSerializer(many=True))
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the affected images you can see, newest first."""
        return self.list(request, *args, **kwargs)

    def list(self, request: Request, *_args: Any, **kwargs: Any) -> Response:
        user, found = caller(request), _found(kwargs["osv_id"])
        packages = affected_packages(found.records)
        images = self.paginate_queryset(images_with_packages_seen(user, packages).order_by("-pk")) or []
        rows = carrier_rows(user, list(images), packages, found.records)
        return self.get_paginated_response([AffectedImageSerializer(row).data for row in rows])
