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
from lifecycle.promotion.breakglass import break_glass, settle
from lifecycle.promotion.models import Comment, PromotionRequest, ReviewDebt, Vote
from lifecycle.promotion.queries import detail_of, promotions_visible_to, with_joins
from lifecycle.promotion.rollback import request_rollback
from lifecycle.promotion.threads import comment, resolve
from lifecycle.promotion.verification import confirm

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
    mode = serializers.CharField(
        default="enforce", help_text="warn: a rule of a policy that is shown and does not stop the promotion"
    )


class VoteSerializer(serializers.ModelSerializer[Vote]):
    voter = serializers.CharField(source="voter.username", read_only=True)
    evaluation = serializers.CharField(source="evaluation.digest", read_only=True, default=None, allow_null=True)
    overruled_by = serializers.CharField(source="overruled_by.username", read_only=True, default=None, allow_null=True)
    signed = serializers.DictField(
        child=serializers.CharField(), read_only=True, allow_null=True,
        help_text="The assertion of the voter's passkey over the approval, to check it offline; null: not signed",
    )  # fmt: skip

    class Meta:
        model = Vote
        fields = (
            "voter", "value", "comment", "digest", "evaluation", "via", "at", "lapsed_at", "lapse_reason",
            "overruled_at", "overruled_by", "overrule_reason", "signed",
        )  # fmt: skip
        read_only_fields = fields


class CommentSerializer(serializers.ModelSerializer[Comment]):
    author = serializers.CharField(source="author.username", read_only=True)

    class Meta:
        model = Comment
        fields: tuple[str, ...] = ("id", "author", "text", "at")
        read_only_fields = fields


class ThreadSerializer(CommentSerializer):
    """A comment with its answers."""

    resolved_by = serializers.CharField(source="resolved_by.username", read_only=True, default=None, allow_null=True)
    answers = CommentSerializer(many=True, source="said", read_only=True)

    class Meta(CommentSerializer.Meta):
        fields = ("id", "author", "text", "at", "is_blocking", "resolved_at", "resolved_by", "answers")
        read_only_fields = fields


class ReviewDebtSerializer(serializers.ModelSerializer[ReviewDebt]):
    """The review that a use of break-glass needs."""

    bypassed = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Titles of the requirements that were not met"
    )
    settled_by = serializers.CharField(source="settled_by.username", read_only=True, default=None, allow_null=True)

    class Meta:
        model = ReviewDebt
        fields = ("incident", "bypassed", "due_at", "settled_at", "settled_by", "outcome", "comment")
        read_only_fields = fields


class PromotionDetailSerializer(PromotionSerializer):
    """One promotion request with its requirements and votes, as on its page."""

    requirements = RequirementSerializer(many=True, source="judged_requirements", read_only=True)
    waiting = serializers.CharField(read_only=True, help_text="What a ready request waits for; empty if nothing")
    opens_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="When the closed window opens")
    why_not_automatic = serializers.CharField(
        source="not_automatic", read_only=True, help_text="Why a ready request does not run without a user; or empty"
    )
    release_set = serializers.IntegerField(
        source="release_set_id", read_only=True, allow_null=True, help_text="The set that it is part of; null: none"
    )
    superseded_by = serializers.IntegerField(
        source="superseded_by_id", read_only=True, allow_null=True, help_text="The newer request that replaces it"
    )
    votes = VoteSerializer(many=True, source="cast_votes", read_only=True)
    threads = ThreadSerializer(many=True, read_only=True)
    review = ReviewDebtSerializer(
        source="debt", read_only=True, default=None, allow_null=True, help_text="Of break-glass; else null"
    )

    class Meta(PromotionSerializer.Meta):
        fields = (
            *_FIELDS, "waiting", "opens_at", "why_not_automatic", "release_set", "superseded_by", "supersede_at",
            "requirements", "votes", "review", "verify_by", "threads",
        )  # fmt: skip
        read_only_fields = fields


class PromotionBody(StrictSerializer):
    digest = serializers.CharField(max_length=135)
    repository = serializers.CharField(max_length=255)
    environment = serializers.CharField(max_length=60)
    reason = serializers.CharField(max_length=2000)
    tag = serializers.CharField(max_length=128, required=False, default="")


class DecisionBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


class RollbackBody(StrictSerializer):
    repository = serializers.CharField(max_length=255)
    environment = serializers.CharField(max_length=60)
    digest = serializers.CharField(
        max_length=135, required=False, default="", help_text="An image that was there before; empty: the one before"
    )
    reason = serializers.CharField(max_length=2000)


class CommentBody(StrictSerializer):
    text = serializers.CharField(max_length=4000)
    reply_to = serializers.IntegerField(
        min_value=1, required=False, default=None, allow_null=True, help_text="Number of the thread to answer"
    )
    is_blocking = serializers.BooleanField(
        required=False, default=False, help_text="Whether the request waits until the thread is resolved"
    )


class VerifyBody(StrictSerializer):
    passed = serializers.BooleanField(help_text="Whether the promoted image works")
    comment = serializers.CharField(max_length=2000)


class ResolveBody(StrictSerializer):
    thread = serializers.IntegerField(min_value=1, help_text="Number of the thread")


class BreakGlassBody(StrictSerializer):
    repository = serializers.CharField(max_length=255)
    digest = serializers.CharField(max_length=135)
    environment = serializers.CharField(max_length=60)
    reason = serializers.CharField(max_length=2000)
    incident = serializers.CharField(max_length=200)
    password = serializers.CharField(max_length=256, trim_whitespace=False, help_text="Your own password, again")
    tag = serializers.CharField(max_length=128, required=False, default="")


class ReviewBody(StrictSerializer):
    outcome = serializers.ChoiceField(choices=ReviewDebt.Outcome.choices)
    comment = serializers.CharField(max_length=2000)


class OverruleBody(StrictSerializer):
    voter = serializers.CharField(max_length=150, help_text="User name of the person who objected")
    reason = serializers.CharField(max_length=2000)


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

    @extend_schema(request=RollbackBody, responses={201: PromotionDetailSerializer})
    @action(detail=False, methods=["post"])
    def rollback(self, request: Request) -> Response:
        """Request a rollback to an image that was there before (promotion.execute or promotion.request).

        It needs at most one approval, skips soak and the order of environments, and runs before other requests.
        """
        body = RollbackBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        repository = repository_named(caller(request), values["repository"])
        environment = environment_for(caller(request), team=repository.team.slug, slug=values["environment"])
        promotion = request_rollback(
            repository, environment, actor=caller(request), reason=values["reason"], digest=values["digest"]
        )
        return self._answer(promotion, status=201)

    @extend_schema(request=BreakGlassBody, responses={202: PromotionDetailSerializer})
    @action(detail=False, methods=["post"], url_path="break-glass", url_name="break-glass")
    def break_glass(self, request: Request) -> Response:
        """Promote an image now, past what is not met (promotion.breakglass). Another user must review it in 24 hours.

        It asks for your password. A quarantine and missing platforms cannot be bypassed.
        """
        body = BreakGlassBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        repository = repository_named(caller(request), values.pop("repository"))
        slug = values.pop("environment")
        environment = environment_for(caller(request), team=repository.team.slug, slug=slug)
        digest = values.pop("digest")
        promotion = break_glass(repository, digest, environment, actor=caller(request), **values)
        return self._answer(promotion, status=202)

    @extend_schema(request=CommentBody, responses={201: PromotionDetailSerializer})
    @action(detail=True, methods=["post"])
    def comment(self, request: Request, pk: str) -> Response:
        """Comment on the request, or answer in a thread. A thread can stop the request until it is resolved."""
        body = CommentBody(data=request.data)
        body.is_valid(raise_exception=True)
        made = comment(int(pk), actor=caller(request), **body.validated_data)
        return self._answer(made.request, status=201)

    @extend_schema(request=ResolveBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"], url_path="resolve-thread", url_name="resolve-thread")
    def resolve_thread(self, request: Request, pk: str) -> Response:
        """Resolve a thread, as its author or as an approver of the request."""
        body = ResolveBody(data=request.data)
        body.is_valid(raise_exception=True)
        return self._answer(resolve(int(pk), body.validated_data["thread"], actor=caller(request)).request)

    @extend_schema(request=VerifyBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"])
    def verify(self, request: Request, pk: str) -> Response:
        """Say whether a promoted image works (promotion.execute), where users verify promotions."""
        body = VerifyBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        promotion = confirm(int(pk), actor=caller(request), is_good=values["passed"], comment=values["comment"])
        return self._answer(promotion)

    @extend_schema(request=ReviewBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"])
    def review(self, request: Request, pk: str) -> Response:
        """Review a use of break-glass of another user (promotion.approve)."""
        body = ReviewBody(data=request.data)
        body.is_valid(raise_exception=True)
        return self._answer(settle(int(pk), actor=caller(request), **body.validated_data))

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

    @extend_schema(request=DecisionBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"], url_path="object", url_name="object")
    def object_to(self, request: Request, pk: str) -> Response:
        """Object to the request (promotion.approve). It waits until you withdraw it. A reason is required."""
        reason = self._decision(request)
        return self._answer(services.object_to(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API))

    @extend_schema(request=DecisionBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"], url_path="withdraw-vote", url_name="withdraw-vote")
    def withdraw_vote(self, request: Request, pk: str) -> Response:
        """Take back your own approval or objection."""
        reason = self._decision(request)
        return self._answer(services.withdraw_vote(int(pk), actor=caller(request), reason=reason, via=Vote.Via.API))

    @extend_schema(request=OverruleBody, responses=PromotionDetailSerializer)
    @action(detail=True, methods=["post"])
    def overrule(self, request: Request, pk: str) -> Response:
        """Overrule the objection of a person, with a reason (environment.manage; not your own request)."""
        body = OverruleBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        return self._answer(services.overrule(int(pk), values["voter"], actor=caller(request), reason=values["reason"]))

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
