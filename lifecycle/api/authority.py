"""Teams, grants, robots, environments, roles and tokens in `/api/v1/`: parse, call the service, return the result."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import ApiToken, Robot, Role, Team
from accounts.tokens import DEFAULT_DAYS, lookup_of
from accounts.verbs import Verb
from lifecycle.api.caller import caller
from lifecycle.api.environments import EnvironmentSerializer
from lifecycle.api.secrets import SecretResponse
from lifecycle.api.serializing import StrictSerializer, require_valid
from lifecycle.authority import services
from lifecycle.authority.access import grant_in, robot_in, role_called, team_for
from lifecycle.authority.explaining import explain
from lifecycle.authority.forms import WhyForm
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import (
    grants_in,
    live_tokens,
    robots_in,
    roles_with_counts,
    teams_with_counts,
    with_counts,
)
from lifecycle.authority.services.moving import NAMES_MAX
from lifecycle.authority.services.robots import OVERLAP_HOURS, OVERLAP_HOURS_MAX
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.environments.models import Environment


def _parsed(body: serializers.Serializer[Any]) -> dict[str, Any]:
    """Return the validated body; raises ValidationError (400)."""
    body.is_valid(raise_exception=True)
    values: dict[str, Any] = body.validated_data
    return values


class TeamSerializer(serializers.ModelSerializer[Team]):
    people = serializers.IntegerField(read_only=True)
    robots = serializers.IntegerField(source="robot_count", read_only=True)
    environments = serializers.IntegerField(source="place_count", read_only=True)

    class Meta:
        model = Team
        fields = ("slug", "name", "people", "robots", "environments", "created_at")
        read_only_fields = fields


class TeamBody(StrictSerializer):
    slug = serializers.CharField(max_length=60)
    name = serializers.CharField(max_length=120, required=False, default="", allow_blank=True)


class TeamsView(generics.ListAPIView[Team]):
    """The teams you can see."""

    queryset = Team.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = TeamSerializer

    def get_queryset(self) -> QuerySet[Team]:
        return teams_with_counts(caller(self.request)).order_by("pk")

    @extend_schema(request=TeamBody, responses={201: TeamSerializer})
    def post(self, request: Request) -> Response:
        """Create a team and become its owner (admins only)."""
        new_team = services.create_team(actor=caller(request), **_parsed(TeamBody(data=request.data)))
        return Response(self.get_serializer(with_counts(Team.objects.all()).get(pk=new_team.pk)).data, status=201)


class TeamView(generics.GenericAPIView[Team]):
    """One team."""

    serializer_class = TeamSerializer

    @extend_schema(responses=TeamSerializer)
    def get(self, request: Request, team: str) -> Response:
        """Return the team with its number of people, robots and environments."""
        team_row = teams_with_counts(caller(request)).filter(slug=team).first()
        if team_row is None:
            raise NotFound("Team not found, or you don't have access.")
        return Response(self.get_serializer(team_row).data)


class MoveBody(StrictSerializer):
    to = serializers.CharField(max_length=60, help_text="Short name of the other team.")
    repositories = serializers.ListField(
        child=serializers.CharField(max_length=255),
        default=list,
        max_length=NAMES_MAX,
        help_text="Names of repositories of the team; empty: all.",
    )


class MovedSerializer(serializers.Serializer[Any]):
    team = serializers.CharField(help_text="Slug of the team that has the repositories now")
    repositories = serializers.ListField(child=serializers.CharField(), help_text="Names of the moved repositories")


class TeamMoveView(generics.GenericAPIView[Team]):
    """Moving repositories."""

    serializer_class = MovedSerializer

    @extend_schema(request=MoveBody, responses=MovedSerializer)
    def post(self, request: Request, team: str) -> Response:
        """Move repositories to another team, all or none (team.manage on both).

        409 names what stands on them: environments, open requests, running waves, and a permit of the builder.
        """
        values = _parsed(MoveBody(data=request.data))
        moved = services.move_repositories(
            team_for(caller(request), team).pk, actor=caller(request), to=values["to"], names=values["repositories"]
        )
        return Response({"team": values["to"], "repositories": [row.name for row in moved]})


class GrantSerializer(serializers.ModelSerializer[RoleGrant]):
    username = serializers.CharField(
        source="user.username", read_only=True, default=None, allow_null=True, help_text="Null for a group"
    )
    group = serializers.CharField(
        source="group.__str__",
        read_only=True,
        default=None,
        allow_null=True,
        help_text="Name of a group; null for a user",
    )
    kind = serializers.SerializerMethodField(help_text="person, robot or group")
    role = serializers.CharField(source="role.slug", read_only=True)
    repositories = serializers.CharField(source="repository_pattern", read_only=True)
    environment = serializers.CharField(source="environment.slug", read_only=True, default=None, allow_null=True)
    granted_by = serializers.CharField(source="granted_by.username", read_only=True, default=None, allow_null=True)

    class Meta:
        model = RoleGrant
        fields = (
            "id", "username", "group", "kind", "role", "repositories", "environment", "expires_at", "granted_by",
            "created_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_kind(self, grant: RoleGrant) -> str:
        return grant.user.kind if grant.user is not None else "group"


class GrantBody(StrictSerializer):
    username = serializers.CharField(max_length=150, required=False, default="", help_text="A person or robot, or")
    group = serializers.CharField(max_length=121, required=False, default="", help_text="the name of a group")
    role = serializers.CharField(max_length=60)
    repositories = serializers.CharField(max_length=255, required=False, default="*")
    environment = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)
    expires_at = serializers.DateTimeField(required=False, default=None, allow_null=True)


class GrantsView(generics.ListAPIView[RoleGrant]):
    """The role grants in a team, for people and robots."""

    queryset = RoleGrant.objects.none()  # as above
    serializer_class = GrantSerializer

    def get_queryset(self) -> QuerySet[RoleGrant]:
        team = team_for(caller(self.request), self.kwargs["team"])
        return grants_in(team).order_by("pk")

    @extend_schema(request=GrantBody, responses={201: GrantSerializer})
    def post(self, request: Request, team: str) -> Response:
        """Grant a role to a person or group (team.manage), or to a robot of the team (robot.manage).

        If the grant already exists, only its expiry date changes.
        """
        team_row = team_for(caller(request), team)
        values = _parsed(GrantBody(data=request.data))
        username, group = values.pop("username"), values.pop("group")
        if bool(username) == bool(group):
            raise Malformed("Name one user or one group.")
        scope = {"actor": caller(request), "repository_pattern": values.pop("repositories"), **values}
        robot = Robot.objects.filter(team=team_row, user__username=username).first() if username else None
        if group:
            grant = services.add_group(team_row.pk, group=group, **scope)
        elif robot is not None:
            grant = services.grant_robot(robot.pk, **scope)
        else:
            grant = services.add_member(team_row.pk, username=username, **scope)
        return Response(self.get_serializer(grants_in(team_row).get(pk=grant.pk)).data, status=201)


class GrantView(generics.GenericAPIView[RoleGrant]):
    """One grant."""

    serializer_class = GrantSerializer

    @extend_schema(responses=GrantSerializer)
    def get(self, request: Request, team: str, grant_id: int) -> Response:
        """Return one grant of the team."""
        grant = grant_in(team_for(caller(request), team), grant_id)
        return Response(self.get_serializer(grant).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, team: str, grant_id: int) -> Response:
        """Revoke the grant. This takes effect immediately."""
        team_row = team_for(caller(request), team)
        services.revoke_grant(grant_id, actor=caller(request), team_id=team_row.pk)
        return Response(status=204)


class RobotSerializer(serializers.ModelSerializer[Robot]):
    username = serializers.CharField(source="user.username", read_only=True)
    is_active = serializers.BooleanField(source="user.is_active", read_only=True)
    tokens = serializers.IntegerField(source="token_count", read_only=True)
    created_by = serializers.CharField(source="created_by.username", read_only=True, default=None, allow_null=True)
    responsible = serializers.CharField(
        source="responsible.username",
        read_only=True,
        default=None,
        allow_null=True,
        help_text="The user whose rights bound the robot's.",
    )
    is_suspended = serializers.BooleanField(
        read_only=True, help_text="Whether no active user is responsible for it. Its tokens are refused."
    )

    class Meta:
        model = Robot
        fields = (
            "id", "name", "username", "is_active", "is_suspended", "tokens", "created_by", "responsible", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class RobotBody(StrictSerializer):
    name = serializers.CharField(max_length=60)


class RobotsView(generics.ListAPIView[Robot]):
    """The robots (machine accounts) of a team."""

    queryset = Robot.objects.none()  # as above
    serializer_class = RobotSerializer

    def get_queryset(self) -> QuerySet[Robot]:
        team = team_for(caller(self.request), self.kwargs["team"])
        return robots_in(team).order_by("pk")

    @extend_schema(request=RobotBody, responses={201: RobotSerializer})
    def post(self, request: Request, team: str) -> Response:
        """Create a robot (robot.manage). It has no permissions until you grant it a role."""
        team_row = team_for(caller(request), team)
        robot = services.create_robot(team_row.pk, actor=caller(request), **_parsed(RobotBody(data=request.data)))
        return Response(self.get_serializer(robots_in(team_row).get(pk=robot.pk)).data, status=201)


class RobotView(generics.GenericAPIView[Robot]):
    """One robot."""

    serializer_class = RobotSerializer

    @extend_schema(responses=RobotSerializer)
    def get(self, request: Request, team: str, robot_id: int) -> Response:
        """Return one robot of the team."""
        team_row = team_for(caller(request), team)
        robot = robots_in(team_row).filter(pk=robot_id).first()
        if robot is None:
            raise NotFound("Robot not found, or you don't have access.")
        return Response(self.get_serializer(robot).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, team: str, robot_id: int) -> Response:
        """Deactivate the robot (robot.manage). Its tokens and grants are revoked; its name cannot be used again."""
        robot = robot_in(team_for(caller(request), team), robot_id)
        services.retire_robot(robot.pk, actor=caller(request))
        return Response(status=204)


class RobotTakeOverView(generics.GenericAPIView[Robot]):
    """Take over a robot."""

    serializer_class = RobotSerializer

    @extend_schema(request=None, responses=RobotSerializer)
    def post(self, request: Request, team: str, robot_id: int) -> Response:
        """Become responsible for a robot (robot.manage, and every verb that the robot has).

        Your permissions bound those of the robot from now on. A suspended robot works again. Tokens that deactivated
        users created are revoked.
        """
        robot = robot_in(team_for(caller(request), team), robot_id)
        taken = services.take_over_robot(robot.pk, actor=caller(request))
        taken.token_count = live_tokens().filter(user=taken.user).count()  # type: ignore[attr-defined]  # as robots_in
        return Response(self.get_serializer(taken).data)


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    begins_with = serializers.CharField(source="__str__", read_only=True)
    parent_id = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="The token that was used to create it; it ends with that token.",
    )
    created_by = serializers.CharField(source="made_by.username", read_only=True, default=None, allow_null=True)

    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = (
            "id",
            "name",
            "kind",
            "begins_with",
            "parent_id",
            "created_by",
            "created_at",
            "expires_at",
            "last_used_at",
            "last_used_ip",
        )
        read_only_fields = fields


class NewTokenSerializer(TokenSerializer):
    """A new token. `token` is its text, which only this response contains."""

    token = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "token")
        read_only_fields = fields


class TokenBody(StrictSerializer):
    name = serializers.CharField(max_length=120)
    days = serializers.IntegerField(
        min_value=1,
        max_value=366,
        required=False,
        default=None,
        allow_null=True,
        help_text=f"Default: {DEFAULT_DAYS}, but no longer than the token that you use for this request.",
    )


class RobotTokenBody(TokenBody):
    replaces = serializers.IntegerField(
        required=False, default=None, allow_null=True, help_text="The id of a token that the new one replaces"
    )
    overlap_hours = serializers.IntegerField(
        min_value=0, max_value=OVERLAP_HOURS_MAX, required=False, default=OVERLAP_HOURS,
        help_text="How long the replaced token still works, at most until its end; 0 revokes it now",
    )  # fmt: skip


def _used_token(request: Request) -> ApiToken | None:
    """Return the token that authenticated the request; None in a browser session."""
    return request.auth if isinstance(request.auth, ApiToken) else None


def _new_token(row: ApiToken, text: str) -> Response:
    return SecretResponse({**TokenSerializer(row).data, "token": text}, secrets=("token",), status=201)


class RobotTokensView(generics.ListAPIView[ApiToken]):
    """The tokens of a robot."""

    queryset = ApiToken.objects.none()  # as above
    serializer_class = TokenSerializer

    def _robot(self) -> Robot:
        team = team_for(caller(self.request), self.kwargs["team"])
        return robot_in(team, self.kwargs["robot_id"])

    def get_queryset(self) -> QuerySet[ApiToken]:
        return live_tokens().filter(user=self._robot().user).order_by("-pk")

    @extend_schema(request=RobotTokenBody, responses={201: NewTokenSerializer})
    def post(self, request: Request, team: str, robot_id: int) -> Response:
        """Create a token (robot.manage, and every verb that the robot has). Only this response contains its text.

        With `replaces`, that token ends after `overlap_hours`: time to change the secret of a pipeline.

        If you use a token for this request, the new token expires no later, and ends with it.
        """
        robot = self._robot()
        return _new_token(
            *services.create_robot_token(
                robot.pk,
                actor=caller(request),
                with_token=_used_token(request),
                **_parsed(RobotTokenBody(data=request.data)),
            )
        )


class RobotTokenView(generics.GenericAPIView[ApiToken]):
    """One token of a robot."""

    serializer_class = TokenSerializer

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, team: str, robot_id: int, token_id: int) -> Response:
        """Revoke the token (robot.manage)."""
        robot = robot_in(team_for(caller(request), team), robot_id)
        services.revoke_robot_token(robot.pk, token_id, actor=caller(request))
        return Response(status=204)


class TokensView(generics.ListAPIView[ApiToken]):
    """Your own tokens."""

    queryset = ApiToken.objects.none()  # as above
    serializer_class = TokenSerializer

    def get_queryset(self) -> QuerySet[ApiToken]:
        return live_tokens().filter(user=caller(self.request)).order_by("-pk")

    @extend_schema(request=TokenBody, responses={201: NewTokenSerializer})
    def post(self, request: Request) -> Response:
        """Create a token for your account. Only this response contains its text.

        If you use a token for this request, the new token expires no later, and ends with it.
        """
        user = caller(request)
        values = _parsed(TokenBody(data=request.data))
        text = services.create_api_token(user, actor=user, with_token=_used_token(request), **values)
        return _new_token(ApiToken.objects.get(lookup=lookup_of(text)), text)


class TokenView(generics.GenericAPIView[ApiToken]):
    """One of your tokens."""

    serializer_class = TokenSerializer

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, token_id: int) -> Response:
        """Revoke the token."""
        services.revoke_api_token(token_id, actor=caller(request))
        return Response(status=204)


class EnvironmentBody(StrictSerializer):
    slug = serializers.SlugField(max_length=60)
    name = serializers.CharField(max_length=120, required=False, default="", allow_blank=True)
    prefix = serializers.CharField(max_length=60)
    required_approvals = serializers.IntegerField(
        min_value=0, max_value=20, required=False, help_text="Default: 2 in production, 0 for `dev`, else 1"
    )
    is_production = serializers.BooleanField(
        required=False, help_text="Default: true if the short name is `production` or `prod`"
    )
    registry = serializers.CharField(
        max_length=60, required=False, default="", allow_blank=True,
        help_text="Name of a registry to promote to (admins). Empty or `managed`: the managed one",
    )  # fmt: skip


class TeamEnvironmentsView(generics.ListAPIView[Environment]):
    """The environments of a team, oldest first. `position` is the position on the promotion path."""

    queryset = Environment.objects.none()  # as above
    serializer_class = EnvironmentSerializer

    def get_queryset(self) -> QuerySet[Environment]:
        team = team_for(caller(self.request), self.kwargs["team"])
        return Environment.objects.filter(team=team).select_related("team").order_by("pk")

    @extend_schema(request=EnvironmentBody, responses={201: EnvironmentSerializer})
    def post(self, request: Request, team: str) -> Response:
        """Create an environment at the end of the promotion path (environment.manage)."""
        team_row = team_for(caller(request), team)
        values = _parsed(EnvironmentBody(data=request.data))
        values["name"] = values["name"] or values["slug"]
        environment = services.create_environment(team_row, actor=caller(request), **values)
        return Response(self.get_serializer(environment).data, status=201)


class StepSerializer(serializers.Serializer[Any]):
    is_met = serializers.BooleanField(allow_null=True)
    text = serializers.CharField()


class AnswerSerializer(serializers.Serializer[Any]):
    is_allowed = serializers.BooleanField()
    sentence = serializers.CharField()
    steps = StepSerializer(many=True)
    changes = serializers.ListField(child=serializers.CharField())
    allowed = serializers.ListField(child=serializers.CharField())
    granters = serializers.ListField(child=serializers.CharField())


class ExplainView(generics.GenericAPIView[Team]):
    """Why a user can or cannot do something."""

    serializer_class = AnswerSerializer

    @extend_schema(
        parameters=[
            OpenApiParameter("who", str, required=True),
            OpenApiParameter("verb", str, required=True, enum=[verb.value for verb in Verb]),
            OpenApiParameter("repository", str),
            OpenApiParameter("environment", str),
        ],
        responses=AnswerSerializer,
    )
    def get(self, request: Request, team: str) -> Response:
        """Return the answer with every check, the changes that would allow it, and the users who can make them."""
        team_row = team_for(caller(request), team)
        environments = list(Environment.objects.filter(team=team_row))
        query = require_valid(WhyForm(environments, request.query_params))
        environment = next((row for row in environments if row.slug == query["environment"]), None)
        answer = explain(
            query["who"], Verb(query["verb"]), team=team_row, family=query["repository"], environment=environment
        )
        return Response(self.get_serializer(answer).data)


class RoleSerializer(serializers.ModelSerializer[Role]):
    verbs = serializers.ListField(child=serializers.CharField(), read_only=True)
    holders = serializers.IntegerField(read_only=True)

    class Meta:
        model = Role
        fields = ("slug", "name", "verbs", "is_builtin", "holders")
        read_only_fields = fields


class RoleBody(StrictSerializer):
    name = serializers.CharField(max_length=120)
    verbs = serializers.ListField(child=serializers.CharField(max_length=40), max_length=len(Verb))


class NewRoleBody(RoleBody):
    slug = serializers.CharField(max_length=60)


class RolesView(generics.ListAPIView[Role]):
    """Every role with its verbs."""

    queryset = Role.objects.none()  # as above
    serializer_class = RoleSerializer

    def get_queryset(self) -> QuerySet[Role]:
        return roles_with_counts().order_by("pk")

    @extend_schema(request=NewRoleBody, responses={201: RoleSerializer})
    def post(self, request: Request) -> Response:
        """Create a custom role (admins only)."""
        role = services.create_role(actor=caller(request), **_parsed(NewRoleBody(data=request.data)))
        return Response(self.get_serializer(role_called(role.slug)).data, status=201)


class RoleView(generics.GenericAPIView[Role]):
    """One role."""

    serializer_class = RoleSerializer

    @extend_schema(responses=RoleSerializer)
    def get(self, request: Request, role: str) -> Response:
        """Return the role with its verbs."""
        return Response(self.get_serializer(role_called(role)).data)

    @extend_schema(request=RoleBody, responses=RoleSerializer)
    def put(self, request: Request, role: str) -> Response:
        """Change the name and verbs of a custom role (admins only). Takes effect immediately for all its grants."""
        services.change_role(role, actor=caller(request), **_parsed(RoleBody(data=request.data)))
        return Response(self.get_serializer(role_called(role)).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, role: str) -> Response:
        """Delete a custom role without grants (admins only)."""
        services.delete_role(role, actor=caller(request))
        return Response(status=204)
