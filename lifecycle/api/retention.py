"""Retention in `/api/v1/`: rules of teams and repositories, plans, confirmations and restoring."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.etags import IF_MATCH
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.pagination import KeysetPagination
from lifecycle.api.preconditions import revision_required, with_etag
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import repository_named
from lifecycle.core.reasons import refuse_if
from lifecycle.retention import services
from lifecycle.retention.access import place_for, plan_for, why_not_retain
from lifecycle.retention.constants import COLLECT, DIGESTS_MAX, NUMBER_MAX, PATTERNS_MAX
from lifecycle.retention.models import RetentionEntry, RetentionPlan, RetentionRules
from lifecycle.retention.queries import entries_of, plans_visible_to, rules_of

_SHOWN: Final = 500  # digests in the answer of a plan
_LAST_HELP: Final = "How many of the newest images with a tag each repository keeps; null: not set"
_DAYS_HELP: Final = "How many days an image stays after its last push or tag; null: not set"
_TAGS_HELP: Final = "Patterns; `*` stands for any characters. A tag that matches keeps its image"
_UNTAGGED_HELP: Final = "How many days an image without a tag stays; null: for ever"
_ENTRY_STATES: Final = RetentionEntry.State.values


class RetentionRulesSerializer(serializers.Serializer[Any]):
    """What a team or repository keeps. Revision 0: nobody set rules, and nothing is deleted."""

    revision = serializers.IntegerField()
    keep_last = serializers.IntegerField(allow_null=True, help_text=_LAST_HELP)
    keep_days = serializers.IntegerField(allow_null=True, help_text=_DAYS_HELP)
    tags = serializers.ListField(child=serializers.CharField(), help_text=_TAGS_HELP)
    untagged_days = serializers.IntegerField(allow_null=True, help_text=_UNTAGGED_HELP)
    changed_by = serializers.CharField(allow_null=True)
    changed_at = serializers.DateTimeField(allow_null=True)


class RetentionRulesBody(StrictSerializer):
    """All rules; what is left out is not set."""

    keep_last = serializers.IntegerField(
        min_value=1, max_value=NUMBER_MAX, required=False, allow_null=True, default=None, help_text=_LAST_HELP
    )
    keep_days = serializers.IntegerField(
        min_value=0, max_value=NUMBER_MAX, required=False, allow_null=True, default=None, help_text=_DAYS_HELP
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=128), max_length=PATTERNS_MAX, required=False, default=list,
        help_text=_TAGS_HELP,
    )  # fmt: skip
    untagged_days = serializers.IntegerField(
        min_value=0, max_value=NUMBER_MAX, required=False, allow_null=True, default=None, help_text=_UNTAGGED_HELP
    )


class RetentionReasonSerializer(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="Stable, such as `promoted` or `untagged`")
    text = serializers.CharField()


class RetentionDigestSerializer(serializers.Serializer[RetentionEntry]):
    """One digest of a plan in one repository, with all reasons."""

    digest = serializers.CharField(source="image.digest")
    repository = serializers.CharField(source="repository.name")
    tags = serializers.ListField(child=serializers.CharField(), help_text="All go with the digest")
    action = serializers.SerializerMethodField(help_text="`keep` or `delete`")
    state = serializers.CharField(help_text=f"One of {', '.join(_ENTRY_STATES)}")
    reasons = serializers.SerializerMethodField(help_text="All of them")
    size_bytes = serializers.IntegerField(help_text="Of the image, compressed")
    freed_bytes = serializers.IntegerField(
        help_text="What the registry's collector can free; a layer of several images counts for the first"
    )
    deleted_at = serializers.DateTimeField(allow_null=True, help_text="It can be restored for 7 days after this")
    note = serializers.CharField(help_text="Why it could not be restored")

    def get_action(self, row: RetentionEntry) -> str:
        return "keep" if row.state in {RetentionEntry.State.KEEP, RetentionEntry.State.KEPT} else "delete"

    @extend_schema(responses=RetentionReasonSerializer(many=True))
    def get_reasons(self, row: RetentionEntry) -> list[dict[str, str]]:
        return [{"code": code, "text": text} for code, text in row.reasons]


class RetentionPlanSerializer(serializers.ModelSerializer[RetentionPlan]):
    """A plan: what the rules would delete, and what is kept."""

    team = serializers.CharField(source="team.slug", read_only=True)
    repository = serializers.CharField(
        source="repository.name", read_only=True, default=None, allow_null=True, help_text="null: all of the team"
    )
    created_by = serializers.CharField(source="created_by.username", read_only=True)
    confirmed_by = serializers.CharField(source="confirmed_by.username", read_only=True, default=None, allow_null=True)
    replaced_by = serializers.IntegerField(
        source="replaced_by_id", read_only=True, allow_null=True, help_text="Number of the plan to look at instead"
    )

    class Meta:
        model = RetentionPlan
        fields: tuple[str, ...] = (
            "id", "team", "repository", "state", "accept_unknown_runtime", "keep_count", "delete_count",
            "deleted_bytes", "freed_bytes", "created_by", "created_at", "confirmed_by", "confirmed_at", "finished_at",
            "failure", "replaced_by",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields
        extra_kwargs: ClassVar[dict[str, dict[str, str]]] = {
            "accept_unknown_runtime": {"help_text": "Whether clusters that never reported are ignored"},
            "keep_count": {"help_text": "Number of images that are kept"},
            "delete_count": {"help_text": "Number of images to delete, each with all its tags"},
            "deleted_bytes": {"help_text": "Of the images to delete; a shared layer counts once"},
            "freed_bytes": {"help_text": "Those that no other image of the registry has: its collector can free them"},
            "confirmed_at": {"help_text": "When its deletion was confirmed"},
            "finished_at": {"help_text": "When its deletion ended"},
            "failure": {"help_text": "Why the deletion failed"},
        }


class RetentionPlanDetailSerializer(RetentionPlanSerializer):
    digests = serializers.SerializerMethodField(help_text=f"The first {_SHOWN}, those to delete first")
    hint = serializers.SerializerMethodField(help_text="How the registry frees the space")

    class Meta(RetentionPlanSerializer.Meta):
        fields = (*RetentionPlanSerializer.Meta.fields, "digests", "hint")
        read_only_fields = fields

    @extend_schema(responses=RetentionDigestSerializer(many=True))
    def get_digests(self, plan: RetentionPlan) -> Any:
        rows = entries_of(plan, caller(self.context["request"]))[:_SHOWN]
        return [RetentionDigestSerializer(row).data for row in rows]

    def get_hint(self, plan: RetentionPlan) -> str:
        return COLLECT


class RetentionPlanBody(StrictSerializer):
    team = serializers.CharField(max_length=60, required=False, default="", help_text="All repositories of this team")
    repository = serializers.CharField(
        max_length=255, required=False, default="", help_text="Only this repository; instead of `team`"
    )
    accept_unknown_runtime = serializers.BooleanField(
        default=False, help_text="Delete promoted copies although a cluster has never reported what it runs"
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if bool(attrs["team"]) == bool(attrs["repository"]):
            raise serializers.ValidationError({"team": ["Name a team or a repository."]})
        return attrs


class RetentionRestoreBody(StrictSerializer):
    digests = serializers.ListField(
        child=serializers.CharField(max_length=135), max_length=DIGESTS_MAX, required=False, default=list,
        help_text="Only these; without it, all that can be restored",
    )  # fmt: skip


class RetentionRulesView(APIView):
    """What a team or one of its repositories keeps."""

    @extend_schema(responses=RetentionRulesSerializer)
    def get(self, request: Request, **where: Any) -> Response:
        """Return the rules, with their ETag. A repository without own rules has those of its team."""
        owner, repository = place_for(caller(request), **where)
        return _rules(rules_of(team=owner) if repository is None else rules_of(repository=repository))

    @extend_schema(parameters=[IF_MATCH], request=RetentionRulesBody, responses=RetentionRulesSerializer)
    def put(self, request: Request, **where: Any) -> Response:
        """Replace the rules (image.delete). Needs If-Match: 428 without it, 412 when somebody saved meanwhile."""
        user = caller(request)
        refuse_if(why_not_retain(user, *place_for(user, **where)))
        body = RetentionRulesBody(data=request.data)
        body.is_valid(raise_exception=True)
        revision = revision_required(request)
        return _rules(services.save_rules(actor=user, revision=revision, **where, **body.validated_data))


class RetentionPlanViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[RetentionPlan]):
    """Retention plans of the teams and repositories you can see; digests only of repositories you can see."""

    queryset = RetentionPlan.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = RetentionPlanSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[RetentionPlan]:
        return plans_visible_to(caller(self.request)).order_by("-pk")

    @extend_schema(request=RetentionPlanBody, responses={201: RetentionPlanDetailSerializer})
    def create(self, request: Request) -> Response:
        """Judge all images of a team or a repository (image.delete). Nothing is deleted."""
        body = RetentionPlanBody(data=request.data)
        body.is_valid(raise_exception=True)
        values, user = body.validated_data, caller(request)
        where = {"repository": repository_named(user, values["repository"]).pk} if values["repository"] else {}
        made = services.make_plan(
            actor=user, team=values["team"], accept_unknown_runtime=values["accept_unknown_runtime"], **where
        )
        return self._answer(made, status=201)

    @extend_schema(responses=RetentionPlanDetailSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one plan with its digests."""
        return self._answer(plan_for(caller(request), int(pk)))

    @extend_schema(
        responses=RetentionDigestSerializer(many=True),
        parameters=[
            OpenApiParameter("state", str, enum=_ENTRY_STATES),
            OpenApiParameter("cursor", str),
            OpenApiParameter("limit", int),
        ],
    )
    @action(detail=True, methods=["get"])
    def digests(self, request: Request, pk: str) -> Response:
        """List all digests of a plan, those to delete first."""
        user = caller(request)
        state = request.query_params.get("state")
        if state is not None and state not in _ENTRY_STATES:
            raise serializers.ValidationError({"state": [f"Choose one of {', '.join(_ENTRY_STATES)}."]})
        rows = entries_of(plan_for(user, int(pk)), user)
        paginator = KeysetPagination()
        page = paginator.paginate_queryset(rows.filter(state=state) if state else rows, request, view=self)
        return paginator.get_paginated_response([RetentionDigestSerializer(row).data for row in page])

    @extend_schema(request=None, responses=RetentionPlanDetailSerializer)
    @action(detail=True, methods=["post"])
    def confirm(self, request: Request, pk: str) -> Response:
        """Delete the images of a plan (image.delete). Older than 24 h or changed: 409 with the number of a new plan."""
        return self._answer(services.confirm(int(pk), actor=caller(request)))

    @extend_schema(request=RetentionRestoreBody, responses=RetentionPlanDetailSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: str) -> Response:
        """Put back what a plan deleted in the last 7 days (image.delete), while the registry has the layers."""
        body = RetentionRestoreBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        return self._answer(services.restore(int(pk), actor=caller(request), **body.validated_data))

    def _answer(self, plan: RetentionPlan, *, status: int = 200) -> Response:
        shown = RetentionPlanDetailSerializer(plan, context=self.get_serializer_context())
        return Response(shown.data, status=status)


def _rules(row: RetentionRules | None) -> Response:
    row = row or RetentionRules(revision=0)
    document = {name: getattr(row, name) for name in ("revision", *services.FIELDS, "changed_at")}
    document["changed_by"] = row.changed_by.username if row.revision else None
    return with_etag(Response(RetentionRulesSerializer(document).data), row.revision)
