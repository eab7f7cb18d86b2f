"""Promotions in `/api/v1/`: parse the request, call the service, return the result."""

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
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import environment_for, repository_named
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest, Vote
from lifecycle.promotion.queries import detail_of, promotions_visible_to, with_joins

_FILTERS: Final = {"state": "state", "repository": "repository__name", "environment": "environment__slug"}


_FIELDS: Final = (
    "id", "state", "kind", "team", "repository", "digest", "tag", "environment", "requested_by", "reason", "failure",
    "approve_by", "execute_by", "created_at", "decided_at", "finished_at",
)  # fmt: skip


class PromotionSerializer(serializers.ModelSerializer[PromotionRequest]):
    digest = serializers.CharField(source="image.digest", read_only=True)
    repository = serializers.CharField(source="repository.name", read_only=True)
    team = serializers.CharField(source="repository.team.slug", read_only=True)
    environment = serializers.CharField(source="environment.slug", read_only=True)
    requested_by = serializers.CharField(source="requested_by.username", read_only=True)

    class Meta:
        model = PromotionRequest
        fields: tuple[str, ...] = _FIELDS
        read_only_fields: tuple[str, ...] = _FIELDS


class RequirementSerializer(serializers.Serializer[Any]):
    """One requirement of a promotion and its status."""

    name = serializers.CharField()
    title = serializers.CharField()
    status = serializers.CharField()
    summary = serializers.CharField()
    who = serializers.ListField(child=serializers.CharField())
    counts = serializers.DictField(
        child=serializers.IntegerField(),
        default=dict,
        help_text="The numbers of the summary, by name, as of `approvals`",
    )


class VoteSerializer(serializers.ModelSerializer[Vote]):
    voter = serializers.CharField(source="voter.username", read_only=True)
    evaluation = serializers.CharField(source="evaluation.digest", read_only=True, default=None, allow_null=True)

    class Meta:
        model = Vote
        fields = ("voter", "value", "comment", "digest", "evaluation", "via", "at", "lapsed_at", "lapse_reason")
        read_only_fields = fields


class PromotionDetailSerializer(PromotionSerializer):
    """One promotion request with its requirements and votes, as on its page."""

    requirements = RequirementSerializer(many=True, source="judged_requirements", read_only=True)
    votes = VoteSerializer(many=True, source="cast_votes", read_only=True)

    class Meta(PromotionSerializer.Meta):
        fields = (*_FIELDS, "requirements", "votes")
        read_only_fields = fields


class PromotionBody(StrictSerializer):
    digest = serializers.CharField(max_length=135)
    repository = serializers.CharField(max_length=255)
    environment = serializers.CharField(max_length=60)
    reason = serializers.CharField(max_length=2000)
    tag = serializers.CharField(max_length=128, required=False, default="")


class DecisionBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


class PromotionViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[PromotionRequest]):
    """Requests to promote an image (by digest) to an environment."""

    queryset = PromotionRequest.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = PromotionSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[PromotionRequest]:
        rows = promotions_visible_to(caller(self.request))
        if self.action != "list":
            return rows
        for name, column in _FILTERS.items():
            if value := self.request.query_params.get(name):
                if name == "state" and value not in PromotionRequest.State.values:
                    raise serializers.ValidationError(
                        {name: [f"Choose one of {', '.join(PromotionRequest.State.values)}."]}
                    )
                rows = rows.filter(**{column: value})
        return rows.order_by("-pk")

    def get_serializer_class(self) -> type[PromotionSerializer]:
        return PromotionSerializer if self.action == "list" else PromotionDetailSerializer

    @extend_schema(
        parameters=[
            OpenApiParameter("state", str, enum=PromotionRequest.State.values),
            OpenApiParameter("repository", str, description="Name of the source repository."),
            OpenApiParameter("environment", str),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the requests you can see, newest first."""
        return super().list(request, *args, **kwargs)

    @extend_schema(request=PromotionBody, responses={201: PromotionDetailSerializer})
    def create(self, request: Request) -> Response:
        """Request a promotion (promotion.request)."""
        body = PromotionBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        repository = repository_named(caller(request), values["repository"])
        environment = environment_for(caller(request), team=repository.team.slug, slug=values["environment"])
        promotion = services.request_promotion(
            repository,
            values["digest"],
            environment,
            actor=caller(request),
            reason=values["reason"],
            tag=values["tag"],
        )
        return self._answer(promotion, status=201)

    def _decision(self, request: Request) -> str:
        body = DecisionBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        reason: str = body.validated_data["reason"]
        return reason

    def _answer(self, promotion: PromotionRequest, *, status: int = 200) -> Response:
        # Not only visible rows: a right that ends now must not turn a change that was made into an error.
        row = with_joins(PromotionRequest.objects.all()).get(pk=promotion.pk)
        return Response(self.get_serializer(detail_of(row)).data, status=status)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one request with its requirements and votes."""
        return Response(self.get_serializer(detail_of(self.get_object())).data)

    @extend_schema(request=DecisionBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Approve the request (promotion.approve; not your own request). It is ready when all requirements are met."""
        reason = self._decision(request)
        return self._answer(services.approve(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API))

    @extend_schema(request=DecisionBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Reject the request permanently (promotion.approve). A reason is required."""
        reason = self._decision(request)
        return self._answer(services.reject(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API))

    @extend_schema(request=None, responses={202: PromotionDetailSerializer})
    @action(detail=True, methods=["post"])
    def execute(self, request: Request, pk: str) -> Response:
        """Run a ready promotion: copy the image to the environment (promotion.execute)."""
        return self._answer(services.execute(int(pk), actor=caller(request)), status=202)

    @extend_schema(request=DecisionBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Withdraw your own request."""
        return self._answer(services.withdraw(int(pk), actor=caller(request), reason=self._decision(request)))
