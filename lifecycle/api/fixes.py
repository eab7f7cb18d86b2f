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
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core.errors import NotFound
from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM
from lifecycle.remedies import teamwork
from lifecycle.remedies.models import FixComment, Remedy
from lifecycle.remedies.queries import (
    ALL,
    ASSIGNED,
    GROUPS_MAX,
    MINE,
    ONLY,
    UNASSIGNED,
    Choice,
    Closed,
    Group,
    Work,
    closed_by,
    comments_on,
    environment_called,
    groups_for,
    rows_of,
    unknown_images,
)

_LEVELS: Final = (CRITICAL, HIGH, MEDIUM, LOW)
_ROWS_MAX: Final = 500
_WHO: Final = (MINE, ASSIGNED, UNASSIGNED)
_SNOOZED: Final = (ONLY, ALL)


class FixPlaceSerializer(serializers.Serializer[Any]):
    environment = serializers.CharField(help_text="team/slug")
    is_production = serializers.BooleanField(help_text="Whether the environment is production")
    images = serializers.IntegerField(help_text="Images of this fix that run there")


class FixWorkSerializer(serializers.Serializer[Work]):
    """What one team does about a remedy."""

    team = serializers.CharField(help_text="Slug of the team")
    person = serializers.CharField(help_text="User name of who works on it; empty for nobody")
    to_team = serializers.CharField(help_text="Slug of the team that works on it; empty for none")
    is_snoozed = serializers.BooleanField(help_text="Whether it is put off now")
    snoozed_until = serializers.DateTimeField(allow_null=True, help_text="Put off until then; null: no time was set")
    until_fix = serializers.BooleanField(help_text="Put off while there is no fix")
    snoozed_by = serializers.CharField(help_text="Who put it off; empty for nobody")
    reason = serializers.CharField(help_text="Why it was put off")


class FixSerializer(serializers.Serializer[Group]):
    """One remedy, over the repositories that you can see. A finding is an advisory in an image."""

    key = serializers.CharField(help_text="Names the remedy, until its packages or base change")
    kind = serializers.ChoiceField(choices=Remedy.Kind.choices, help_text="What to do")
    base = serializers.SerializerMethodField(
        help_text="Repository of the base, or to promote; null without one that you can see"
    )
    base_tag = serializers.CharField(help_text="Plan a rebuild with base and base_tag")
    new_base = serializers.CharField(
        source="new_base.digest",
        default=None,
        allow_null=True,
        help_text="Digest that the tag of the base, or of the image to promote, points to now",
    )
    package_type = serializers.CharField(help_text="Type of its purl; empty for rebuild")
    package_name = serializers.CharField(help_text="With its namespace; empty for rebuild")
    fixed_version = serializers.CharField(help_text="The highest version that fixes the findings; only for upgrade")
    images = serializers.IntegerField(help_text="Images in use that need it")
    findings = serializers.IntegerField(help_text="Advisories, counted in each image")
    severities = serializers.DictField(child=serializers.IntegerField(), help_text="Findings by severity")
    exploited = serializers.IntegerField(help_text="Findings that a KEV list names")
    epss = serializers.FloatField(allow_null=True, help_text="The highest score, 0 to 1; null: unknown")
    due_at = serializers.DateTimeField(allow_null=True, help_text="The earliest due date; null: no finding is ever due")
    teams = serializers.ListField(child=serializers.CharField(), help_text="Slugs of the teams that own the images")
    environments = serializers.SerializerMethodField()

    work = FixWorkSerializer(many=True, help_text="Who works on it, by team; only teams that did something about it")

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
    digest = serializers.CharField(
        source="image.digest", help_text="Its current image, or an older one that an environment runs"
    )
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


class FixCommentSerializer(serializers.Serializer[FixComment]):
    team = serializers.CharField(source="fix.team.slug", help_text="The team whose images it is about")
    author = serializers.CharField(source="author.username", help_text="Who wrote it")
    text = serializers.CharField()
    at = serializers.DateTimeField(help_text="When it was written")


class FixDetailSerializer(FixSerializer):
    comments = FixCommentSerializer(many=True, help_text="The newest 200, oldest first")
    repositories = FixImageSerializer(many=True, help_text=f"At most {_ROWS_MAX}, the worst first")
    advisories = FixAdvisorySerializer(many=True, help_text="Of these repositories, the worst first")


class FixAssignBody(StrictSerializer):
    team = serializers.CharField(
        max_length=64,
        required=False,
        default="",
        help_text="For its images; needed if several teams have images with it",
    )
    person = serializers.CharField(max_length=150, required=False, default="", allow_blank=True, help_text="User name")
    to_team = serializers.CharField(max_length=64, required=False, default="", allow_blank=True, help_text="Or a slug")


class FixSnoozeBody(StrictSerializer):
    team = serializers.CharField(max_length=64, required=False, default="", help_text="As for assign")
    until = serializers.DateTimeField(
        required=False, default=None, allow_null=True, help_text=f"At most {teamwork.SNOOZE_DAYS_MAX} days ahead"
    )
    until_fix = serializers.BooleanField(required=False, default=False, help_text="While there is no fix")
    reason = serializers.CharField(max_length=teamwork.REASON_MAX, required=False, default="", allow_blank=True)


class FixWakeBody(StrictSerializer):
    team = serializers.CharField(max_length=64, required=False, default="", help_text="As for assign")


class FixCommentBody(StrictSerializer):
    team = serializers.CharField(max_length=64, required=False, default="", help_text="As for assign")
    text = serializers.CharField(max_length=teamwork.TEXT_MAX)


class FixesView(APIView):
    """What to do about open findings of the images in use that you can see."""

    @extend_schema(
        operation_id="fixes_list",
        parameters=[
            OpenApiParameter("team", str, description="Slug of a team"),
            OpenApiParameter("environment", str, description="team/slug: only what runs there"),
            OpenApiParameter("kind", str, enum=Remedy.Kind.values),
            OpenApiParameter("severity", str, enum=_LEVELS, description="With a finding as severe as this, or worse"),
            OpenApiParameter("exploited", bool, description="Only with findings that a KEV list names"),
            OpenApiParameter("overdue", bool, description="Only with findings past their due date"),
            OpenApiParameter("who", str, enum=_WHO, description="mine: assigned to you, or to a team of yours"),
            OpenApiParameter("snoozed", str, enum=_SNOOZED, description="Without it, only what is not put off"),
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
            who=_one_of(given, "who", _WHO),
            snoozed=_one_of(given, "snoozed", _SNOOZED),
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
        groups = groups_for(user, Choice(key=key, snoozed=ALL)).groups
        if not groups:
            raise NotFound("This remedy is not needed any more, or you cannot see its images.")
        rows = list(rows_of(user, key)[:_ROWS_MAX])
        answer = FixSerializer(groups[0]).data
        answer["repositories"] = [FixImageSerializer(row).data for row in rows]
        answer["comments"] = [FixCommentSerializer(item).data for item in comments_on(groups[0].work)]
        answer["advisories"] = [FixAdvisorySerializer(item).data for item in closed_by(rows)]
        return Response(answer)


class FixAssignView(APIView):
    """Who works on a remedy."""

    @extend_schema(operation_id="fixes_assign", request=FixAssignBody, responses=FixWorkSerializer)
    def post(self, request: Request, key: str) -> Response:
        """Assign it to a person or a team (runtime.manage); without both, to nobody."""
        body = FixAssignBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        return _worked(teamwork.assign(key, actor=caller(request), **body.validated_data))


class FixSnoozeView(APIView):
    """Put a remedy off."""

    @extend_schema(operation_id="fixes_snooze", request=FixSnoozeBody, responses=FixWorkSerializer)
    def post(self, request: Request, key: str) -> Response:
        """Snooze it until a time or until a fix ships (runtime.manage). What becomes exploited ends a snooze."""
        body = FixSnoozeBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        return _worked(teamwork.snooze(key, actor=caller(request), **body.validated_data))


class FixWakeView(APIView):
    """End the snooze of a remedy."""

    @extend_schema(operation_id="fixes_wake", request=FixWakeBody, responses=FixWorkSerializer)
    def post(self, request: Request, key: str) -> Response:
        """End the snooze now (runtime.manage)."""
        body = FixWakeBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        return _worked(teamwork.wake(key, actor=caller(request), **body.validated_data))


class FixCommentView(APIView):
    """Comments on a remedy."""

    @extend_schema(operation_id="fixes_comment", request=FixCommentBody, responses={201: FixCommentSerializer})
    def post(self, request: Request, key: str) -> Response:
        """Write a comment, for all who can see an image of the team that needs the remedy."""
        body = FixCommentBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        written = teamwork.comment(key, actor=caller(request), **body.validated_data)
        return Response(FixCommentSerializer(written).data, status=201)


def _worked(work: Work) -> Response:
    return Response(FixWorkSerializer(work).data)


def _one_of(given: Any, name: str, allowed: Any) -> str:
    value: str = given.get(name, "")
    if value and value not in allowed:
        raise ValidationError({name: [f"Choose one of {', '.join(allowed)}."]})
    return value
