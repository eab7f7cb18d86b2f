"""The response to OPTIONS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.metadata import BaseMetadata
from rest_framework.request import Request

if TYPE_CHECKING:
    from rest_framework.views import APIView  # it imports this file, by the name in the settings


class AllowedMethods(BaseMetadata):
    """Returns the methods of a resource. Bodies and fields are in the OpenAPI document.

    DRF's own class calls `get_object` and `get_serializer` of the view, which not every view supports.
    """

    def determine_metadata(self, request: Request, view: APIView) -> dict[str, Any]:
        return {"methods": sorted(view.allowed_methods), "documentation": "/api/v1/schema/"}
