"""Channels and their messages in `/api/v1/`: parse, call the service, return the result."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.preconditions import revision_wanted, with_etag
from lifecycle.api.secrets import SecretResponse
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import team_for
from lifecycle.notices import channels
from lifecycle.notices.access import channel_for
from lifecycle.notices.models import Channel, Message
from lifecycle.notices.queries import channels_visible_to, messages_visible_to

_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the channel that you read; optional."
)


class ChannelSerializer(serializers.ModelSerializer[Channel]):
    """A webhook or a chat. Its address and its secret are not shown."""

    team = serializers.CharField(source="team.slug", default=None, allow_null=True, read_only=True)
    host = serializers.CharField(read_only=True, help_text="Host of the address, or the chat service")
    topics = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Topics that are sent"
    )  # ArrayField has no type in the schema

    class Meta:
        model = Channel
        fields = (
            "id", "team", "name", "kind", "host", "topics", "is_enabled", "disabled_reason", "disabled_at", "revision",
            "created_at",
        )  # fmt: skip
        read_only_fields = fields


class NewChannelSerializer(ChannelSerializer):
    """A new channel, with the secret of a webhook, which is shown once."""

    secret = serializers.CharField(
        read_only=True, allow_null=True, help_text="Verifies the signature. Only this response contains it"
    )

    class Meta(ChannelSerializer.Meta):
        fields = (*ChannelSerializer.Meta.fields, "secret")  # type: ignore[assignment]  # one field more
        read_only_fields = fields  # type: ignore[assignment]  # likewise


class ChannelBody(StrictSerializer):
    team = serializers.CharField(
        max_length=60, required=False, default="", allow_blank=True, help_text="Slug; empty: all teams (admins)"
    )
    name = serializers.CharField(max_length=60)
    kind = serializers.ChoiceField(choices=Channel.Kind.values)
    address = serializers.CharField(
        max_length=1000, help_text="https address of a webhook, or an Apprise address such as `slack://...`"
    )
    topics = serializers.ListField(child=serializers.CharField(max_length=60), max_length=100)


class ChannelChangeBody(StrictSerializer):
    name = serializers.CharField(max_length=60)
    topics = serializers.ListField(child=serializers.CharField(max_length=60), max_length=100)
    is_enabled = serializers.BooleanField(required=False, default=True)
    address = serializers.CharField(
        max_length=1000, required=False, default="", allow_blank=True, help_text="Empty: it stays the same"
    )


class MessageSerializer(serializers.ModelSerializer[Message]):
    """One message to one place, with what was sent."""

    key = serializers.CharField(read_only=True, help_text="Id of the message, the same in every attempt")
    channel = serializers.IntegerField(
        source="channel_id", read_only=True, allow_null=True, help_text="Number of the channel; null: mail to you"
    )
    subject = serializers.CharField(read_only=True, help_text="Subject, as sent")
    body = serializers.CharField(read_only=True, help_text="What was sent; empty before the first attempt")
    due_at = serializers.DateTimeField(read_only=True, help_text="When the next attempt is due")

    class Meta:
        model = Message
        fields = (
            "id", "key", "channel", "kind", "state", "subject", "body", "due_at", "attempts", "last_status",
            "last_error", "created_at", "sent_at",
        )  # fmt: skip
        read_only_fields = fields


class ChannelViewSet(FlatListMixin, viewsets.GenericViewSet[Channel]):
    """The channels you can manage."""

    queryset = Channel.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = ChannelSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Channel]:
        return channels_visible_to(caller(self.request)).order_by("pk")

    @extend_schema(responses=ChannelSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one channel. The `ETag` is its revision."""
        return self._answer(channel_for(caller(request), int(pk)))

    @extend_schema(request=ChannelBody, responses={201: NewChannelSerializer})
    def create(self, request: Request) -> Response:
        """Create a channel (team.manage; admins for all teams). The secret of a webhook is shown once."""
        body = ChannelBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        user, slug = caller(request), values.pop("team")
        channel, secret = channels.create_channel(team_for(user, slug) if slug else None, **values, actor=user)
        shown = {**ChannelSerializer(channel).data, "secret": secret or None}
        return SecretResponse(shown, secrets=("secret",), status=201)

    @extend_schema(request=ChannelChangeBody, responses=ChannelSerializer, parameters=[_IF_MATCH])
    def update(self, request: Request, pk: str) -> Response:
        """Change a channel, turn it on or turn it off. Without an address, it keeps its own."""
        body = ChannelChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        user = caller(request)
        channel = channels.change_channel(int(pk), actor=user, revision=revision_wanted(request), **body.validated_data)
        return self._answer(channel)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a channel with its messages."""
        channels.delete_channel(int(pk), actor=caller(request))
        return Response(status=204)

    @extend_schema(request=None, responses={202: MessageSerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Send a test message."""
        message = channels.test_channel(int(pk), actor=caller(request))
        return Response(MessageSerializer(message).data, status=202)

    def _answer(self, channel: Channel) -> Response:
        return with_etag(Response(ChannelSerializer(channel).data), channel.revision)


class MessageViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Message]):
    """Messages of the channels you can manage, and mails to you."""

    queryset = Message.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = MessageSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Message]:
        rows = messages_visible_to(caller(self.request)).order_by("-pk")
        channel = self.request.query_params.get("channel") if self.action == "list" else None
        if channel is None:
            return rows
        if not (channel.isascii() and channel.isdigit() and len(channel) < 19):
            raise serializers.ValidationError({"channel": ["Enter the number of a channel."]})
        return rows.filter(channel=int(channel))

    @extend_schema(parameters=[OpenApiParameter("channel", int)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List messages, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one message with what was sent."""
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=None, responses={202: MessageSerializer})
    @action(detail=True, methods=["post"])
    def redeliver(self, request: Request, pk: str) -> Response:
        """Send a message of a channel again: the same body, with the same id."""
        return Response(MessageSerializer(channels.redeliver(int(pk), actor=caller(request))).data, status=202)
