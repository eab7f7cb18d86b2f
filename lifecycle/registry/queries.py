"""Reads of images that several callers share."""

from __future__ import annotations

from lifecycle.registry.models import Image, IndexEntry


def platforms_of(image: Image) -> list[Image]:
    """Return the platform manifests that an image means: itself, or the runnable children of an index, in order."""
    if image.kind != Image.Kind.INDEX:
        return [image] if image.kind == Image.Kind.MANIFEST else []
    found: list[Image] = []
    entries = IndexEntry.objects.filter(index=image).select_related("child").order_by("position")
    for entry in entries:
        if entry.child.kind == Image.Kind.INDEX and entry.child != image:
            found.extend(platforms_of(entry.child))
        elif entry.child.kind == Image.Kind.MANIFEST and not entry.platform.startswith("unknown"):
            found.append(entry.child)
    return found
