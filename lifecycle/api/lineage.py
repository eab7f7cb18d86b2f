"""The lineage of an image in `/api/v1/`: its base images and its derived images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.authority.access import image_for
from lifecycle.authority.queries import repositories_open_to
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.quarantine.queries import covers_of
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.registry.platforms import platform_ids
from lifecycle.registry.queries import images_held_in


class EdgeSerializer(serializers.Serializer[Any]):
    """A direct base or derived image. `repositories` contains the repositories with this image that you can see."""

    digest = serializers.CharField(help_text="Digest of the base or derived image")
    of = serializers.CharField(help_text="Digest of the platform manifest of the requested image")
    repositories = serializers.ListField(child=serializers.CharField())
    is_quarantined = serializers.BooleanField(help_text="A live quarantine covers the image")
    evidence = serializers.ListField(child=serializers.CharField())
    confidence = serializers.ChoiceField(choices=Derivation.Confidence.choices)


class AboveSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField(help_text="Number of images at any distance")
    immediate = EdgeSerializer(many=True)


class BelowSerializer(AboveSerializer):
    next = serializers.URLField(allow_null=True, help_text="Next page of immediate descendants")


class LineageSerializer(serializers.Serializer[Any]):
    digest = serializers.CharField()
    ancestors = AboveSerializer()
    descendants = BelowSerializer()


class LineageView(generics.GenericAPIView[Derivation]):
    """Base images and derived images of an image. For an index, all its platforms are included."""

    serializer_class = LineageSerializer

    @extend_schema(
        responses=LineageSerializer,
        parameters=[
            OpenApiParameter("limit", int, description="Immediate descendants per page"),
            OpenApiParameter("cursor", str),
        ],
    )
    def get(self, request: Request, digest: str) -> Response:
        """Return the direct base and derived images with their evidence, and the number at any distance."""
        actor = caller(request)
        image = image_for(actor, digest)
        visible_ids, platforms = images_held_in(repositories_open_to(actor)), platform_ids(image)
        bases = Derivation.objects.filter(derived__in=platforms, base__in=visible_ids).order_by("pk")
        derived = Derivation.objects.filter(base__in=platforms, derived__in=visible_ids).order_by("pk")
        above = list(bases.select_related("base", "derived"))
        below = self.paginate_queryset(derived.select_related("base", "derived")) or []
        others = [edge.base_id for edge in above] + [edge.derived_id for edge in below]
        names, covered = self._names(others), covers_of(others)
        up, down = Ancestry.objects.filter(descendant__in=platforms), Ancestry.objects.filter(ancestor__in=platforms)
        lineage = {
            "digest": image.digest,
            "ancestors": {
                "count": up.filter(ancestor__in=visible_ids).values("ancestor").distinct().count(),
                "immediate": [_edge(edge, edge.base, edge.derived, names, covered) for edge in above],
            },
            "descendants": {
                "count": down.filter(descendant__in=visible_ids).values("descendant").distinct().count(),
                "immediate": [_edge(edge, edge.derived, edge.base, names, covered) for edge in below],
                "next": self.get_paginated_response([]).data["next"],
            },
        }
        return Response(LineageSerializer(lineage).data)

    def _names(self, image_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return {image id: names of the repositories that contain it and that the caller can see}."""
        visible = repositories_open_to(caller(self.request))
        rows: QuerySet[RepositoryImage, tuple[int, str]] = (
            RepositoryImage.objects.filter(image__in=image_ids, removed_at=None, repository__in=visible)
            .order_by("repository__name")
            .values_list("image_id", "repository__name")
        )
        names: dict[int, list[str]] = defaultdict(list)
        for image_id, name in rows:
            names[image_id].append(name)
        return names


def _edge(
    edge: Derivation, other: Image, this: Image, names: dict[int, list[str]], covered: Container[int]
) -> dict[str, Any]:
    return {
        "digest": other.digest,
        "of": this.digest,
        "repositories": names.get(other.pk, []),
        "is_quarantined": other.pk in covered,
        "evidence": edge.evidence,
        "confidence": edge.confidence,
    }
