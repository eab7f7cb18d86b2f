"""How open findings changed, in `/api/v1/trends/`."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.core import clock
from lifecycle.trends.queries import DAYS, Point, series_for


class TrendPointSerializer(serializers.Serializer[Point]):
    """Open findings at the end of a day (UTC). An advisory counts once in each repository."""

    day = serializers.DateField(help_text="The day, in UTC")
    critical = serializers.IntegerField(source="counts.critical", help_text="Critical findings")
    high = serializers.IntegerField(source="counts.high", help_text="High findings")
    medium = serializers.IntegerField(source="counts.medium", help_text="Medium findings")
    low = serializers.IntegerField(source="counts.low", help_text="Low findings")
    unknown = serializers.IntegerField(source="counts.unknown", help_text="Findings without a known severity")
    exploited = serializers.IntegerField(source="counts.exploited", help_text="Of them, those that a KEV list names")
    overdue = serializers.IntegerField(source="counts.overdue", help_text="Of them, those past their due date")
    unscanned = serializers.IntegerField(source="counts.unscanned", help_text="Platforms with unknown packages")
    fixed = serializers.IntegerField(help_text="Findings fixed since the day before")


class TrendSerializer(serializers.Serializer[Any]):
    fixed = serializers.IntegerField(help_text="Findings fixed in these days")
    median_days = serializers.FloatField(
        allow_null=True, help_text="Median of the days from first seen to fixed; null: nothing was fixed"
    )
    points = TrendPointSerializer(many=True, help_text="One for each day since the first fact, oldest first")


class TrendsView(APIView):
    """How open findings changed."""

    @extend_schema(
        operation_id="trends_retrieve",
        parameters=[
            OpenApiParameter("team", str, description="Slug of a team whose repositories you can all see"),
            OpenApiParameter("repository", str, description="Name of a repository; instead of a team"),
            OpenApiParameter("days", int, enum=DAYS, description=f"How far back; {DAYS[1]} if not given"),
        ],
        responses=TrendSerializer,
    )
    def get(self, request: Request) -> Response:
        """Return the counts of each day: of a team, a repository, or all teams that you see as a whole."""
        given = request.query_params
        days = given.get("days", str(DAYS[1]))
        if days not in {str(number) for number in DAYS}:
            raise ValidationError({"days": [f"Choose one of {', '.join(map(str, DAYS))}."]})
        series = series_for(
            caller(request),
            clock.now().date(),
            team=given.get("team", ""),
            repository=given.get("repository", ""),
            days=int(days),
        )
        return Response(TrendSerializer(series).data)
