"""The findings of a team or a repository as files, in `/api/v1/`."""

from __future__ import annotations

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.evidence.fleet import FLEET_EXPORTS, IMAGES_MAX, export_fleet


def _schema(media_type: str) -> OpenApiTypes:
    return OpenApiTypes.ANY if "json" in media_type else OpenApiTypes.BINARY


class FindingsExportView(APIView):
    """The findings or packages of all images in use of a team or a repository."""

    @extend_schema(
        operation_id="findings_export",
        parameters=[
            OpenApiParameter("kind", str, OpenApiParameter.PATH, enum=[*FLEET_EXPORTS]),
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("repository", str, description="Name of a repository; instead of a team"),
        ],
        responses={(200, kind.partition(";")[0]): _schema(kind) for kind, _ in FLEET_EXPORTS.values()},
        description=(
            "Return a file with the findings, or packages (cdx.json, spdx.json), of all images in use: with a tag, or"
            " in an environment. An image with"
            f" unknown packages is in it, as unknown. 400 for more than {IMAGES_MAX} images."
        ),
    )
    def get(self, request: Request, kind: str) -> HttpResponseBase:
        """Return the file."""
        given = request.query_params
        media_type, name, parts = export_fleet(
            caller(request), kind, team=given.get("team", ""), repository=given.get("repository", "")
        )
        answer = StreamingHttpResponse(parts, content_type=media_type)
        answer["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer
