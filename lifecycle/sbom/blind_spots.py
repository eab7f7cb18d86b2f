"""What our scan of an image cannot see, in words: that a scanner finds nothing does not say that nothing is there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from lifecycle.registry.models import Image
from lifecycle.sbom.contents import Kind
from lifecycle.sbom.models import ContentCheck, ImageContentSet, ImageInventory, PackageList, PackageVersion

_OF_DISTRIBUTIONS: Final = frozenset({"alpm", "apk", "deb", "rpm"})
_NOT_SEEN: Final = "Our own scan is not finished: nothing of this image was seen yet."
_WITHOUT_MANAGER: Final = ("busybox",)  # says that it is a distribution, and has no packages


def blind_spots(images: Sequence[Image]) -> Mapping[int, tuple[str, ...]]:
    """Return {image id: sentences} for these platform manifests; every id has an entry. Six queries for any number."""
    ids = [image.pk for image in images]
    types = _types_of(ids)
    unowned: Counter[int] = Counter()
    for image_id, counts in ImageContentSet.objects.filter(image__in=ids).values_list("image", "content_set__counts"):
        unowned[image_id] += counts.get(Kind.UNOWNED.value, 0)
    checks = {check.image_id: check for check in ContentCheck.objects.filter(image__in=ids)}
    lists = list(PackageList.objects.filter(image__in=ids))
    own = {row.image_id: row for row in lists if row.kind == PackageList.Kind.OWN}
    waiting = {row.image_id for row in lists} - own.keys()
    return {
        image.pk: (_NOT_SEEN,)
        if image.pk in waiting or image.scanned_at is None
        else _spots(image, own.get(image.pk), types[image.pk], unowned[image.pk], checks.get(image.pk))
        for image in images
    }


def _types_of(image_ids: Sequence[int]) -> Mapping[int, set[str]]:
    """Return {image id: types of the packages that our scan found}."""
    found: dict[int, set[str]] = defaultdict(set)
    lists = PackageList.objects.filter(image__in=image_ids)
    beside = lists.filter(kind=PackageList.Kind.OWN).values_list("image", "inventories__inventory")
    alone = ImageInventory.objects.filter(image__in=image_ids).exclude(image__in=lists.values("image"))
    held: dict[int, set[int]] = defaultdict(set)
    for image_id, inventory in [*beside, *alone.values_list("image", "inventory")]:
        held[inventory].add(image_id)
    rows = PackageVersion.objects.filter(inventory_packages__inventory__in=[pk for pk in held if pk is not None])
    for inventory, kind in rows.values_list("inventory_packages__inventory", "type").distinct():
        for image_id in held.get(inventory, ()):
            found[image_id].add(kind)
    return found


def _spots(
    image: Image, own: PackageList | None, types: set[str], unowned: int, check: ContentCheck | None
) -> tuple[str, ...]:
    distro, dropped = (own.distro, own.dropped_count) if own is not None else (image.distro, image.dropped_count)
    spots = []
    if not types & _OF_DISTRIBUTIONS:
        if distro and not distro.startswith(_WITHOUT_MANAGER):
            spots.append(
                f"It is built on {distro}, but the database of the package manager is missing or empty. Packages of "
                "the distribution can be in the image without a trace."
            )
        else:
            spots.append(
                "It has no package manager's database, as images from scratch. Libraries of the system that were "
                "copied in are not seen."
            )
    if unowned:
        spots.append(
            f"{unowned:,} {'program belongs' if unowned == 1 else 'programs belong'} to no package. Their parts are "
            "seen only if they carry a list of them, as those of Go do."
        )
    if dropped:
        spots.append(f"{dropped:,} {'package has' if dropped == 1 else 'packages have'} no package URL.")
    if check is None:
        spots.append("The files were not checked, so programs that no package owns are not known.")
    elif check.problem:
        spots.append(f"The check of the files is not complete: {check.problem}")
    return tuple(spots)
