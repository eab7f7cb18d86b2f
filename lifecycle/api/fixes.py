"""What to do about open findings, in `/api/v1/fixes/`."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.advisories.exploits import exploit_feeds
from lifecycle.api.caller import caller
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core.errors import NotFound
from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM
from lifecycle.remedies.models import Remedy
from lifecycle.remedies.queries import (
    GROUPS_MAX,
    Choice,
    Closed,
    Group,
    closed_by,
    environment_called,
    groups_for,
    rows_of,
    unknown_images,
)

_LEVELS: Final = (CRITICAL, HIGH, MEDIUM, LOW)
_ROWS_MAX: Final = 500


class FixPlaceSerializer(serializers.Serializer[Any]):
    environment = serializers.CharField(help_text="team/slug")
    is_production = serializers.BooleanField(help_text="Whether the environment is production")
    images = serializers.IntegerField(help_text="Repositories of this fix that run there")


class FixSerializer(serializers.Serializer[Group]):
    """One remedy, over the repositories that you can see. A finding is an advisory in an image."""

    key = serializers.CharField(help_text="Names the remedy, until its packages or base change")
    kind = serializers.ChoiceField(choices=Remedy.Kind.choices, help_text="What to do")
    base = serializers.SerializerMethodField(help_text="Repository of the base; null without one that you can see")
    base_tag = serializers.CharField(help_text="Plan a rebuild with base and base_tag")
    new_base = serializers.CharField(
        source="new_base.digest",
        default=None,
        allow_null=True,
        help_text="Digest that the tag of the base points to now",
    )
    package_type = serializers.CharField(help_text="Type of its purl; empty for rebuild")
    package_name = serializers.CharField(help_text="With its namespace; empty for rebuild")
    fixed_version = serializers.CharField(help_text="The highest version that fixes the findings; only for upgrade")
    images = serializers.IntegerField(help_text="Repositories whose current image needs it")
    findings = serializers.IntegerField(help_text="Advisories, counted in each image")
    severities = serializers.DictField(child=serializers.IntegerField(), help_text="Findings by severity")
    exploited = serializers.IntegerField(help_text="Findings that a KEV list names")
    epss = serializers.FloatField(allow_null=True, help_text="The highest score, 0 to 1; null: unknown")
    due_at = serializers.DateTimeField(allow_null=True, help_text="The earliest due date; null: no finding is ever due")
    teams = serializers.ListField(child=serializers.CharField(), help_text="Slugs of the teams that own the images")
    environments = serializers.SerializerMethodField()

    def get_base(self, group: Group) -> str | None:
        """Return the name of the base's repository."""
        return group.base.name if group.base is not None else None

    @extend_schema_field(FixPlaceSerializer(many=True))
    def get_environments(self, group: Group) -> list[dict[str, Any]]:
        """Return where the images run."""
        return [
            {"environment": f"{place.team.slug}/{place.slug}", "is_production": place.is_production, "images": count}
            for place, count in group.environments
        ]


class FixListSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField(help_text="Remedies in all")
    findings = serializers.IntegerField(help_text="Findings of all of them")
    unknown_images = serializers.IntegerField(
        help_text="Tagged images, of the team if one is given, that are not scanned or not judged in full"
    )
    kev_read_at = serializers.DateTimeField(
        allow_null=True, help_text="When a KEV list was last read; null: never, so that nobody knows what is exploited"
    )
    results = FixSerializer(many=True, help_text=f"At most {GROUPS_MAX}, the most useful first")


class FixImageSerializer(serializers.Serializer[Remedy]):
    repository = serializers.CharField(source="repository.name", help_text="Name of the repository")
    digest = serializers.CharField(source="image.digest", help_text="Its current image")
    findings = serializers.SerializerMethodField()
    exploited = serializers.IntegerField(help_text="Findings that a KEV list names")

    def get_findings(self, row: Remedy) -> int:
        """Return the number of advisories that the remedy closes in this image."""
        return row.critical + row.high + row.medium + row.low + row.unknown


class FixAdvisorySerializer(serializers.Serializer[Closed]):
    name = serializers.CharField(help_text="Id of the advisory")
    severity = serializers.CharField(help_text="The worst one in these images")
    packages = serializers.ListField(child=serializers.CharField(), help_text="Affected packages")
    images = serializers.IntegerField(help_text="Images that have it")
    is_exploited = serializers.BooleanField(help_text="Whether a KEV list names it")
    epss = serializers.FloatField(allow_null=True, help_text="0 to 1; null: unknown")


class FixDetailSerializer(FixSerializer):
    repositories = FixImageSerializer(many=True, help_text=f"At most {_ROWS_MAX}, the worst first")
    advisories = FixAdvisorySerializer(many=True, help_text="Of these repositories, the worst first")


class FixesView(APIView):
    """What to do about open findings of the current images that you can see."""

    @extend_schema(
        operation_id="fixes_list",
        parameters=[
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("environment", str, description="team/slug: only what runs there"),
            OpenApiParameter("kind", str, enum=Remedy.Kind.values),
            OpenApiParameter("severity", str, enum=_LEVELS, description="With a finding as severe as this, or worse"),
            OpenApiParameter("exploited", bool, description="Only with findings that a KEV list names"),
            OpenApiParameter("overdue", bool, description="Only with findings past their due date"),
        ],
        responses=FixListSerializer,
    )
    def get(self, request: Request) -> Response:
        """List the remedies, most useful first."""
        user, given = caller(request), request.query_params
        team, place = given.get("team", ""), given.get("environment", "")
        environment = environment_called(user, place) if place else None
        if team and not teams_visible_to(user).filter(slug=team).exists():
            raise ValidationError({"team": ["No team that you can see has this slug."]})
        if place and environment is None:
            raise ValidationError({"environment": ["Name an environment that you can see as team/slug."]})
        choice = Choice(
            team=team,
            environment=environment,
            kind=_one_of(given, "kind", Remedy.Kind.values),
            severity=_one_of(given, "severity", _LEVELS),
            exploited=_one_of(given, "exploited", ("true", "false")) == "true",
            overdue=_one_of(given, "overdue", ("true", "false")) == "true",
        )
        found = groups_for(user, choice)
        answer = {
            "total": found.total,
            "findings": found.findings,
            "unknown_images": unknown_images(user, team=team),
            "kev_read_at": exploit_feeds().kev_read_at,
            "results": found.groups,
        }
        return Response(FixListSerializer(answer).data)


class FixView(APIView):
    """One remedy."""

    @extend_schema(operation_id="fixes_retrieve", responses=FixDetailSerializer)
    def get(self, request: Request, key: str) -> Response:
        """Return one remedy with its repositories and advisories."""
        user = caller(request)
        groups = groups_for(user, Choice(key=key)).groups
        if not groups:
            raise NotFound("This remedy is not needed any more, or you cannot see its images.")
        rows = list(rows_of(user, key)[:_ROWS_MAX])
        answer = FixSerializer(groups[0]).data
        answer["repositories"] = [FixImageSerializer(row).data for row in rows]
        answer["advisories"] = [FixAdvisorySerializer(item).data for item in closed_by(rows)]
        return Response(answer)


def _one_of(given: Any, name: str, allowed: Any) -> str:
    value: str = given.get(name, "")
    if value and value not in allowed:
        raise ValidationError({name: [f"Choose one of {', '.join(allowed)}."]})
    return value
