"""VEX feeds in `/api/v1/vex/feeds/`: addresses that VEX documents are read from."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.jobs import JobSerializer
from lifecycle.api.preconditions import revision_wanted, with_etag
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import team_for
from lifecycle.vex import feeds
from lifecycle.vex.access import feed_for
from lifecycle.vex.constants import FEED_EVERY_HOURS_MAX
from lifecycle.vex.models import VexFeed
from lifecycle.vex.queries import feeds_visible_to

_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the feed that you read; optional."
)
_HOURS: Final[dict[str, Any]] = {"min_value": 1, "max_value": FEED_EVERY_HOURS_MAX}
_LOCATION: Final = "https address of a document, or of a folder with changes.csv or index.txt, which ends with /"
_SPEAKS_FOR: Final = "Beginnings of package URLs that it can speak for; empty: everything"
_KEY: Final = "PEM; each document then needs a signature beside it (.sig); empty: none"


class VexFeedSerializer(serializers.ModelSerializer[VexFeed]):
    """A VEX feed, and the result of its last run. What it says counts only while it is trusted."""

    team = serializers.CharField(
        source="team.slug", read_only=True, default=None, allow_null=True, help_text="Whose images; null: all images"
    )
    location = serializers.CharField(read_only=True, help_text=_LOCATION)
    public_key = serializers.CharField(read_only=True, help_text=_KEY)
    speaks_for = serializers.ListField(child=serializers.CharField(), read_only=True, help_text=_SPEAKS_FOR)
    state = serializers.ChoiceField(
        choices=["new", "current", "failed"], read_only=True, help_text="`failed`: see `problem`"
    )
    added_by = serializers.CharField(
        source="added_by.username", read_only=True, help_text="Who named the address; somebody else has to trust it"
    )
    trusted_by = serializers.CharField(
        source="trusted_by.username", read_only=True, default=None, allow_null=True, help_text="null: it is advice"
    )
    trusted_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="null: it is advice")
    synced_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When it was last read without a problem"
    )
    tried_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When it was last read")
    due_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When it runs next")
    result = serializers.JSONField(read_only=True, help_text="Counts of the last run, and its first problems")

    class Meta:
        model = VexFeed
        fields = (
            "id", "name", "team", "location", "public_key", "speaks_for", "state", "problem", "result", "added_by",
            "trusted_by", "trusted_at", "synced_at", "tried_at", "every_hours", "due_at", "revision",
        )  # fmt: skip
        read_only_fields = fields


class VexFeedBody(StrictSerializer):
    name = serializers.CharField(max_length=60)
    team = serializers.CharField(
        max_length=60, required=False, default="", allow_blank=True,
        help_text="Team whose images it is about; empty: all images (admins)",
    )  # fmt: skip
    location = serializers.CharField(max_length=500, help_text=_LOCATION)
    public_key = serializers.CharField(max_length=20_000, required=False, default="", allow_blank=True, help_text=_KEY)
    speaks_for = serializers.ListField(
        child=serializers.CharField(max_length=500), required=False, default=list, max_length=100,
        help_text=_SPEAKS_FOR,
    )  # fmt: skip
    every_hours = serializers.IntegerField(
        required=False, allow_null=True, default=24, help_text="Hours between two runs; null: only by hand", **_HOURS
    )


class VexFeedChangeBody(StrictSerializer):
    """What to change; what is left out stays."""

    location = serializers.CharField(max_length=500, required=False, help_text=_LOCATION)
    public_key = serializers.CharField(max_length=20_000, required=False, allow_blank=True, help_text=_KEY)
    speaks_for = serializers.ListField(
        child=serializers.CharField(max_length=500), required=False, max_length=100, help_text=_SPEAKS_FOR
    )
    every_hours = serializers.IntegerField(required=False, help_text="Hours between two runs", **_HOURS)
    by_hand = serializers.BooleanField(required=False, help_text="true: no schedule")


class VexFeedSyncBody(StrictSerializer):
    accept_smaller = serializers.BooleanField(
        required=False, default=False, help_text="Also take a list that lost most of its documents"
    )


class VexFeedReasonBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


class VexFeedViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[VexFeed]):
    """VEX feeds about the images of your teams, and about all images."""

    queryset = VexFeed.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = VexFeedSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[VexFeed]:
        return feeds_visible_to(caller(self.request)).order_by("pk")

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the VEX feeds you can see."""
        return super().list(request, *args, **kwargs)

    @extend_schema(responses=VexFeedSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one VEX feed. The `ETag` is its revision."""
        return self._answer(feed_for(caller(request), int(pk)))

    @extend_schema(request=VexFeedBody, responses={201: VexFeedSerializer})
    def create(self, request: Request) -> Response:
        """Add a VEX feed (waiver.request), and queue its first run. What it says is advice until it is trusted."""
        body = VexFeedBody(data=request.data)
        body.is_valid(raise_exception=True)
        user, values = caller(request), dict(body.validated_data)
        team = values.pop("team")
        return self._answer(feeds.add_feed(actor=user, team=team_for(user, team) if team else None, **values), 201)

    @extend_schema(request=VexFeedChangeBody, responses=VexFeedSerializer, parameters=[_IF_MATCH])
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change a VEX feed (waiver.request). With another address, key or limit it must be trusted again."""
        body = VexFeedChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        revision = revision_wanted(request)
        return self._answer(feeds.change_feed(int(pk), actor=caller(request), revision=revision, **body.validated_data))

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Remove a VEX feed, and withdraw what it said. Your own, or with waiver.approve."""
        feeds.remove_feed(int(pk), actor=caller(request))
        return Response(status=204)

    @extend_schema(request=VexFeedSyncBody, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    def sync(self, request: Request, pk: str) -> Response:
        """Queue a run now (waiver.request). Returns its job, which shows the progress."""
        body = VexFeedSyncBody(data=request.data)
        body.is_valid(raise_exception=True)
        job = feeds.sync_now(int(pk), actor=caller(request), **body.validated_data)
        return Response(JobSerializer(job, context={"request": request}).data, status=202)

    @extend_schema(request=VexFeedReasonBody, responses=VexFeedSerializer)
    @action(detail=True, methods=["post"])
    def trust(self, request: Request, pk: str) -> Response:
        """Let what a feed says count, as a second person (waiver.approve; not what you added)."""
        return self._answer(feeds.trust(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(request=VexFeedReasonBody, responses=VexFeedSerializer)
    @action(detail=True, methods=["post"])
    def distrust(self, request: Request, pk: str) -> Response:
        """Make what a feed says advice again. Your own, or with waiver.approve."""
        return self._answer(feeds.distrust(int(pk), actor=caller(request), reason=_reason(request)))

    def _answer(self, feed: VexFeed, status: int = 200) -> Response:
        return with_etag(Response(VexFeedSerializer(feed).data, status=status), feed.revision)


def _reason(request: Request) -> str:
    body = VexFeedReasonBody(data=request.data or {})
    body.is_valid(raise_exception=True)
    reason: str = body.validated_data["reason"]
    return reason
