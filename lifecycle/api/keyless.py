"""Trust rules in `/api/v1/`: by which identity tokens of CI jobs become tokens of a robot."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Robot
from accounts.verbs import Verb
from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import robot_in, team_for
from lifecycle.authority.rights import require
from lifecycle.keyless import services
from lifecycle.keyless.access import rule_of, rules_of
from lifecycle.keyless.constants import IDENTITY_MAX, PATTERN_MAX
from lifecycle.keyless.models import TrustRule


class TrustRuleSerializer(serializers.ModelSerializer[TrustRule]):
    """A rule: every claim must match, and the issuer and the audience must be exactly these."""

    issuer = serializers.CharField(read_only=True, help_text="The `iss` of the tokens, exactly")
    audience = serializers.CharField(read_only=True, help_text="One of the `aud` of the tokens")
    claims = serializers.DictField(child=serializers.CharField(), read_only=True, help_text="Claim to pattern")
    made_by = serializers.CharField(
        source="made_by.username", read_only=True, help_text="The rule works while this user has the robot's verbs"
    )
    used_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When a job last got a token")

    class Meta:
        model = TrustRule
        fields = ("id", "name", "issuer", "audience", "claims", "made_by", "created_at", "used_at")
        read_only_fields = fields


class TrustRuleBody(StrictSerializer):
    name = serializers.CharField(max_length=120)
    issuer = serializers.CharField(max_length=300, help_text="The `iss` of the tokens, exactly")
    audience = serializers.CharField(
        max_length=300, required=False, default="", allow_blank=True, help_text="Default: the address of Gravingdock"
    )
    claims = serializers.DictField(
        child=serializers.CharField(max_length=PATTERN_MAX),
        help_text="Claim to pattern; * matches any characters, but not in place of an owner",
    )


class IdentityBody(StrictSerializer):
    token = serializers.CharField(max_length=IDENTITY_MAX, help_text="An identity token of a job. It is not used up")


class CheckSerializer(serializers.Serializer[Any]):
    claim = serializers.CharField(help_text="Name of the claim")
    pattern = serializers.CharField(help_text="What the rule asks for")
    found = serializers.CharField(allow_null=True, help_text="What the token says; null if nothing")
    holds = serializers.BooleanField(help_text="Whether it matches")


class TrialSerializer(serializers.Serializer[Any]):
    is_accepted = serializers.BooleanField(help_text="Whether a job would get a token for it")
    reason = serializers.CharField(help_text="Why not; empty if it is accepted")
    checks = CheckSerializer(many=True, help_text="Each claim that the rule asks for")


class TrustRulesView(generics.ListAPIView[TrustRule]):
    """The rules by which CI jobs become a robot."""

    queryset = TrustRule.objects.none()  # for the schema
    serializer_class = TrustRuleSerializer

    def _robot(self) -> Robot:
        return robot_in(team_for(caller(self.request), self.kwargs["team"]), self.kwargs["robot_id"])

    def get_queryset(self) -> QuerySet[TrustRule]:
        return rules_of(self._robot()).order_by("pk")

    @extend_schema(request=TrustRuleBody, responses={201: TrustRuleSerializer})
    def post(self, request: Request, team: str, robot_id: int) -> Response:
        """Create a rule (robot.manage, and every verb of the robot). It works while you have these.

        A rule that is made with a token ends with that token. Robots make none.
        """
        robot = self._robot()
        body = TrustRuleBody(data=request.data)
        body.is_valid(raise_exception=True)
        rule = services.create_rule(robot.pk, actor=caller(request), **body.validated_data)
        return Response(self.get_serializer(rule).data, status=201)


class TrustRuleView(generics.GenericAPIView[TrustRule]):
    """One rule."""

    serializer_class = TrustRuleSerializer

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, team: str, robot_id: int, rule_id: int) -> Response:
        """End the rule (robot.manage). Tokens that jobs got by it are revoked."""
        robot = robot_in(team_for(caller(request), team), robot_id)
        services.end_rule(robot.pk, rule_id, actor=caller(request))
        return Response(status=204)


class TryTrustRuleView(generics.GenericAPIView[TrustRule]):
    """Try a token against a rule."""

    serializer_class = TrialSerializer
    calls_others: ClassVar[frozenset[str]] = frozenset({"post"})  # the issuer

    @extend_schema(request=IdentityBody, responses=TrialSerializer)
    def post(self, request: Request, team: str, robot_id: int, rule_id: int) -> Response:
        """Say whether the rule would accept an identity token, and why not (robot.manage). Nothing is changed."""
        row = team_for(caller(request), team)
        robot = robot_in(row, robot_id)
        require(caller(request), Verb.ROBOT_MANAGE, team=row)
        rule = rule_of(robot, rule_id)
        body = IdentityBody(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(self.get_serializer(services.try_rule(rule, body.validated_data["token"])).data)
