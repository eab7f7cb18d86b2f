"""Quarantines in `/api/v1/`: parse, call the service, return the result."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.serializing import StrictSerializer
from lifecycle.quarantine import services
from lifecycle.quarantine.access import quarantine_for
from lifecycle.quarantine.models import Quarantine, QuarantineExemption, Withdrawal
from lifecycle.quarantine.queries import covered_images, exemptions_of, quarantines_visible_to, withdrawals_of

_IMAGES_MAX = 500


class QuarantineSerializer(serializers.ModelSerializer[Quarantine]):
    """A quarantined digest. It counts while its state is active or release_requested."""

    digest = serializers.CharField(source="image.digest", read_only=True)
    team = serializers.CharField(source="team.slug", read_only=True, default=None, allow_null=True)
    created_by = serializers.CharField(source="created_by.username", read_only=True)
    release_requested_by = serializers.CharField(
        source="release_requested_by.username", read_only=True, default=None, allow_null=True
    )
    released_by = serializers.CharField(source="released_by.username", read_only=True, default=None, allow_null=True)

    class Meta:
        model = Quarantine
        fields = (
            "id", "digest", "state", "reason", "incident", "descendants", "withdraw", "team", "created_by",
            "created_at", "release_requested_by", "release_requested_at", "release_reason", "released_by",
            "released_at",
        )  # fmt: skip
        read_only_fields = fields


class QuarantineBody(StrictSerializer):
    digest = serializers.CharField(max_length=135)
    reason = serializers.CharField(max_length=2000, help_text="Everybody who is stopped reads it.")
    incident = serializers.CharField(
        max_length=300, required=False, default="", allow_blank=True, help_text="A ticket or a link"
    )
    descendants = serializers.BooleanField(default=True, help_text="Cover images built on it too, now and later")
    withdraw = serializers.BooleanField(
        default=False, help_text="Stop pulls too: take the image out of all repositories of the managed registry"
    )


class QuarantineReasonBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000)


class QuarantineReleaseBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


class ExemptionBody(StrictSerializer):
    digest = serializers.CharField(max_length=135, help_text="An image that the quarantine covers")
    reason = serializers.CharField(max_length=2000)


class ExemptionSerializer(serializers.ModelSerializer[QuarantineExemption]):
    digest = serializers.CharField(source="image.digest", read_only=True)
    created_by = serializers.CharField(source="created_by.username", read_only=True)

    class Meta:
        model = QuarantineExemption
        fields = ("digest", "reason", "created_by", "created_at")
        read_only_fields = fields


class ExemptionListSerializer(serializers.Serializer[Any]):
    results = ExemptionSerializer(many=True)


class CoveredImageSerializer(serializers.Serializer[Any]):
    digest = serializers.CharField()
    repositories = serializers.ListField(child=serializers.CharField(), help_text="Those that you can see")


class CoveredImagesSerializer(serializers.Serializer[Any]):
    results = CoveredImageSerializer(many=True, help_text=f"At most {_IMAGES_MAX}, the nearest first")


class WithdrawalSerializer(serializers.ModelSerializer[Withdrawal]):
    """What became of a withdrawn image in one repository."""

    repository = serializers.CharField(source="repository.name", read_only=True)
    digest = serializers.CharField(source="image.digest", read_only=True)
    tags = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Those it had when the quarantine began"
    )

    class Meta:
        model = Withdrawal
        fields = ("repository", "digest", "tags", "state", "problem", "removed_at", "restored_at")
        read_only_fields = fields


class WithdrawalListSerializer(serializers.Serializer[Any]):
    results = WithdrawalSerializer(many=True, help_text=f"In repositories that you can see. At most {_IMAGES_MAX}")


class QuarantineViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Quarantine]):
    """Quarantines of images you can see. They stop promotions and rebuilds; pulls only with `withdraw`."""

    queryset = Quarantine.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = QuarantineSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Quarantine]:
        rows = quarantines_visible_to(caller(self.request)).order_by("-pk")
        state = self.request.query_params.get("state") if self.action == "list" else None
        if state is None:
            return rows
        if state not in Quarantine.State.values:
            raise serializers.ValidationError({"state": [f"Choose one of {', '.join(Quarantine.State.values)}."]})
        return rows.filter(state=state)

    @extend_schema(parameters=[OpenApiParameter("state", str, enum=Quarantine.State.values)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the quarantines you can see, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one quarantine."""
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=QuarantineBody, responses={201: QuarantineSerializer})
    def create(self, request: Request) -> Response:
        """Quarantine a digest (image.quarantine). It counts in all teams at once. A job stops pulls with `withdraw`."""
        body = QuarantineBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        made = services.quarantine(values.pop("digest"), actor=caller(request), **values)
        return self._answer(made, status=201)

    def _answer(self, row: Quarantine, *, status: int = 200) -> Response:
        return Response(self.get_serializer(row).data, status=status)

    @extend_schema(request=QuarantineReasonBody, responses=QuarantineSerializer)
    @action(detail=True, methods=["post"], url_path="request-release")
    def request_release(self, request: Request, pk: str) -> Response:
        """Ask another person to lift a quarantine (image.quarantine). It still counts."""
        return self._answer(services.request_release(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(request=QuarantineReleaseBody, responses=QuarantineSerializer)
    @action(detail=True, methods=["post"])
    def release(self, request: Request, pk: str) -> Response:
        """Lift a quarantine as a second person (image.quarantine; not who asked for the release)."""
        body = QuarantineReleaseBody(data=request.data or {})
        body.is_valid(raise_exception=True)
        return self._answer(services.release(int(pk), actor=caller(request), **body.validated_data))

    @extend_schema(request=QuarantineReasonBody, responses=QuarantineSerializer)
    @action(detail=True, methods=["post"], url_path="refuse-release")
    def refuse_release(self, request: Request, pk: str) -> Response:
        """Keep a quarantine whose release was requested (image.quarantine). A reason is required."""
        return self._answer(services.refuse_release(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(request=QuarantineReasonBody, responses=QuarantineSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Let a live quarantine stop pulls too (image.quarantine). A reason is required."""
        return self._answer(services.withdraw(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(methods=["get"], responses=ExemptionListSerializer)
    @extend_schema(methods=["post"], request=ExemptionBody, responses={201: ExemptionSerializer})
    @action(detail=True, methods=["get", "post"])
    def exemptions(self, request: Request, pk: str) -> Response:
        """List the exempt images, or exempt one as a second person (image.quarantine on that image)."""
        user = caller(request)
        if request.method == "GET":
            rows = exemptions_of(quarantine_for(user, int(pk)), user)
            return Response(ExemptionListSerializer({"results": rows}).data)
        body = ExemptionBody(data=request.data)
        body.is_valid(raise_exception=True)
        made = services.exempt(int(pk), body.validated_data["digest"], actor=user, reason=body.validated_data["reason"])
        return Response(ExemptionSerializer(made).data, status=201)

    @extend_schema(responses=CoveredImagesSerializer)
    @action(detail=True, methods=["get"])
    def images(self, request: Request, pk: str) -> Response:
        """List the covered images that you can see, the nearest to the quarantined one first."""
        user = caller(request)
        rows = covered_images(quarantine_for(user, int(pk)), user, limit=_IMAGES_MAX)
        return Response({"results": [{"digest": image.digest, "repositories": names} for image, names in rows]})

    @extend_schema(responses=WithdrawalListSerializer)
    @action(detail=True, methods=["get"])
    def withdrawals(self, request: Request, pk: str) -> Response:
        """List the repositories that you can see from which the image was withdrawn."""
        user = caller(request)
        rows = withdrawals_of(quarantine_for(user, int(pk)), user)[:_IMAGES_MAX]
        return Response(WithdrawalListSerializer({"results": rows}).data)


def _reason(request: Request) -> str:
    body = QuarantineReasonBody(data=request.data or {})
    body.is_valid(raise_exception=True)
    reason: str = body.validated_data["reason"]
    return reason
