"""External checks in `/api/v1/`: parse, call the service, return the result."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.etags import IF_MATCH
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.preconditions import revision_required, with_etag
from lifecycle.api.secrets import SecretResponse
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import team_for
from lifecycle.core.reasons import refuse_if
from lifecycle.policies import checks
from lifecycle.policies.access import check_for, why_not_manage
from lifecycle.policies.models import ExternalCheck
from lifecycle.policies.queries import checks_visible_to
from lifecycle.policies.types import Scope


class ExternalCheckSerializer(serializers.ModelSerializer[ExternalCheck]):
    """A service that says whether an image is good. Its address and its secret are not shown.

    Rules name it `team:<team>:<name>`, or `site:<name>` without a team.
    """

    team = serializers.CharField(source="team.slug", default=None, allow_null=True, read_only=True)
    host = serializers.CharField(read_only=True, help_text="Host of the address")

    class Meta:
        model = ExternalCheck
        fields = ("id", "team", "name", "host", "revision", "created_at")
        read_only_fields = fields


class WithSecretSerializer(ExternalCheckSerializer):
    """A check, with its new secret, which is shown once."""

    secret = serializers.CharField(
        read_only=True,
        allow_null=True,
        help_text="Signs calls and replies. Only this response contains it; null: it stays the same",
    )

    class Meta(ExternalCheckSerializer.Meta):
        fields = (*ExternalCheckSerializer.Meta.fields, "secret")  # type: ignore[assignment]  # one field more
        read_only_fields = fields  # type: ignore[assignment]  # likewise


class ExternalCheckBody(StrictSerializer):
    team = serializers.CharField(
        max_length=60, required=False, default="", allow_blank=True, help_text="Slug; empty: of the site (admins)"
    )
    name = serializers.CharField(max_length=60, help_text="Lower-case letters, digits, - and _")
    address = serializers.CharField(max_length=1000, help_text="https address that is asked")


class ExternalCheckChangeBody(StrictSerializer):
    address = serializers.CharField(
        max_length=1000, required=False, default="", allow_blank=True, help_text="Empty: it stays the same"
    )
    renew_secret = serializers.BooleanField(required=False, default=False, help_text="Make a new secret")


class ExternalCheckViewSet(FlatListMixin, viewsets.GenericViewSet[ExternalCheck]):
    """The external checks of the site, and of the teams you can see."""

    queryset = ExternalCheck.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = ExternalCheckSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[ExternalCheck]:
        return checks_visible_to(caller(self.request)).order_by("pk")

    @extend_schema(responses=ExternalCheckSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one external check. The `ETag` is its revision."""
        row = check_for(caller(request), int(pk))
        return with_etag(Response(ExternalCheckSerializer(row).data), row.revision)

    @extend_schema(request=ExternalCheckBody, responses={201: WithSecretSerializer})
    def create(self, request: Request) -> Response:
        """Set up an external check (policy.manage; admins for the site). The secret is shown once."""
        body = ExternalCheckBody(data=request.data)
        body.is_valid(raise_exception=True)
        user, slug = caller(request), body.validated_data["team"]
        row, secret = checks.create_check(
            team_for(user, slug) if slug else None,
            body.validated_data["name"],
            body.validated_data["address"],
            actor=user,
        )
        return self._with_secret(row, secret, 201)

    @extend_schema(request=ExternalCheckChangeBody, responses=WithSecretSerializer, parameters=[IF_MATCH])
    def update(self, request: Request, pk: str) -> Response:
        """Change the address, or make a new secret. Answers that the check gave before do not count any more."""
        body = ExternalCheckChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        user, revision = caller(request), self._revision(request, int(pk))
        row, secret = checks.change_check(int(pk), actor=user, revision=revision, **body.validated_data)
        return self._with_secret(row, secret, 200)

    @extend_schema(responses={204: None}, parameters=[IF_MATCH])
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete an external check with its answers. Rules that name it do not pass any more."""
        checks.delete_check(int(pk), actor=caller(request), revision=self._revision(request, int(pk)))
        return Response(status=204)

    def _revision(self, request: Request, check_id: int) -> int | None:
        """Return the revision in If-Match. Who may not change the check learns that first."""
        row = check_for(caller(request), check_id)
        refuse_if(why_not_manage(caller(request), Scope(row.team)))
        return revision_required(request)

    def _with_secret(self, row: ExternalCheck, secret: str, status: int) -> Response:
        shown = {**ExternalCheckSerializer(row).data, "secret": secret or None}
        return with_etag(SecretResponse(shown, secrets=("secret",), status=status), row.revision)
