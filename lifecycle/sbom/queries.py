"""Queries for the packages of images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import F

from lifecycle.registry.models import Image
from lifecycle.sbom.models import InventoryPackage, PackageVersion


@dataclass(frozen=True, slots=True)
class ImagePackage:
    """A package version in an image, with the position of its layer (None when unknown)."""

    package: PackageVersion
    layer_position: int | None


def packages_of(image: Image) -> list[ImagePackage]:
    """Return all package versions of `image` with their layers, sorted by purl, then layer."""
    rows = (
        InventoryPackage.objects.filter(inventory__image_inventories__image=image)
        .select_related("package")
        .annotate(layer_position=F("inventory__image_inventories__layer_position"))
        .order_by("package__purl", "layer_position")
    )
    return [ImagePackage(row.package, row.layer_position) for row in rows]


def packages_as_json(image_ids: Collection[int]) -> list[dict[str, object]]:
    """Return the package versions of these platform manifests, sorted by purl, each once, for the API. One query.

    `matched_as` is what advisories are compared with: ecosystem, release, name and version. It is null if the package
    cannot be matched (`problem`), or is judged as the distribution's package that owns its files (`judged_as`).
    """
    contained = PackageVersion.objects.filter(inventory_packages__inventory__image_inventories__image__in=image_ids)
    return [
        {
            "purl": package.purl,
            "name": package.name,
            "version": package.version,
            "type": package.type,
            "matched_as": {
                "ecosystem": package.ecosystem,
                "release": package.release,
                "name": package.match_name,
                "version": package.match_version,
            }
            if package.ecosystem and not package.problem
            else None,
            "judged_as": package.owner or None,
            "problem": package.problem or None,
        }
        for package in contained.distinct().order_by("purl", "pk")
    ]
