"""VEX in `/api/v1/vex/`: our decisions about findings, and the documents of others."""

from __future__ import annotations

from typing import Any, ClassVar

import orjson
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.flat import Computed, FlatListMixin
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import repository_named, team_for
from lifecycle.vex import documents, services
from lifecycle.vex.constants import JUSTIFICATIONS
from lifecycle.vex.models import VexDocument, VexStatement
from lifecycle.vex.queries import decisions_visible_to, documents_visible_to

_FIELDS = (
    "id", "state", "vulnerability", "status", "justification", "reason", "scope", "team", "repository", "digest",
    "package", "until", "author", "decided_by", "decision", "created_at", "decided_at", "ended_at",
)  # fmt: skip


class VexStatementSerializer(serializers.ModelSerializer[VexStatement]):
    """A decision about a vulnerability. `state` is `live` while it counts. An empty `package` means all."""

    vulnerability = serializers.CharField(read_only=True, help_text="The vulnerability it is about")
    status = serializers.ChoiceField(choices=VexStatement.Status.choices, read_only=True, help_text="What it says")
    justification = serializers.CharField(read_only=True, help_text="Why an image is not affected; else empty")
    package = serializers.CharField(read_only=True, help_text="Package URL, perhaps without a version; empty: all")
    scope = serializers.CharField(read_only=True, help_text="Which images: digest, repository, team or all")
    team = serializers.CharField(source="team.slug", read_only=True, default=None, allow_null=True)
    repository = serializers.CharField(source="repository.name", read_only=True, default=None, allow_null=True)
    author = serializers.CharField(source="author.username", read_only=True)
    decided_by = serializers.CharField(source="decided_by.username", read_only=True, default=None, allow_null=True)

    class Meta:
        model = VexStatement
        fields = _FIELDS
        read_only_fields = fields


class VexStatementBody(StrictSerializer):
    vulnerability = serializers.CharField(max_length=200, help_text="CVE id or any other name of it")
    status = serializers.ChoiceField(choices=VexStatement.Status.values)
    justification = serializers.ChoiceField(
        choices=["", *JUSTIFICATIONS], required=False, default="", help_text="Required for not_affected"
    )
    scope = serializers.ChoiceField(choices=VexStatement.Scope.values)
    repository = serializers.CharField(
        max_length=255, required=False, default="", allow_blank=True, help_text="For the scopes digest and repository"
    )
    team = serializers.CharField(
        max_length=60, required=False, default="", allow_blank=True, help_text="For the scope team"
    )
    digest = serializers.CharField(
        max_length=135, required=False, default="", allow_blank=True, help_text="For the scope digest"
    )
    package = serializers.CharField(
        max_length=4096, required=False, default="", allow_blank=True,
        help_text="Package URL; without a version: all versions; empty: all packages",
    )  # fmt: skip
    reason = serializers.CharField(max_length=2000)
    until = serializers.DateTimeField(
        required=False, default=None, allow_null=True, help_text="When it ends, if it does"
    )


class VexReasonBody(StrictSerializer):
    reason = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


def _reason(request: Request) -> str:
    body = VexReasonBody(data=request.data or {})
    body.is_valid(raise_exception=True)
    reason: str = body.validated_data["reason"]
    return reason


class VexStatementViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[VexStatement]):
    """Decisions about findings in the repositories and teams you can see, and those about all images."""

    queryset = VexStatement.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = VexStatementSerializer
    computed: ClassVar[Computed] = {"vulnerability": ("names", lambda names: names[0])}
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[VexStatement]:
        rows = decisions_visible_to(caller(self.request)).order_by("-pk")
        asked = self.request.query_params if self.action == "list" else {}
        state = asked.get("state")
        if state is not None and state not in VexStatement.State.values:
            raise serializers.ValidationError({"state": [f"Choose one of {', '.join(VexStatement.State.values)}."]})
        if state is not None:
            rows = rows.filter(state=state)
        if name := asked.get("vulnerability"):
            rows = rows.filter(names__contains=[name[:200]])
        return rows

    @extend_schema(
        parameters=[
            OpenApiParameter("state", str, enum=VexStatement.State.values),
            OpenApiParameter("vulnerability", str, description="Only decisions about this name"),
        ]
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the decisions you can see, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one decision."""
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=VexStatementBody, responses={201: VexStatementSerializer})
    def create(self, request: Request) -> Response:
        """Decide about a vulnerability (waiver.request). It replaces your earlier decision about the same.

        not_affected, false_positive and fixed close findings. They wait for a second person, unless VEX_SECOND_PERSON
        is off.
        """
        body = VexStatementBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        user, repository, team = caller(request), values.pop("repository"), values.pop("team")
        made = services.decide(
            values.pop("vulnerability"),
            values.pop("status"),
            actor=user,
            repository=repository_named(user, repository) if repository else None,
            team=team_for(user, team) if team else None,
            **values,
        )
        return self._answer(made, status=201)

    def _answer(self, row: VexStatement, *, status: int = 200) -> Response:
        return Response(self.get_serializer(row).data, status=status)

    @extend_schema(request=VexReasonBody, responses=VexStatementSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:
        """Approve a decision as a second person (waiver.approve; not your own)."""
        return self._answer(services.approve(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(request=VexReasonBody, responses=VexStatementSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: str) -> Response:
        """Reject a decision permanently (waiver.approve; not your own). A reason is required."""
        return self._answer(services.reject(int(pk), actor=caller(request), reason=_reason(request)))

    @extend_schema(request=VexReasonBody, responses=VexStatementSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """End a decision before its time: your own, or with waiver.approve."""
        return self._answer(services.withdraw(int(pk), actor=caller(request), reason=_reason(request)))


class VexDocumentSerializer(serializers.ModelSerializer[VexDocument]):
    """A VEX document. It counts only in the state `applied`; `why_advice` says why it does not."""

    team = serializers.CharField(
        source="team.slug", read_only=True, default=None, allow_null=True, help_text="Whose images; null: all images"
    )
    format = serializers.CharField(read_only=True, help_text="openvex, cyclonedx or csaf")
    name = serializers.CharField(read_only=True, help_text="Its own id")
    author = serializers.CharField(read_only=True, help_text="Its author, as it claims")
    version = serializers.CharField(read_only=True, help_text="As it states it")
    issued_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="As it states it")
    uploaded_by = serializers.CharField(
        source="uploaded_by.username", read_only=True, help_text="Who sent it; the system for an attestation"
    )
    accepted_by = serializers.CharField(
        source="accepted_by.username", read_only=True, default=None, allow_null=True, help_text="The second person"
    )
    statement_count = serializers.IntegerField(read_only=True, help_text="Number of statements that can be used")
    refused_count = serializers.IntegerField(read_only=True, help_text="Number of statements that cannot be used")
    refused = serializers.JSONField(read_only=True, help_text="The first of these: [position, reason]")
    why_advice = serializers.CharField(read_only=True, help_text="Why it does not count; empty if it does")

    class Meta:
        model = VexDocument
        fields = (
            "id", "state", "why_advice", "team", "format", "name", "author", "version", "issued_at", "digest",
            "statement_count", "refused_count", "refused", "uploaded_by", "accepted_by", "created_at", "decided_at",
        )  # fmt: skip
        read_only_fields = fields


class VexDocumentBody(StrictSerializer):
    team = serializers.CharField(
        max_length=60, required=False, default="", allow_blank=True,
        help_text="Team whose images it is about; empty: all images (admins)",
    )  # fmt: skip
    document = serializers.DictField(help_text="The document: OpenVEX, CycloneDX or CSAF, as JSON")


class VexDocumentViewSet(FlatListMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[VexDocument]):
    """VEX documents about the images of your teams, and about all images."""

    queryset = VexDocument.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = VexDocumentSerializer
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[VexDocument]:
        return documents_visible_to(caller(self.request)).order_by("-pk")

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the VEX documents you can see, newest first."""
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one VEX document, without its statements."""
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(request=VexDocumentBody, responses={201: VexDocumentSerializer})
    def create(self, request: Request) -> Response:
        """Send a VEX document (waiver.request). It is advice: it counts once a second person accepts it."""
        body = VexDocumentBody(data=request.data)
        body.is_valid(raise_exception=True)
        user, team = caller(request), body.validated_data["team"]
        # As it was sent: DictField copies only the top level.
        sent: Any = request.data
        content = orjson.dumps(sent["document"])
        made = documents.import_document(content, actor=user, team=team_for(user, team) if team else None)
        return Response(self.get_serializer(made).data, status=201)

    @extend_schema(request=VexReasonBody, responses=VexDocumentSerializer)
    @action(detail=True, methods=["post"])
    def accept(self, request: Request, pk: str) -> Response:
        """Let the statements of a document count, as a second person (waiver.approve; not what you sent)."""
        row = documents.accept(int(pk), actor=caller(request), reason=_reason(request))
        return Response(self.get_serializer(row).data)

    @extend_schema(request=VexReasonBody, responses=VexDocumentSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """End a document: its statements do not count any more. Your own, or with waiver.approve."""
        row = documents.withdraw_document(int(pk), actor=caller(request), reason=_reason(request))
        return Response(self.get_serializer(row).data)
