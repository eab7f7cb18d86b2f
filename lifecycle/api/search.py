"""The search in `/api/v1/`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.search.queries import TEXT_MAX, search
from lifecycle.search.types import KINDS, Hit


class HitSerializer(serializers.Serializer[Hit]):
    kind = serializers.ChoiceField(choices=KINDS)
    name = serializers.CharField()
    detail = serializers.CharField()
    url = serializers.SerializerMethodField(help_text="Address of the page that shows it")

    def get_url(self, hit: Hit) -> str:
        """Return the address of the page."""
        return f"{settings.PUBLIC_URL}{reverse(hit.page, args=hit.page_args)}"


class SearchSerializer(serializers.Serializer[Any]):
    results = HitSerializer(many=True)


class SearchView(APIView):
    """Search by name, digest or number, over everything that you can see."""

    @extend_schema(
        operation_id="search",
        parameters=[
            OpenApiParameter(
                "q",
                str,
                required=True,
                description="Part of a repository name, a tag, a digest (6 characters or more), a package, an advisory,"
                " PR-13, W-2 or Q-3.",
            )
        ],
        responses=SearchSerializer,
    )
    def get(self, request: Request) -> Response:
        """Return at most eight results of each kind: exact names first, newest first."""
        text = request.query_params.get("q", "").strip()
        if not text or len(text) > TEXT_MAX:
            raise ValidationError({"q": [f"Enter 1 to {TEXT_MAX} characters."]})
        return Response(SearchSerializer({"results": search(caller(request), text)}).data)
