"""Access requests and effective rights in `/api/v1/`."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Role
from accounts.verbs import Verb
from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority import services
from lifecycle.authority.effective import effective_rights, principal_for
from lifecycle.authority.models import AccessRequest
from lifecycle.authority.queries import access_requests_visible_to
from lifecycle.authority.services.asking import DAYS, DAYS_MAX, TEXT_MAX
from lifecycle.authority.what_if import what_if_role


class AccessRequestSerializer(serializers.ModelSerializer[AccessRequest]):
    """A person asks for a role in a team; an owner grants it until `expires_at`, or declines."""

    team = serializers.CharField(source="team.slug", read_only=True)
    requester = serializers.CharField(source="requester.username", read_only=True, help_text="Who asks")
    role = serializers.CharField(source="role.slug", read_only=True)
    environment = serializers.CharField(source="environment.slug", read_only=True, default=None, allow_null=True)
    decided_by = serializers.CharField(source="decided_by.username", read_only=True, default=None, allow_null=True)
    verb = serializers.CharField(read_only=True, help_text="What was refused; empty: asked without a refusal")
    days = serializers.IntegerField(read_only=True, help_text="For how many days it is wanted, or was granted")

    class Meta:
        model = AccessRequest
        fields = (
            "id", "state", "team", "requester", "role", "repository_pattern", "environment", "verb", "days", "reason",
            "created_at", "decided_at", "decided_by", "decision", "expires_at",
        )  # fmt: skip
        read_only_fields = fields


class AccessRequestBody(StrictSerializer):
    team = serializers.CharField(max_length=60)
    role = serializers.CharField(max_length=60)
    repository_pattern = serializers.CharField(max_length=255, required=False, default="*")
    environment = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)
    verb = serializers.ChoiceField(
        choices=["", *(verb.value for verb in Verb)], required=False, default="", help_text="What was refused, if any"
    )
    days = serializers.IntegerField(min_value=1, max_value=DAYS_MAX, required=False, default=DAYS)
    reason = serializers.CharField(max_length=TEXT_MAX)


class GrantAccessBody(StrictSerializer):
    days = serializers.IntegerField(
        min_value=1, max_value=DAYS_MAX, required=False, default=None, allow_null=True, help_text="Default: as asked"
    )
    comment = serializers.CharField(max_length=TEXT_MAX, required=False, default="", allow_blank=True)


class DeclineAccessBody(StrictSerializer):
    comment = serializers.CharField(max_length=TEXT_MAX)


def _checked(body: serializers.Serializer[Any]) -> dict[str, Any]:
    body.is_valid(raise_exception=True)
    values: dict[str, Any] = body.validated_data
    return values


class AccessRequestViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[AccessRequest]):
    """The access requests that you made, or that you decide about."""

    queryset = AccessRequest.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = AccessRequestSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[AccessRequest]:
        rows = access_requests_visible_to(caller(self.request)).order_by("-pk")
        state = self.request.query_params.get("state") if self.action == "list" else None
        if state is not None and state not in AccessRequest.State.values:
            raise serializers.ValidationError({"state": [f"Choose one of {', '.join(AccessRequest.State.values)}."]})
        return rows.filter(state=state) if state is not None else rows

    @extend_schema(parameters=[OpenApiParameter("state", str, enum=AccessRequest.State.values)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the access requests that you made or decide about, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one access request."""
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=AccessRequestBody, responses={201: AccessRequestSerializer})
    def create(self, request: Request) -> Response:
        """Ask the owners of a team for a role. Asking twice for the same returns the first request."""
        values = _checked(AccessRequestBody(data=request.data))
        row = services.ask_for_access(values.pop("team"), actor=caller(request), **values)
        return Response(self.get_serializer(row).data, status=201)

    @extend_schema(request=GrantAccessBody, responses=AccessRequestSerializer)
    @action(detail=True, methods=["post"])
    def grant(self, request: Request, pk: str) -> Response:
        """Grant the role for some days (team.manage, and every verb of the role). Not your own request."""
        values = _checked(GrantAccessBody(data=request.data or {}))
        return Response(self.get_serializer(services.grant_access(int(pk), actor=caller(request), **values)).data)

    @extend_schema(request=DeclineAccessBody, responses=AccessRequestSerializer)
    @action(detail=True, methods=["post"])
    def decline(self, request: Request, pk: str) -> Response:
        """Decline the request, with a reason for the person (team.manage)."""
        values = _checked(DeclineAccessBody(data=request.data))
        return Response(self.get_serializer(services.decline_access(int(pk), actor=caller(request), **values)).data)

    @extend_schema(request=None, responses=AccessRequestSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Take back your own request."""
        return Response(self.get_serializer(services.withdraw_access_request(int(pk), actor=caller(request))).data)


class RightSerializer(serializers.Serializer[Any]):
    team = serializers.CharField(help_text="Empty: every team")
    repositories = serializers.CharField(help_text="Pattern of repositories, or words")
    environment = serializers.CharField(help_text="Empty: all environments")
    verbs = serializers.ListField(child=serializers.CharField())
    withheld = serializers.ListField(
        child=serializers.CharField(), help_text="Verbs of a robot that its responsible user does not have"
    )
    origin = serializers.CharField(help_text="Where it comes from")
    expires_at = serializers.DateTimeField(allow_null=True)


class EffectiveSerializer(serializers.Serializer[Any]):
    username = serializers.CharField()
    kind = serializers.CharField()
    nothing = serializers.CharField(help_text="Why the account has no rights at all; empty: it has")
    rights = RightSerializer(many=True)


class EffectiveView(generics.GenericAPIView[Role]):
    """What an account has now."""

    queryset = Role.objects.none()  # only for the schema
    serializer_class = EffectiveSerializer

    @extend_schema(
        parameters=[OpenApiParameter("who", str, description="Name of a person or robot; default: you")],
        responses=EffectiveSerializer,
    )
    def get(self, request: Request) -> Response:
        """Return the effective rights of an account, with the origin of each, in the teams you can see."""
        reader = caller(request)
        who = request.query_params.get("who", "") or reader.username
        return Response(self.get_serializer(effective_rights(principal_for(reader, who), reader=reader)).data)


class RoleWhatIfBody(StrictSerializer):
    verbs = serializers.ListField(child=serializers.CharField(max_length=40), max_length=len(Verb))


class RoleDifferenceSerializer(serializers.Serializer[Any]):
    user = serializers.CharField(help_text="Name of the account")
    team = serializers.CharField()
    repositories = serializers.CharField(help_text="Pattern of repositories")
    environment = serializers.CharField(help_text="Empty: all environments")
    gains = serializers.ListField(child=serializers.CharField(), help_text="Verbs that it would have")
    loses = serializers.ListField(child=serializers.CharField(), help_text="Verbs that it would no longer have")


class RoleWhatIfSerializer(serializers.Serializer[Any]):
    results = RoleDifferenceSerializer(many=True)


class RoleWhatIfView(generics.GenericAPIView[Role]):
    """What a change of a role would do."""

    queryset = Role.objects.none()  # only for the schema
    serializer_class = RoleWhatIfSerializer

    @extend_schema(request=RoleWhatIfBody, responses=RoleWhatIfSerializer)
    def post(self, request: Request, role: str) -> Response:
        """Return who would gain and lose what if the role had these verbs (admins). Nothing is changed."""
        values = _checked(RoleWhatIfBody(data=request.data))
        found = what_if_role(role, values["verbs"], actor=caller(request))
        return Response(self.get_serializer({"results": found}).data)
