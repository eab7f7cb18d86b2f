"""Feeds in `/api/v1/`: list, add, change, synchronise and remove them (admins only)."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.advisories import feeds
from lifecycle.advisories.access import feed_for, feeds_for
from lifecycle.advisories.models import Feed
from lifecycle.advisories.presets import PRESETS
from lifecycle.api.caller import caller
from lifecycle.api.jobs import JobSerializer
from lifecycle.api.preconditions import revision_wanted, with_etag
from lifecycle.api.serializing import StrictSerializer
from lifecycle.core.errors import Malformed

_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the feed that you read; optional."
)
_HOURS: Final[dict[str, Any]] = {"min_value": 1, "max_value": feeds.EVERY_HOURS_MAX}


class FeedSerializer(serializers.ModelSerializer[Feed]):
    """A feed, and the result of its last run."""

    state = serializers.ChoiceField(
        choices=["new", "current", "stale", "failed"], read_only=True,
        help_text="`stale`: not read within `stale_after_hours`; `failed`: see `problem`",
    )  # fmt: skip
    due_at = serializers.DateTimeField(read_only=True, help_text="When it runs next; null without a schedule")
    result = serializers.JSONField(read_only=True, help_text="Counts of the last run, and its first errors")

    class Meta:
        model = Feed
        fields = (
            "id", "name", "kind", "location", "state", "problem", "result", "synced_at", "tried_at", "data_at",
            "every_hours", "due_at", "stale_after_hours", "max_minutes", "max_mib", "revision",
        )  # fmt: skip
        read_only_fields = fields


class _LimitsBody(StrictSerializer):
    stale_after_hours = serializers.IntegerField(required=False, help_text="Age that is an alarm", **_HOURS)
    max_minutes = serializers.IntegerField(
        required=False, min_value=1, max_value=feeds.MINUTES_MAX, help_text="Time limit of one run"
    )
    max_mib = serializers.IntegerField(
        required=False, min_value=1, max_value=feeds.MIB_MAX, help_text="Size limit of one download, in MiB"
    )


class FeedBody(_LimitsBody):
    """A feed: a `preset`, or a name, a kind and a location. What is given beside a preset wins."""

    preset = serializers.ChoiceField(choices=[*PRESETS], required=False, help_text="A public feed")
    name = serializers.CharField(max_length=60, required=False)
    kind = serializers.ChoiceField(choices=feeds.FEED_KINDS, required=False)
    location = serializers.CharField(
        max_length=500, required=False, help_text="https address, or a folder below the setting FEEDS"
    )
    every_hours = serializers.IntegerField(
        required=False, allow_null=True, help_text="Hours between two runs; null: only by hand", **_HOURS
    )


class FeedChangeBody(_LimitsBody):
    """What to change; what is left out stays."""

    location = serializers.CharField(max_length=500, required=False)
    every_hours = serializers.IntegerField(required=False, help_text="Hours between two runs", **_HOURS)
    by_hand = serializers.BooleanField(required=False, help_text="true: no schedule")


class SyncBody(StrictSerializer):
    accept_smaller = serializers.BooleanField(
        required=False, default=False, help_text="Also take what lost most of its records"
    )


class FeedViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Feed]):
    """Feeds of advisories, CVE records and lists of exploits (admins only)."""

    queryset = Feed.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = FeedSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Feed]:
        return feeds_for(caller(self.request)).order_by("pk")

    @extend_schema(responses=FeedSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one feed. The `ETag` is its revision."""
        return self._answer(feed_for(caller(request), int(pk)))

    @extend_schema(request=FeedBody, responses={201: FeedSerializer})
    def create(self, request: Request) -> Response:
        """Add a feed, and queue its first run."""
        body = FeedBody(data=request.data)
        body.is_valid(raise_exception=True)
        feed = feeds.add_feed(actor=caller(request), **_with_preset(dict(body.validated_data)))
        return self._answer(feed, status=201)

    @extend_schema(request=FeedChangeBody, responses=FeedSerializer, parameters=[_IF_MATCH])
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change the address, the schedule or the limits of a feed."""
        body = FeedChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        revision = revision_wanted(request)
        return self._answer(feeds.change_feed(int(pk), actor=caller(request), revision=revision, **body.validated_data))

    @extend_schema(responses={204: None}, parameters=[_IF_MATCH])
    def destroy(self, request: Request, pk: str) -> Response:
        """Queue the removal of a feed with all that it brought. Its findings close."""
        feeds.remove_feed(int(pk), actor=caller(request), revision=revision_wanted(request))
        return Response(status=204)

    @extend_schema(request=SyncBody, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    def sync(self, request: Request, pk: str) -> Response:
        """Queue a run now. Returns its job, which shows the progress."""
        body = SyncBody(data=request.data)
        body.is_valid(raise_exception=True)
        job = feeds.sync_now(int(pk), actor=caller(request), **body.validated_data)
        return Response(JobSerializer(job, context={"request": request}).data, status=202)

    def _answer(self, feed: Feed, *, status: int = 200) -> Response:
        return with_etag(Response(FeedSerializer(feed).data, status=status), feed.revision)


def _with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with those of their preset. Raises Malformed when a value is missing."""
    preset = PRESETS.get(values.pop("preset", ""))
    if preset is not None:
        known = {"name": preset.key, "kind": preset.kind, "location": preset.location}
        values = known | {"every_hours": preset.every_hours} | values
    if missing := [name for name in ("name", "kind", "location") if name not in values]:
        raise Malformed(f"Give a preset, or {', '.join(missing)}.")
    return values
