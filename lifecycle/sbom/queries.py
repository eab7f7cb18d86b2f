"""Queries for the packages of images."""

from __future__ import annotations

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
