"""Trusted sources, and the signatures of images, in `/api/v1/`."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import Team
from accounts.verbs import Verb
from lifecycle.api.caller import caller
from lifecycle.api.preconditions import revision_wanted, with_etag
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import image_for
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.policy.types import BaseTrust
from lifecycle.registry.models import Image
from lifecycle.registry.queries import images_held_in
from lifecycle.trust import services
from lifecycle.trust.access import source_for
from lifecycle.trust.constants import PLACES_MAX, SIGNERS_MAX
from lifecycle.trust.models import Signature, TrustCheck, TrustedSigner, TrustedSource
from lifecycle.trust.queries import base_trust, problem_seen, signatures_of, sources_visible_to
from lifecycle.trust.types import SourceSpec, parse_source

_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the source that you read; optional."
)


class SignerSerializer(serializers.ModelSerializer[TrustedSigner]):
    class Meta:
        model = TrustedSigner
        fields = ("kind", "name", "fingerprint", "pem", "issuer", "subject", "is_pattern", "trusted_root")
        read_only_fields = fields


class SourceSerializer(serializers.ModelSerializer[TrustedSource]):
    teams: serializers.SlugRelatedField[Team] = serializers.SlugRelatedField(
        slug_field="slug", many=True, read_only=True
    )
    signers = SignerSerializer(many=True, read_only=True)
    created_by = serializers.CharField(source="created_by.username", read_only=True)

    class Meta:
        model = TrustedSource
        fields = (
            "id", "name", "description", "places", "is_site_wide", "teams", "needs_signature", "signers", "valid_from",
            "revision", "created_by", "created_at", "retired_at",
        )  # fmt: skip
        read_only_fields = fields


class SignerBody(StrictSerializer):
    kind = serializers.ChoiceField(choices=TrustedSigner.Kind.values)
    name = serializers.CharField(max_length=100, required=False, allow_blank=True)
    pem = serializers.CharField(max_length=64 * 1024, required=False, allow_blank=True)
    issuer = serializers.CharField(max_length=500, required=False, allow_blank=True)
    subject = serializers.CharField(max_length=500, required=False, allow_blank=True)
    is_pattern = serializers.BooleanField(required=False)
    trusted_root = serializers.CharField(max_length=1024 * 1024, required=False, allow_blank=True)


class SourceBody(StrictSerializer):
    name = serializers.CharField(max_length=60)
    description = serializers.CharField(max_length=300, required=False, allow_blank=True)
    places = serializers.ListField(child=serializers.CharField(max_length=300), max_length=PLACES_MAX)
    is_site_wide = serializers.BooleanField(required=False)
    teams = serializers.ListField(child=serializers.CharField(max_length=60), required=False)
    needs_signature = serializers.BooleanField(required=False)
    signers = SignerBody(many=True, required=False)
    valid_from = serializers.DateTimeField(required=False, allow_null=True)
    revision = serializers.IntegerField(
        required=False, min_value=1, help_text="Only for a change: refuse it if the source has another revision by now"
    )


def _spec(request: Request) -> tuple[SourceSpec, int | None]:
    """Return the source in the body and the revision that it replaces; raises ValidationError, Malformed."""
    body = SourceBody(data=request.data)
    body.is_valid(raise_exception=True)
    values = dict(body.validated_data)
    revision = values.pop("revision", None)
    if len(values.get("signers", ())) > SIGNERS_MAX:
        raise serializers.ValidationError({"signers": [f"Use at most {SIGNERS_MAX}."]})
    # Fields of another kind of signer may be sent empty, as a GET returns them.
    values["signers"] = [
        {name: value for name, value in signer.items() if value not in ("", False)}
        for signer in values.get("signers", ())
    ]
    return parse_source(values), revision


class SourcesView(generics.ListAPIView[TrustedSource]):
    """The trusted sources you can see: for all teams, and for your teams."""

    queryset = TrustedSource.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = SourceSerializer

    def get_queryset(self) -> QuerySet[TrustedSource]:
        return sources_visible_to(caller(self.request)).order_by("pk")

    @extend_schema(request=SourceBody, responses={201: SourceSerializer})
    def post(self, request: Request) -> Response:
        """Create a trusted source (admins; for teams also policy.manage in all of them)."""
        spec, _ = _spec(request)
        source = services.create_source(spec, actor=caller(request))
        return with_etag(Response(SourceSerializer(source).data, status=201), source.revision)


class SourceView(generics.GenericAPIView[TrustedSource]):
    """One trusted source."""

    queryset = TrustedSource.objects.none()  # only for the schema
    serializer_class = SourceSerializer

    @extend_schema(responses=SourceSerializer)
    def get(self, request: Request, source_id: int) -> Response:
        """Return the source with its signers. The `ETag` is its revision."""
        source = source_for(caller(request), source_id)
        return with_etag(Response(SourceSerializer(source).data), source.revision)

    @extend_schema(request=SourceBody, responses=SourceSerializer, parameters=[_IF_MATCH])
    def put(self, request: Request, source_id: int) -> Response:
        """Replace the source. A signer that is no longer named counts for nothing at once.

        `If-Match`, or `revision` in the body, refuses the change if somebody else was faster (412).
        """
        spec, revision = _spec(request)
        named = revision_wanted(request)
        source = services.change_source(
            source_id, spec, actor=caller(request), revision=revision if named is None else named
        )
        return with_etag(Response(SourceSerializer(source).data), source.revision)

    @extend_schema(request=None, responses={204: None}, parameters=[_IF_MATCH])
    def delete(self, request: Request, source_id: int) -> Response:
        """Retire the source. It stays in the list, and trusts nothing."""
        services.retire_source(source_id, actor=caller(request), revision=revision_wanted(request))
        return Response(status=204)


class ImageSignatureSerializer(serializers.Serializer[Any]):
    """One signature or attestation, and whether it counts."""

    digest = serializers.CharField(source="object_digest", help_text="Digest of the content that holds it")
    of = serializers.CharField(source="image.digest", help_text="Digest that it signs: of the image, or of its index")
    repository = serializers.CharField(source="repository.name", help_text="Where it was found")
    format = serializers.ChoiceField(choices=Signature.Format.values)
    predicate_type = serializers.CharField(help_text="Kind of the attestation; empty for a signature")
    state = serializers.ChoiceField(
        choices=Signature.State.values,
        help_text="verified; unknown (the signer is not trusted); refused; unsigned (never counts)",
    )
    reason = serializers.CharField(help_text="Why it does not count; empty when it does")
    sources = serializers.SerializerMethodField(help_text="Trusted sources whose signers made it, retired ones not")
    key_fingerprint = serializers.CharField(help_text="SHA-256 of the public key; empty for a certificate")
    identity = serializers.CharField(help_text="Identity in the certificate; empty for a key")
    issuer = serializers.CharField(help_text="Issuer of the identity; empty for a key")
    signed_at = serializers.DateTimeField(allow_null=True, help_text="When, if a log or a time stamp proves it")
    checked_at = serializers.DateTimeField(help_text="When it was verified")

    def get_sources(self, row: Signature) -> list[str]:
        """Return the names of the sources that trust the signer now, and that the reader can see."""
        seen: set[int] = self.context["sources"]
        return sorted({each.source.name for each in row.signers.all() if each.source_id in seen})


class TrustedBaseSerializer(serializers.Serializer[Any]):
    digest = serializers.CharField()
    is_trusted = serializers.BooleanField(help_text="Whether a source for all teams covers it")
    trusted_by = serializers.CharField(source="source", help_text="The trusted source; empty without one")


class ImageTrustSerializer(serializers.Serializer[Any]):
    is_known = serializers.BooleanField(help_text="Whether the signatures were read without a problem")
    problem = serializers.CharField(help_text="Why not; empty otherwise")
    checked_at = serializers.DateTimeField(allow_null=True, help_text="When the signatures were last read")
    base_trust = serializers.ChoiceField(
        choices=[each.value for each in BaseTrust], help_text="By sources of all teams"
    )
    bases = TrustedBaseSerializer(many=True)
    signatures = ImageSignatureSerializer(many=True)


class ImageSignaturesView(APIView):
    """Signatures and attestations of an image and of the indexes that hold it."""

    @extend_schema(operation_id="image_signatures", responses=ImageTrustSerializer)
    def get(self, request: Request, digest: str) -> Response:
        """Return who signed the image, what was refused and why, and whether its bases are trusted."""
        return Response(_trust_of(request, image_for(caller(request), digest)))

    @extend_schema(operation_id="image_signatures_check", request=None, responses={202: ImageTrustSerializer})
    def post(self, request: Request, digest: str) -> Response:
        """Read and verify the signatures again (image.scan)."""
        image = image_for(caller(request), digest, Verb.IMAGE_SCAN)
        services.queue_check(image.pk, actor=caller(request))
        return Response(_trust_of(request, image), status=202)


def _trust_of(request: Request, image: Image) -> dict[str, Any]:
    actor = caller(request)
    visible = repositories_visible_to(actor)
    rows = list(signatures_of(image).filter(repository__in=visible))
    context = {
        "sources": set(sources_visible_to(actor).filter(retired_at=None).values_list("pk", flat=True)),
    }
    check = TrustCheck.objects.filter(image=image).first()
    facts = base_trust([image.pk])[image.pk]
    held = images_held_in(visible)
    shown = set(
        Image.objects.filter(digest__in=[base.digest for base in facts.bases], pk__in=held).values_list(
            "digest", flat=True
        )
    )
    bases = [base for base in facts.bases if base.digest in shown]  # a hidden base is not named
    is_read = check is not None and check.checked_at is not None
    problem = problem_seen(check, visible) if is_read else "The signatures were not read yet."
    return {
        "is_known": is_read and not problem,
        "problem": problem,
        "checked_at": check.checked_at if check is not None else None,
        "base_trust": facts.status.value,
        "bases": TrustedBaseSerializer(bases, many=True).data,
        "signatures": ImageSignatureSerializer(rows, many=True, context=context).data,
    }
