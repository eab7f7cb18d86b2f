"""The caller in `/api/v1/me/`: who you are, what you can do where, and when your token expires."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import ApiToken, Team, User
from lifecycle.api.caller import caller
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.models import HeldGrant
from lifecycle.authority.queries import grants_held_by, teams_of


class HeldGrantSerializer(serializers.Serializer[HeldGrant]):
    """A live grant of yours: its role, the verbs of the role, and where it applies."""

    role = serializers.CharField(source="role.slug")
    verbs = serializers.ListField(child=serializers.CharField(), source="role.verbs")
    repositories = serializers.CharField(source="repository_pattern", help_text="Pattern; `*` is every repository")
    environment = serializers.CharField(
        source="environment.slug", default=None, allow_null=True, help_text="Null: every environment of the team"
    )
    expires_at = serializers.DateTimeField(allow_null=True)
    origin = serializers.CharField(help_text="The group through which you have it; empty for a grant of your own")


class OwnTeamSerializer(serializers.Serializer[Any]):
    """A team of yours with your live grants in it."""

    slug = serializers.CharField()
    name = serializers.CharField()
    grants = HeldGrantSerializer(many=True)


class UsedTokenSerializer(serializers.Serializer[ApiToken]):
    """The token of this request."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    begins_with = serializers.CharField(source="__str__")
    expires_at = serializers.DateTimeField()


@extend_schema_serializer(component_name="Me")
class MeSerializer(serializers.Serializer[Any]):
    """The account of this request."""

    username = serializers.CharField()
    kind = serializers.ChoiceField(choices=[User.Kind.PERSON, User.Kind.ROBOT])
    is_admin = serializers.BooleanField()
    admin_verbs = serializers.ListField(
        child=serializers.CharField(), help_text="Verbs that you have in every team as an admin"
    )
    registry = serializers.CharField(help_text="Where you sign in to push and pull: `host` or `host:port`")
    teams = OwnTeamSerializer(many=True)
    token = UsedTokenSerializer(allow_null=True, help_text="Null in a browser session")


class MeView(generics.GenericAPIView[User]):
    """Who you are."""

    serializer_class = MeSerializer

    @extend_schema(responses=MeSerializer)
    def get(self, request: Request) -> Response:
        """Return your account, your teams with your roles and verbs, and the token of this request."""
        user = caller(request)
        grants: dict[int, list[HeldGrant]] = {}
        for grant in grants_held_by(user):
            grants.setdefault(grant.team_id, []).append(grant)
        me = {
            "username": user.username,
            "kind": user.kind,
            "is_admin": user.is_superuser,
            "admin_verbs": sorted(verb.value for verb in ADMIN_VERBS) if user.is_superuser else [],
            "registry": settings.REGISTRY_PUBLIC_URL.partition("://")[2],
            "teams": [_own_team(team, grants.get(team.pk, [])) for team in teams_of(user)],
            "token": request.auth if isinstance(request.auth, ApiToken) else None,
        }
        return Response(self.get_serializer(me).data)


def _own_team(team: Team, grants: list[HeldGrant]) -> dict[str, Any]:
    return {"slug": team.slug, "name": team.name, "grants": grants}
