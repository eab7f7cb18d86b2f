"""The sealed log in `/api/v1/`: how it stands, and its anchors."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.core.reasons import refuse_if
from lifecycle.sealed_log import services
from lifecycle.sealed_log.access import why_not_read_log
from lifecycle.sealed_log.models import Anchor
from lifecycle.sealed_log.status import LogStatus, status


class LogStatusSerializer(serializers.Serializer[LogStatus]):
    """How far the log is sealed and anchored."""

    name = serializers.CharField(source="origin.name", default=None, allow_null=True, help_text="Name of the log")
    key = serializers.CharField(source="origin.key", default=None, allow_null=True, help_text="What verifies it")
    size = serializers.IntegerField(source="checkpoint.size", default=0, help_text="Number of sealed entries")
    sealed_at = serializers.DateTimeField(source="checkpoint.at", default=None, allow_null=True)
    unsealed_s = serializers.FloatField(allow_null=True, help_text="Age of the oldest event that waits")
    anchored_size = serializers.IntegerField(help_text="Entries that the best anchor has")
    anchored_at = serializers.DateTimeField(allow_null=True)
    is_same_machine = serializers.BooleanField(help_text="Whether no anchor is elsewhere")
    problems = serializers.ListField(child=serializers.CharField(), help_text="What somebody must look at")


class LogStatusView(APIView):
    @extend_schema(responses=LogStatusSerializer)
    def get(self, request: Request) -> Response:
        """Return how far the audit log is sealed and anchored."""
        refuse_if(why_not_read_log(caller(request)))
        return Response(LogStatusSerializer(status()).data)


class AnchorSerializer(serializers.ModelSerializer[Anchor]):
    """A place that gets checkpoints of the audit log, and the last one it got."""

    created_by = serializers.CharField(source="created_by.username", read_only=True, default=None, allow_null=True)
    origin = serializers.CharField(read_only=True, help_text="Name of the log of the last checkpoint it got")
    size = serializers.IntegerField(read_only=True, help_text="Size of the last checkpoint it got")
    anchored_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When it got it")
    target = serializers.CharField(read_only=True, help_text="Where it is")
    problem = serializers.CharField(read_only=True, help_text="Why the last try failed; empty if it did not")

    class Meta:
        model = Anchor
        fields = (
            "id",
            "name",
            "kind",
            "target",
            "origin",
            "size",
            "anchored_at",
            "problem",
            "created_by",
            "created_at",
        )
        read_only_fields = fields


class AnchorBody(StrictSerializer):
    name = serializers.CharField(max_length=60, help_text="Lower-case letters, digits and single hyphens")
    kind = serializers.ChoiceField(choices=Anchor.Kind.choices)
    target = serializers.CharField(
        max_length=300,
        required=False,
        default="",
        allow_blank=True,
        help_text="Folder below ANCHOR_FOLDER, udp://host:514, tcp://host:601, or a mail address",
    )


class AnchorViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Anchor]):
    """Anchors of the audit log."""

    queryset = Anchor.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = AnchorSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Anchor]:
        refuse_if(why_not_read_log(caller(self.request)))
        return Anchor.objects.select_related("created_by").order_by("pk")

    @extend_schema(request=AnchorBody, responses={201: AnchorSerializer})
    def create(self, request: Request) -> Response:
        """Add an anchor (admins). It gets the last checkpoint at once, and then one each five minutes."""
        body = AnchorBody(data=request.data)
        body.is_valid(raise_exception=True)
        row = services.add_anchor(**body.validated_data, actor=caller(request))
        return Response(self.get_serializer(row).data, status=201)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Remove an anchor (admins). The checkpoints it has got stay there. 409 for the last one."""
        services.remove_anchor(int(pk), actor=caller(request))
        return Response(status=204)
