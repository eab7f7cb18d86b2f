"""Notices in `/api/v1/`: what the caller was told, and how they want to be told."""

from __future__ import annotations

from datetime import time
from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.serializing import StrictSerializer
from lifecycle.core import clock
from lifecycle.notices.messages import test_mail
from lifecycle.notices.models import InboxItem, Message, Mute, Preferences
from lifecycle.notices.preferences import INBOX, MAIL, Wish, mute, preferences_of, save_preferences, unmute, wants
from lifecycle.notices.queries import inbox_of
from lifecycle.notices.reading import mark_all_read, mark_read
from lifecycle.notices.topics import all_topics

_STATES: Final = ("unread",)


class NoticeSerializer(serializers.ModelSerializer[InboxItem]):
    """A notice in your list."""

    topic = serializers.CharField(source="notice.topic", read_only=True, help_text="For example `promotion.asked`")
    subject = serializers.CharField(source="notice.subject", read_only=True, help_text="What it is about")
    text = serializers.CharField(source="notice.text", read_only=True)
    link = serializers.CharField(source="notice.link", read_only=True)
    thread = serializers.CharField(source="notice.thread", read_only=True)
    repository = serializers.CharField(
        source="notice.repository.name",
        read_only=True,
        default=None,
        allow_null=True,
        help_text="Null if it is about a whole team",
    )
    environment = serializers.CharField(source="notice.environment.slug", read_only=True, default=None, allow_null=True)
    actor = serializers.CharField(
        source="notice.actor_name", read_only=True, help_text="User who did it; empty if nobody did"
    )
    at = serializers.DateTimeField(source="notice.at", read_only=True)

    class Meta:
        model = InboxItem
        fields = (
            "id",
            "topic",
            "subject",
            "text",
            "link",
            "thread",
            "repository",
            "environment",
            "actor",
            "at",
            "read_at",
        )
        read_only_fields = fields


class ReadAllSerializer(serializers.Serializer[Any]):
    read = serializers.IntegerField(help_text="Number of notices that were unread")


class NoticeViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[InboxItem]):
    """What you were told."""

    queryset = InboxItem.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = NoticeSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[InboxItem]:
        state = self.request.query_params.get("state") if self.action == "list" else None
        if state not in {None, *_STATES}:
            raise serializers.ValidationError({"state": [f"Choose one of {', '.join(_STATES)}."]})
        return inbox_of(caller(self.request), is_unread=state is not None).order_by("-pk")

    @extend_schema(parameters=[OpenApiParameter("state", str, enum=_STATES)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List your notices about what you can see, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one notice. It stays unread."""
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=None, responses=NoticeSerializer)
    @action(detail=True, methods=["post"])
    def read(self, request: Request, pk: str) -> Response:
        """Mark a notice as read."""
        return Response(self.get_serializer(mark_read(int(pk), actor=caller(request))).data)

    @extend_schema(request=None, responses=ReadAllSerializer, filters=False)
    @action(detail=False, methods=["post"], url_path="read-all", pagination_class=None)
    def read_all(self, request: Request) -> Response:
        """Mark all your notices as read."""
        return Response({"read": mark_all_read(actor=caller(request))})


@extend_schema_field({"type": "string", "pattern": r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"})
class LocalTimeField(serializers.TimeField):
    """A wall-clock time without offset. The format `time` of JSON Schema needs one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(format="%H:%M:%S", input_formats=["%H:%M", "%H:%M:%S"], **options)


class PreferencesSerializer(serializers.Serializer[Any]):
    """How you want to be told."""

    inbox = serializers.ListField(child=serializers.CharField(), help_text="Topics that come to your list")
    mail = serializers.ListField(child=serializers.CharField(), help_text="Topics that are mailed to you")
    digest = serializers.ChoiceField(choices=Preferences.Digest.values, help_text="`daily`: one mail a day")
    digest_at = LocalTimeField(help_text="Time of the daily mail")
    quiet_from = LocalTimeField(allow_null=True, help_text="No mail from then; null: no quiet hours")
    quiet_until = LocalTimeField(allow_null=True, help_text="End of the quiet hours")
    time_zone = serializers.CharField(help_text="Of these times; empty: that of your profile")


class PreferencesBody(StrictSerializer):
    inbox = serializers.ListField(child=serializers.CharField(max_length=60), max_length=100)
    mail = serializers.ListField(child=serializers.CharField(max_length=60), max_length=100)
    digest = serializers.ChoiceField(
        choices=Preferences.Digest.values, required=False, default="off", help_text="`daily`: one mail a day"
    )
    digest_at = LocalTimeField(required=False, default=time(8))
    quiet_from = LocalTimeField(required=False, allow_null=True, default=None)
    quiet_until = LocalTimeField(required=False, allow_null=True, default=None)
    time_zone = serializers.CharField(max_length=63, required=False, allow_blank=True, default="")


def _shown(row: Preferences) -> dict[str, Any]:
    ways = {way: [topic.name for topic in all_topics() if wants(row, topic.name, way)] for way in (INBOX, MAIL)}
    names = ("digest", "digest_at", "quiet_from", "quiet_until", "time_zone")
    return PreferencesSerializer(ways | {name: getattr(row, name) for name in names}).data


class NoticePreferencesView(APIView):
    """How you want to be told."""

    @extend_schema(responses=PreferencesSerializer)
    def get(self, request: Request) -> Response:
        """Return your preferences."""
        return Response(_shown(preferences_of(caller(request))))

    @extend_schema(request=PreferencesBody, responses=PreferencesSerializer)
    def put(self, request: Request) -> Response:
        """Replace your preferences."""
        body = PreferencesBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = dict(body.validated_data)
        values |= {way: frozenset(values[way]) for way in (INBOX, MAIL)}
        return Response(_shown(save_preferences(Wish(**values), actor=caller(request))))


class SentMessageSerializer(serializers.ModelSerializer[Message]):
    """A message on its way."""

    key = serializers.CharField(read_only=True, help_text="Id of the message, the same in every attempt")

    class Meta:
        model = Message
        fields = ("id", "key", "kind", "state", "attempts", "last_status", "last_error", "created_at", "sent_at")
        read_only_fields = fields


class TestMailView(APIView):
    """A test of the mail server and of your address."""

    @extend_schema(request=None, responses={202: SentMessageSerializer})
    def post(self, request: Request) -> Response:
        """Send yourself a test mail."""
        return Response(SentMessageSerializer(test_mail(actor=caller(request))).data, status=202)


class MuteSerializer(serializers.ModelSerializer[Mute]):
    """Something that you muted until a time."""

    class Meta:
        model = Mute
        fields = ("id", "scope", "value", "until")
        read_only_fields = fields
        extra_kwargs = {"scope": {"help_text": "What is muted"}}


class MuteBody(StrictSerializer):
    scope = serializers.ChoiceField(choices=Mute.Scope.values, help_text="What to mute")
    value = serializers.CharField(
        max_length=255, required=False, allow_blank=True, default="",
        help_text="Name of the repository, the thread, or the topic; empty for all",
    )  # fmt: skip
    until = serializers.DateTimeField()


class MuteViewSet(FlatListMixin, viewsets.GenericViewSet[Mute]):
    """What you muted."""

    queryset = Mute.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = MuteSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Mute]:
        return Mute.objects.filter(person=caller(self.request), until__gt=clock.now()).order_by("pk")

    @extend_schema(request=MuteBody, responses={201: MuteSerializer})
    def create(self, request: Request) -> Response:
        """Mute something: its notices arrive as read, and no mail is sent. The same again moves the end."""
        body = MuteBody(data=request.data)
        body.is_valid(raise_exception=True)
        row = mute(**body.validated_data, actor=caller(request))
        return Response(self.get_serializer(row).data, status=201)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """End a mute now."""
        unmute(int(pk), actor=caller(request))
        return Response(status=204)
