"""The package lists of images that have several SBOMs: keep each, and put one of them in use."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from accounts.queries import system_user
from lifecycle import events
from lifecycle.registry.models import Image
from lifecycle.sbom.models import ImageInventory, PackageList, PackageListInventory, Sbom


@dataclass(frozen=True, slots=True)
class Contents:
    """What a list holds: inventories with their layers, and the counts that the image gets when the list is used."""

    inventories: Collection[tuple[int, int | None]]
    package_count: int
    dropped_count: int
    distro: str = ""
    problem: str = ""
    dropped: list[list[str]] = field(default_factory=list)


def images_with_lists(image_ids: Iterable[int]) -> set[int]:
    """Return those of these images that have a brought SBOM."""
    return set(PackageList.objects.filter(image__in=list(image_ids)).values_list("image", flat=True))


def lock(image_id: int) -> Image | None:
    """Return the image, locked: one change of its lists at a time. None if it no longer exists."""
    return Image.objects.select_for_update(no_key=True).filter(pk=image_id, kind=Image.Kind.MANIFEST).first()


@transaction.atomic
def set_aside(image: Image) -> None:
    """Keep what our scan found in a list, before the first brought SBOM can replace it. Nothing for a known list."""
    if image.scanned_at is None or PackageList.objects.filter(image=image).exists():
        return
    sbom = Sbom.objects.filter(image=image).order_by("-pk").first()
    if sbom is None:  # rows of before there were documents
        digest = "sha256:" + hashlib.sha256(image.digest.encode()).hexdigest()
        sbom = Sbom.objects.create(image=image, format="import", tool="unknown", digest=digest)
    found = ImageInventory.objects.filter(image=image).values_list("inventory_id", "layer_position")
    contents = Contents(list(found), image.package_count, image.dropped_count, image.distro, image.scan_problem)
    write(sbom, contents, kind=PackageList.Kind.OWN, is_used=True, kept_at=image.scanned_at)


def write(sbom: Sbom, contents: Contents, **columns: Any) -> PackageList:
    """Store a list of this SBOM, in place of one that it has."""
    PackageListInventory.objects.filter(package_list=sbom.pk).delete()
    row, _ = PackageList.objects.update_or_create(
        sbom=sbom,
        defaults={
            "image_id": sbom.image_id,
            "package_count": contents.package_count,
            "dropped_count": contents.dropped_count,
            "dropped": contents.dropped,
            "distro": contents.distro[:60],
            "problem": contents.problem[:300],
            **columns,
        },
    )
    PackageListInventory.objects.bulk_create(
        [
            PackageListInventory(package_list=row, inventory_id=inventory, layer_position=position)
            for inventory, position in contents.inventories
        ],
        batch_size=5000,
    )
    return row


def own_list(image_id: int) -> PackageList | None:
    """Return the newest list of our scan."""
    return PackageList.objects.filter(image=image_id, kind=PackageList.Kind.OWN).order_by("-kept_at").first()


def used_list(image_id: int) -> PackageList | None:
    """Return the list that is in use; None while no list is, or for an image without lists."""
    return PackageList.objects.filter(image=image_id, is_used=True).first()


@transaction.atomic
def use(image_id: int, chosen: PackageList | None) -> None:
    """Let this list decide what packages the image has; None for the one of our scan.

    Without any, the packages are unknown again. Findings and counts follow with the commit.
    """
    if lock(image_id) is None:
        return
    chosen = chosen or own_list(image_id)
    PackageList.objects.filter(image=image_id, is_used=True).update(is_used=False)
    ImageInventory.objects.filter(image=image_id).delete()
    if chosen is None:
        Image.objects.filter(pk=image_id).update(scanned_at=None, scan_problem="", package_count=0, dropped_count=0)
        return
    PackageList.objects.filter(pk=chosen.pk).update(is_used=True)
    found = chosen.inventories.values_list("inventory_id", "layer_position")
    ImageInventory.objects.bulk_create(
        [
            ImageInventory(image_id=image_id, inventory_id=inventory, layer_position=position)
            for inventory, position in found
        ],
        batch_size=5000,
    )
    changes: dict[str, Any] = {
        "package_count": chosen.package_count,
        "dropped_count": chosen.dropped_count,
        "scan_problem": chosen.problem,
        "scanned_at": chosen.kept_at,
    }
    if chosen.distro:
        changes["distro"] = chosen.distro
    Image.objects.filter(pk=image_id).update(**changes)
    events.publish(events.ImagesScanned((image_id,), (), actor_id=system_user().pk))
