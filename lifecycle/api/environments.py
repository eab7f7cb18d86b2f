"""Environments in `/api/v1/`: read, change and remove them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.preconditions import revision_wanted, with_etag
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.queries import environments_visible_to
from lifecycle.environments.models import ApprovalRule, Environment
from lifecycle.promotion.approval_rules import why_not_satisfiable
from lifecycle.promotion.environments import RuleWish, change_environment, remove_environment

_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the environment that you read; optional."
)


class EnvironmentSerializer(serializers.ModelSerializer[Environment]):
    team = serializers.CharField(source="team.slug", read_only=True)
    registry = serializers.CharField(
        source="registry.name", default=None, allow_null=True, read_only=True,
        help_text="Name of the registry that images are promoted to; null: the managed one",
    )  # fmt: skip

    class Meta:
        model = Environment
        fields: tuple[str, ...] = (
            "id", "team", "slug", "name", "position", "prefix", "archived_at", "registry", "required_approvals",
            "is_production",
            "is_internet_facing", "approve_within_s", "execute_within_s", "soak_s", "queue_policy", "auto_execute",
            "verification",
            "verify_url", "verify_within_s", "rolls_back", "excludes_requester",
            "excludes_build_trigger", "excludes_committer", "excludes_policy_author",
            "requires_signed_votes", "revision",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class ApprovalRuleSerializer(serializers.ModelSerializer[ApprovalRule]):
    """One approval rule: `required` different people of a role, a team, or these people."""

    required_approvals = serializers.IntegerField(source="required", read_only=True)
    role = serializers.CharField(source="role.slug", default=None, allow_null=True, read_only=True)
    team = serializers.CharField(source="team.slug", default=None, allow_null=True, read_only=True)
    people = serializers.SlugRelatedField(slug_field="username", many=True, read_only=True)  # type: ignore[var-annotated]  # generic in the stubs only

    class Meta:
        model = ApprovalRule
        fields = ("name", "required_approvals", "role", "team", "people")
        read_only_fields = fields


class EnvironmentDetailSerializer(EnvironmentSerializer):
    """One environment with its approval rules."""

    approval_rules = ApprovalRuleSerializer(many=True, read_only=True)
    problem = serializers.SerializerMethodField(help_text="Why nobody can promote to it; empty if somebody can")

    class Meta(EnvironmentSerializer.Meta):
        fields = (*EnvironmentSerializer.Meta.fields, "approval_rules", "problem")
        read_only_fields = fields

    def get_problem(self, environment: Environment) -> str:
        return why_not_satisfiable(environment)


class ApprovalRuleBody(StrictSerializer):
    name = serializers.CharField(max_length=80)
    required_approvals = serializers.IntegerField(min_value=1, max_value=20, required=False, default=1)
    role = serializers.CharField(max_length=60, required=False, default="")
    team = serializers.CharField(max_length=60, required=False, default="")
    people = serializers.ListField(child=serializers.CharField(max_length=150), max_length=50, required=False)


class EnvironmentChangeBody(StrictSerializer):
    """The settings to change; what is left out stays. `approval_rules` replaces all rules."""

    name = serializers.CharField(max_length=120, required=False, allow_blank=True)
    position = serializers.IntegerField(min_value=0, max_value=1000, required=False)
    prefix = serializers.CharField(
        max_length=60, required=False, help_text="Only while nothing was promoted below the present one"
    )
    is_archived = serializers.BooleanField(required=False, help_text="Whether nothing can be promoted to it")
    required_approvals = serializers.IntegerField(min_value=0, max_value=20, required=False)
    is_production = serializers.BooleanField(required=False)
    is_internet_facing = serializers.BooleanField(required=False)
    approve_within_s = serializers.IntegerField(min_value=60, max_value=31_622_400, required=False)
    execute_within_s = serializers.IntegerField(min_value=60, max_value=31_622_400, required=False)
    soak_s = serializers.IntegerField(min_value=0, max_value=31_622_400, required=False)
    registry = serializers.CharField(
        max_length=60, required=False, allow_blank=True,
        help_text="Name of a registry, or `managed` (admins; only before the first promotion)",
    )  # fmt: skip
    queue_policy = serializers.ChoiceField(choices=Environment.QueuePolicy.choices, required=False)
    auto_execute = serializers.BooleanField(required=False)
    verification = serializers.ChoiceField(choices=Environment.Verification.choices, required=False)
    verify_url = serializers.CharField(max_length=500, required=False, allow_blank=True)
    verify_secret = serializers.CharField(
        max_length=200,
        required=False,
        default="",
        help_text="Shared with the service, 24 characters or more; never shown",
    )
    verify_within_s = serializers.IntegerField(min_value=60, max_value=2_592_000, required=False)
    rolls_back = serializers.BooleanField(required=False)
    requires_signed_votes = serializers.BooleanField(required=False)
    excludes_requester = serializers.BooleanField(required=False)
    excludes_build_trigger = serializers.BooleanField(required=False)
    excludes_committer = serializers.BooleanField(required=False)
    excludes_policy_author = serializers.BooleanField(required=False)
    approval_rules = ApprovalRuleBody(many=True, required=False, max_length=10)  # type: ignore[call-arg]  # DRF takes it with many


def _wish(*, name: str, required_approvals: int, role: str, team: str, people: Sequence[str] = ()) -> RuleWish:
    return RuleWish(name, required_approvals, role=role, team=team, people=tuple(people))


class EnvironmentViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Environment]):
    """The environments of the teams you can see."""

    queryset = Environment.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = EnvironmentSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Environment]:
        return environments_visible_to(caller(self.request)).order_by("pk")

    def get_serializer_class(self) -> type[EnvironmentSerializer]:
        return EnvironmentSerializer if self.action == "list" else EnvironmentDetailSerializer

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one environment with its approval rules. The `ETag` is its revision."""
        return self._answer(self.get_object())

    @extend_schema(
        request=EnvironmentChangeBody, responses=EnvironmentDetailSerializer, parameters=[_IF_MATCH]
    )  # fmt: skip
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change settings and approval rules (environment.manage). Rules that nobody could satisfy are refused."""
        body = EnvironmentChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        rules = values.pop("approval_rules", None)
        wishes = None if rules is None else [_wish(**rule) for rule in rules]
        environment = change_environment(
            int(pk), actor=caller(request), revision=revision_wanted(request), approval_rules=wishes, **values
        )
        return self._answer(Environment.objects.select_related("team", "registry").get(pk=environment.pk))

    @extend_schema(responses={204: None}, parameters=[_IF_MATCH])
    def destroy(self, request: Request, pk: str) -> Response:
        """Remove an environment that was never used (environment.manage). The error names what still stands on it."""
        remove_environment(int(pk), actor=caller(request), revision=revision_wanted(request))
        return Response(status=204)

    def _answer(self, environment: Environment) -> Response:
        return with_etag(Response(self.get_serializer(environment).data), environment.revision)
