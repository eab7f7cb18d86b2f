"""The packages of one image, for its page."""

from __future__ import annotations

from django.db.models import Max, QuerySet

from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion


def packages_of(image: Image) -> QuerySet[PackageVersion]:
    """Return the package versions of `image`, each once, annotated with `layer_position`; page them by (name, id)."""
    return PackageVersion.objects.filter(inventory_packages__inventory__image_inventories__image=image).annotate(
        layer_position=Max("inventory_packages__inventory__image_inventories__layer_position")
    )
