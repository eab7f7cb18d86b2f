"""Release sets in `/api/v1/`: parse the request, call the service, return the result."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.promotion import DecisionBody, OverruleBody, RequirementSerializer, VoteSerializer
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import environment_for, repository_named
from lifecycle.core.errors import Malformed
from lifecycle.promotion import release_sets
from lifecycle.promotion.models import PromotionRequest, ReleaseSet, Vote
from lifecycle.promotion.release_queries import set_detail, sets_visible_to
from lifecycle.promotion.release_sets import MEMBERS_MAX, Wanted

_FILTERS: Final = {"state": "state", "environment": "environment__slug"}
_FIELDS: Final = (
    "id", "state", "team", "environment", "size", "requested_by", "reason", "failure", "approve_by", "execute_by",
    "created_at", "decided_at", "finished_at",
)  # fmt: skip


class ReleaseSetSerializer(serializers.ModelSerializer[ReleaseSet]):
    team = serializers.CharField(source="environment.team.slug", read_only=True)
    environment = serializers.CharField(source="environment.slug", read_only=True)
    requested_by = serializers.CharField(source="requested_by.username", read_only=True)

    class Meta:
        model = ReleaseSet
        fields: tuple[str, ...] = _FIELDS
        read_only_fields: tuple[str, ...] = _FIELDS


class ReleaseSetMemberSerializer(serializers.ModelSerializer[PromotionRequest]):
    """A member of a set: a promotion request that is decided and run with the others."""

    promotion = serializers.IntegerField(source="pk", read_only=True, help_text="Number of the promotion request")
    repository = serializers.CharField(source="repository.name", read_only=True)
    digest = serializers.CharField(source="image.digest", read_only=True)
    requirements = RequirementSerializer(many=True, source="judged_requirements", read_only=True)

    class Meta:
        model = PromotionRequest
        fields = ("promotion", "repository", "digest", "tag", "state", "failure", "requirements")
        read_only_fields = fields


class ReleaseSetDetailSerializer(ReleaseSetSerializer):
    """One release set with its members, their requirements, and one vote for each person."""

    members = ReleaseSetMemberSerializer(many=True, source="rows", read_only=True)
    votes = VoteSerializer(many=True, source="cast_votes", read_only=True)

    class Meta(ReleaseSetSerializer.Meta):
        fields = (*_FIELDS, "members", "votes")
        read_only_fields = fields


class MemberBody(StrictSerializer):
    repository = serializers.CharField(max_length=255)
    digest = serializers.CharField(
        max_length=135, required=False, default="", help_text="Empty: the digest to which the tag points now"
    )
    tag = serializers.CharField(
        max_length=128, required=False, default="", help_text="Tag in the environment, in addition to `current`"
    )


class ReleaseSetBody(StrictSerializer):
    environment = serializers.CharField(max_length=60)
    reason = serializers.CharField(max_length=2000)
    members = serializers.ListField(child=MemberBody(), min_length=2, max_length=MEMBERS_MAX)


class ReleaseSetViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[ReleaseSet]):
    """Images of several repositories, requested, approved and run as one: all of them, or none."""

    queryset = ReleaseSet.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = ReleaseSetSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[ReleaseSet]:
        rows = sets_visible_to(caller(self.request))
        if self.action != "list":
            return rows
        for name, column in _FILTERS.items():
            if value := self.request.query_params.get(name):
                if name == "state" and value not in ReleaseSet.State.values:
                    raise serializers.ValidationError({name: [f"Choose one of {', '.join(ReleaseSet.State.values)}."]})
                rows = rows.filter(**{column: value})
        return rows.order_by("-pk")

    def get_serializer_class(self) -> type[ReleaseSetSerializer]:
        return ReleaseSetSerializer if self.action == "list" else ReleaseSetDetailSerializer

    @extend_schema(
        parameters=[
            OpenApiParameter("state", str, enum=ReleaseSet.State.values),
            OpenApiParameter("environment", str),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the release sets you can see, newest first."""
        return super().list(request, *args, **kwargs)

    @extend_schema(request=ReleaseSetBody, responses={201: ReleaseSetDetailSerializer})
    def create(self, request: Request) -> Response:
        """Request several images, charts or other artifacts for one environment, as one (promotion.request)."""
        body = ReleaseSetBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        wanted = []
        for row in values["members"]:
            if not row["digest"] and not row["tag"]:
                raise Malformed(f"Name a digest or a tag of {row['repository']}.")
            wanted.append(Wanted(repository_named(caller(request), row["repository"]), row["digest"], row["tag"]))
        environment = environment_for(caller(request), team=wanted[0].repository.team.slug, slug=values["environment"])
        made = release_sets.request_set(wanted, environment, actor=caller(request), reason=values["reason"])
        return self._answer(made, status=201)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one release set with its members, their requirements, and the votes."""
        return Response(self.get_serializer(set_detail(self.get_object())).data)

    def _answer(self, release_set: ReleaseSet, *, status: int = 200) -> Response:
        # Not only visible rows: a right that ends now must not turn a change that was made into an error.
        row = ReleaseSet.objects.select_related("environment__team", "requested_by").get(pk=release_set.pk)
        return Response(self.get_serializer(set_detail(row)).data, status=status)

    def _decision(self, request: Request) -> str:
        body = DecisionBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        reason: str = body.validated_data["reason"]
        return reason

    @extend_schema(request=DecisionBody, responses=ReleaseSetDetailSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Approve the set (promotion.approve on each member; not your own request): one vote on each member."""
        reason = self._decision(request)
        return self._answer(release_sets.approve(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API))

    @extend_schema(request=DecisionBody, responses=ReleaseSetDetailSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Reject the set permanently (promotion.approve). A reason is required."""
        reason = self._decision(request)
        return self._answer(release_sets.reject(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API))

    @extend_schema(request=DecisionBody, responses=ReleaseSetDetailSerializer)
    @action(detail=True, methods=["post"], url_path="object", url_name="object")
    def object_to(self, request: Request, pk: str) -> Response:
        """Object to the set (promotion.approve). It waits until you withdraw it. A reason is required."""
        reason = self._decision(request)
        return self._answer(release_sets.object_to(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API))

    @extend_schema(request=DecisionBody, responses=ReleaseSetDetailSerializer)
    @action(detail=True, methods=["post"], url_path="withdraw-vote", url_name="withdraw-vote")
    def withdraw_vote(self, request: Request, pk: str) -> Response:
        """Take back your own approval or objection."""
        reason = self._decision(request)
        made = release_sets.withdraw_vote(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API)
        return self._answer(made)

    @extend_schema(request=OverruleBody, responses=ReleaseSetDetailSerializer)
    @action(detail=True, methods=["post"])
    def overrule(self, request: Request, pk: str) -> Response:
        """Overrule the objection of a person, with a reason (environment.manage; not your own request)."""
        body = OverruleBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        made = release_sets.overrule(int(pk), values["voter"], actor=caller(request), reason=values["reason"])
        return self._answer(made)

    @extend_schema(request=None, responses={202: ReleaseSetDetailSerializer})
    @action(detail=True, methods=["post"])
    def execute(self, request: Request, pk: str) -> Response:
        """Run a ready set (promotion.execute on each member): every target is verified, or all are put back."""
        return self._answer(release_sets.execute(int(pk), actor=caller(request)), status=202)

    @extend_schema(request=DecisionBody, responses=ReleaseSetDetailSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Withdraw your own set."""
        return self._answer(release_sets.withdraw(int(pk), actor=caller(request), reason=self._decision(request)))
