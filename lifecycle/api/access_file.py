"""Access as code in `/api/v1/access/file/`: export, compare and apply an access file."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Team
from lifecycle.api.caller import caller
from lifecycle.api.etags import IF_MATCH
from lifecycle.api.serializing import StrictSerializer
from lifecycle.core.errors import VersionRequired
from lifecycle.declared import services
from lifecycle.declared.document import BYTES_MAX, json_schema, read_text
from lifecycle.declared.state import etag_of, export


class AccessFileBody(StrictSerializer):
    text = serializers.CharField(max_length=BYTES_MAX, trim_whitespace=False, help_text="The access file, YAML or JSON")


class ApplyAccessFileBody(AccessFileBody):
    remove = serializers.BooleanField(
        required=False, default=False, help_text="Whether to remove what is not in the file; else it is kept"
    )


class AccessChangeSerializer(serializers.Serializer[Any]):
    act = serializers.ChoiceField(choices=[services.ADD, services.CHANGE, services.REMOVE])
    kind = serializers.CharField(help_text="role, team, environment, path, robot or grant")
    team = serializers.CharField(help_text="Short name of the team; empty: a role")
    what = serializers.CharField(help_text="The thing in words")
    before = serializers.JSONField(help_text="As it is; null: it is added")
    after = serializers.JSONField(help_text="As the file has it; null: it is removed")


class AccessPlanSerializer(serializers.Serializer[Any]):
    etag = serializers.CharField(help_text="Version of what was compared, for If-Match")
    removals = serializers.IntegerField(help_text="Number of changes that remove something")
    changes = AccessChangeSerializer(many=True)


class AppliedAccessSerializer(serializers.Serializer[Any]):
    etag = serializers.CharField(help_text="Version afterwards")
    done = AccessChangeSerializer(many=True)
    kept = AccessChangeSerializer(many=True, help_text="What is not in the file, and was not removed")


def _text(body: serializers.Serializer[Any]) -> dict[str, Any]:
    body.is_valid(raise_exception=True)
    values: dict[str, Any] = body.validated_data
    return values


class AccessFileView(generics.GenericAPIView[Team]):
    """Who can do what, as a file."""

    queryset = Team.objects.none()  # only for the schema

    @extend_schema(
        parameters=[
            OpenApiParameter("team", str, many=True, description="Only these teams; default: those you manage")
        ],
        responses={200: dict},
    )
    def get(self, request: Request) -> Response:
        """Return the access file of the teams you manage, as JSON; for an admin, the custom roles too.

        Robots are without their tokens. The `ETag` is the version of its content.
        """
        document = export(caller(request), request.query_params.getlist("team"))
        answer = Response(document)
        answer["ETag"] = etag_of(document)
        return answer


class AccessFileSchemaView(generics.GenericAPIView[Team]):
    """The JSON Schema of access files."""

    queryset = Team.objects.none()  # only for the schema

    @extend_schema(responses={200: dict})
    def get(self, request: Request) -> Response:
        """Return the JSON Schema of access files, for editors."""
        return Response(json_schema())


class CompareAccessFileView(generics.GenericAPIView[Team]):
    """What an access file would change."""

    queryset = Team.objects.none()  # only for the schema
    serializer_class = AccessPlanSerializer

    @extend_schema(request=AccessFileBody, responses=AccessPlanSerializer)
    def post(self, request: Request) -> Response:
        """Compare an access file with what is there. Nothing is changed."""
        values = _text(AccessFileBody(data=request.data))
        plan = services.compare(read_text(values["text"]), actor=caller(request))
        return Response(self.get_serializer(plan).data)


class ApplyAccessFileView(generics.GenericAPIView[Team]):
    """Apply an access file."""

    queryset = Team.objects.none()  # only for the schema
    serializer_class = AppliedAccessSerializer

    @extend_schema(request=ApplyAccessFileBody, responses=AppliedAccessSerializer, parameters=[IF_MATCH])
    def post(self, request: Request) -> Response:
        """Make what is there as the file says, all or nothing. Each change needs the right for it.

        `If-Match` is the `etag` of the comparison. Without `remove`, what is not in the file is kept.
        """
        values = _text(ApplyAccessFileBody(data=request.data))
        etag = request.headers.get("If-Match", "").strip()
        if not etag:
            raise VersionRequired("Compare the file first, and send its etag in the header If-Match.")
        applied = services.apply(
            read_text(values["text"]), actor=caller(request), etag=etag, with_removals=values["remove"]
        )
        return Response(self.get_serializer(applied).data)
