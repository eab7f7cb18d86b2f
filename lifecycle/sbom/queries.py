"""What images hold, and which images hold a thing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import F, QuerySet

from lifecycle.registry.models import Image
from lifecycle.sbom.models import InventoryPackage, PackageVersion, Sbom


@dataclass(frozen=True, slots=True)
class Held:
    """A package version in an image, with the layer that brought it (None: not known)."""

    package: PackageVersion
    layer_position: int | None


def packages_of(image: Image) -> list[Held]:
    """Return every package version of `image` with its layer, sorted by purl, then layer."""
    rows = (
        InventoryPackage.objects.filter(inventory__image_inventories__image=image)
        .select_related("package")
        .annotate(layer_position=F("inventory__image_inventories__layer_position"))
        .order_by("package__purl", "layer_position")
    )
    return [Held(row.package, row.layer_position) for row in rows]


def purls_of(image: Image) -> set[str]:
    """Return the purls in `image`."""
    rows = InventoryPackage.objects.filter(inventory__image_inventories__image=image)
    return set(rows.values_list("package__purl", flat=True))


def images_with(package_ids: Collection[int]) -> QuerySet[Image]:
    """Return the images that hold any of these package versions, whoever may see them."""
    held = InventoryPackage.objects.filter(package_id__in=package_ids).values("inventory_id")
    return Image.objects.filter(image_inventories__inventory_id__in=held).distinct()


def sbom_of(image: Image) -> Sbom | None:
    """Return the newest SBOM document of `image`, None when it was not scanned."""
    return Sbom.objects.filter(image=image).order_by("-id").first()
