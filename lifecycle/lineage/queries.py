"""Queries for the ancestors and descendants of an image. They read the closure; none is recursive."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection
from django.db.models import QuerySet

from lifecycle.lineage.models import Ancestry
from lifecycle.registry.models import Image


def ancestors_of(image: Image) -> QuerySet[Ancestry]:
    """Return the ancestors of `image`, nearest first, as closure rows with `ancestor` loaded."""
    return Ancestry.objects.filter(descendant=image).select_related("ancestor").order_by("depth", "ancestor_id")


def descendants_of(image: Image) -> QuerySet[Ancestry]:
    """Return the descendants of `image`, nearest first, as closure rows with `descendant` loaded."""
    return Ancestry.objects.filter(ancestor=image).select_related("descendant").order_by("depth", "descendant_id")


def descendant_count(image: Image) -> int:
    """Return the number of images built on `image`, at any distance."""
    return Ancestry.objects.filter(ancestor=image).count()


def descendants_page(image: Image, *, after: tuple[int, int] = (0, 0), limit: int = 50) -> list[Ancestry]:
    """Return up to `limit` descendants of `image` after `after`, the (depth, descendant_id) of the last row."""
    rows = descendants_of(image).extra(
        where=["(lifecycle_ancestry.depth, lifecycle_ancestry.descendant_id) > (%s, %s)"], params=list(after)
    )
    return list(rows[:limit])


def all_derivations() -> Iterator[tuple[str, str, list[str], str]]:
    """Yield (image, base, evidence, confidence) of every derivation, sorted by the two digests as bytes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.digest, b.digest, e.evidence, e.confidence FROM lifecycle_derivation e"
            " JOIN lifecycle_image d ON d.id = e.derived_id JOIN lifecycle_image b ON b.id = e.base_id"
            ' ORDER BY d.digest COLLATE "C", b.digest COLLATE "C"'
        )
        while rows := cursor.fetchmany(5000):
            yield from rows
