"""Which images quarantines cover, and which quarantines a user can see."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import images_visible_to, images_with_places, repositories_visible_to
from lifecycle.core.context import once_a_read
from lifecycle.core.reasons import Reason
from lifecycle.lineage.models import Ancestry
from lifecycle.quarantine.models import Quarantine, QuarantineExemption, Withdrawal
from lifecycle.quarantine.types import Cover, Quarantined
from lifecycle.registry.models import Image, IndexEntry, RepositoryImage

# Walks from the wanted images to their platforms and up to their bases. So it costs the same for a base with 100,000
# derived images, and images that arrive later are covered too. Evidence of low confidence is only a claim in a label:
# anybody could write it, or leave it out. Without a live quarantine, `wanted` is empty and nothing else is read.
COVERED_SQL: Final = """
WITH RECURSIVE live AS (
    SELECT id, image_id, descendants, reason, withdraw FROM lifecycle_quarantine WHERE released_at IS NULL {only}
),
wanted(id) AS (SELECT unnest(%(ids)s::bigint[]) WHERE EXISTS (SELECT FROM live)),
below(root, id) AS (
    SELECT id, id FROM wanted
    UNION
    SELECT b.root, e.child_id FROM below b JOIN lifecycle_indexentry e ON e.index_id = b.id
),
up(root, start, id) AS (
    SELECT root, id, id FROM below
    UNION
    SELECT u.root, u.start, d.base_id
    FROM up u JOIN lifecycle_derivation d ON d.derived_id = u.id AND d.confidence IN ('high', 'medium')
),
source(quarantine_id, id) AS (
    SELECT id, image_id FROM live
    UNION
    SELECT s.quarantine_id, e.child_id FROM source s JOIN lifecycle_indexentry e ON e.index_id = s.id
),
exempt(quarantine_id, id) AS (
    SELECT x.quarantine_id, x.image_id FROM lifecycle_quarantineexemption x JOIN live ON live.id = x.quarantine_id
    UNION
    SELECT x.quarantine_id, e.child_id FROM exempt x JOIN lifecycle_indexentry e ON e.index_id = x.id
)
SELECT up.root, live.id AS quarantine, live.reason, bool_or(up.start = up.id) AS is_direct,
       bool_or(up.start = up.id) AND live.withdraw AS is_withdrawn
FROM up
JOIN source ON source.id = up.id
JOIN live ON live.id = source.quarantine_id
WHERE (live.descendants OR up.start = up.id)
  AND NOT EXISTS (
      SELECT FROM exempt x WHERE x.quarantine_id = live.id AND x.id IN (up.root, up.start) AND up.start <> up.id
  )
GROUP BY up.root, live.id, live.reason, live.withdraw
ORDER BY up.root, bool_or(up.start = up.id) DESC, live.id
"""
# Evaluated for covered images only, of which there are few.
_IS_GRANTED: Final = """EXISTS (
    SELECT FROM lifecycle_repositoryimage held
    WHERE held.image_id = covered.root AND held.removed_at IS NULL AND held.repository_id IN ({granted})
)"""
SCANNED_MAX: Final = 5000
_ALL: Final = COVERED_SQL.format(only="")
_ONE: Final = COVERED_SQL.format(only="AND id = %(quarantine)s")


def covers_of(image_ids: Collection[int], *, quarantine_id: int | None = None) -> dict[int, list[Cover]]:
    """Return {image id: the live quarantines that cover it, the direct ones first}; only covered images. One query.

    An image is covered if it is quarantined itself, is the index or a platform of one that is, or is built on one whose
    quarantine includes descendants. With `quarantine_id`, only that quarantine counts.
    """
    found: dict[int, list[Cover]] = {}
    with connection.cursor() as cursor:
        sql = _ALL if quarantine_id is None else _ONE
        cursor.execute(sql, {"ids": sorted(set(image_ids)), "quarantine": quarantine_id})
        for image_id, *values in cursor.fetchall():
            found.setdefault(image_id, []).append(Cover(*values))
    return found


def covers_of_image(image: Image) -> list[Cover]:
    """Return the live quarantines that cover one image. A page asks once, for any number of environments."""
    return once_a_read(("covers", image.pk), lambda: covers_of([image.pk]).get(image.pk, []))


def why_quarantined(image: Image) -> Reason | None:
    """Return why an image cannot be promoted, or be a base; None when no quarantine covers it."""
    covers = covers_of_image(image)
    return Reason(" ".join(cover.words for cover in covers), Quarantined) if covers else None


def covers_shown(image_ids: Collection[int], actor: User) -> dict[int, list[Cover]]:
    """Return `covers_of` as `actor` can read it: without the reason for an image that they see only as it is open.

    One query, as `covers_of`, beside that for the grants of `actor`; none without an image.
    """
    if not image_ids:
        return {}
    try:
        granted, values = repositories_visible_to(actor).order_by().values("pk").query.sql_with_params()
    except EmptyResultSet:
        granted, values = "SELECT NULL::bigint", ()
    names = {f"granted_{index}": value for index, value in enumerate(values)}
    places = [*(f"%({name})s" for name in names), ""]
    named = "".join(part + place for part, place in zip(granted.split("%s"), places, strict=True))
    sql = f"SELECT covered.*, {_IS_GRANTED.format(granted=named)} FROM ({_ALL}) AS covered"  # noqa: S608 -- SQL of the ORM and of ours
    found: dict[int, list[Cover]] = {}
    with connection.cursor() as cursor:
        cursor.execute(sql, {"ids": sorted(set(image_ids)), **names})
        for image_id, *row, is_granted in cursor.fetchall():
            cover = Cover(*row)
            found.setdefault(image_id, []).append(cover if is_granted else replace(cover, reason=""))
    return found


def add_covers(images: Iterable[Image | None], actor: User) -> None:
    """Set `covers` on each image as `covers_shown`, for lists, pages and the API; no query without an image."""
    rows = [image for image in images if image is not None]
    found = covers_shown([image.pk for image in rows], actor)
    for image in rows:
        image.covers = found.get(image.pk, [])  # type: ignore[attr-defined]  # only what shows images needs it


def quarantines_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Quarantine]:
    """Return the quarantines of images on which `actor` has `verb` by a grant, with the joins that a list needs.

    Who sees an image only because it is open does not see why it is quarantined, nor by whom.
    """
    rows = Quarantine.objects.select_related("image", "team", "created_by", "release_requested_by", "released_by")
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return rows
    return rows.filter(image__in=_granted_images(actor, verb).filter(pk__in=Quarantine.objects.values("image")))


def _granted_images(actor: User, verb: Verb) -> QuerySet[Image]:
    places = repositories_visible_to(actor, verb)
    held = RepositoryImage.objects.filter(image=OuterRef("pk"), repository__in=places, removed_at=None)
    return Image.objects.filter(Exists(held))


def exemptions_of(row: Quarantine, actor: User) -> QuerySet[QuarantineExemption]:
    """Return the exempt images of a quarantine that `actor` can see, the newest first."""
    rows = row.exemptions.select_related("image", "created_by").filter(image__in=images_visible_to(actor))
    return rows.order_by("-pk")


def withdrawals_of(row: Quarantine, actor: User) -> QuerySet[Withdrawal]:
    """Return from where a quarantine withdraws images, in repositories that `actor` can see, by name."""
    rows = row.withdrawals.filter(repository__in=repositories_visible_to(actor))
    return rows.select_related("repository__team", "image").order_by("repository__name", "image_id")


def withdrawing_covers(image_ids: Collection[int]) -> dict[int, list[int]]:
    """Return {image id: ids of the live quarantines that withdraw it}: it, its index or a platform of it."""
    if not Quarantine.objects.filter(released_at=None, withdraw=True).exists():
        return {}
    found = {
        pk: [cover.quarantine_id for cover in covers if cover.is_withdrawn]
        for pk, covers in covers_of(image_ids).items()
    }
    return {pk: ids for pk, ids in found.items() if ids}


def withdrawn_ids(image_id: int) -> set[int]:
    """Return an image, its platforms, and the indexes around any of these. They cannot be pulled without each other."""
    below = _closure({image_id}, "index", "child")
    return _closure(below, "child", "index")


def _closure(ids: set[int], start: str, end: str) -> set[int]:
    found, new = set(ids), set(ids)
    while new:
        new = set(IndexEntry.objects.filter(**{f"{start}__in": new}).values_list(end, flat=True)) - found
        found |= new
    return found


def covered_ids(row: Quarantine) -> dict[int, bool]:
    """Return {id of each covered image: whether it is the quarantined image itself, its index or platform}.

    The nearest come first. Only live quarantines cover anything. For jobs: a base can have 100,000 images built on it.
    """
    ids = _images_near(row, None) if row.is_live else []
    found: dict[int, bool] = {}
    for start in range(0, len(ids), SCANNED_MAX):
        part = ids[start : start + SCANNED_MAX]
        covers = covers_of(part, quarantine_id=row.pk)
        found |= {pk: covers[pk][0].is_direct for pk in part if pk in covers}
    return found


def _images_near(row: Quarantine, limit: int | None) -> list[int]:
    """Return the image, its platforms, up to `limit` images built on them, the nearest first, and indexes of these."""
    own = _with_entries([row.image_id], "index", "child_id")
    below = Ancestry.objects.filter(ancestor__in=own).order_by("depth", "descendant_id")
    ids = list(dict.fromkeys([*own, *below.values_list("descendant_id", flat=True)[:limit]]))
    return _with_entries(ids, "child", "index_id")


def _with_entries(ids: list[int], start: str, end: str) -> list[int]:
    """Return images with what their index entries reach, level by level: indexes can contain indexes."""
    found, level = dict.fromkeys(ids), ids
    while level:
        rows = IndexEntry.objects.filter(**{f"{start}__in": level}).order_by(end).values_list(end, flat=True)
        level = [pk for pk in dict.fromkeys(rows) if pk not in found]
        found |= dict.fromkeys(level)
    return list(found)


def covered_images(row: Quarantine, actor: User, *, limit: int) -> list[tuple[Image, list[str]]]:
    """Return up to `limit` covered images that `actor` can see, the nearest first, each with its repositories.

    Only live quarantines cover anything. Images beyond the first SCANNED_MAX descendants are not listed, but covered.
    """
    if not row.is_live:
        return []
    ids = _images_near(row, SCANNED_MAX)
    found = covers_of(ids, quarantine_id=row.pk)
    images = {image.pk: image for image in images_with_places(actor).filter(pk__in=found).defer("manifest", "config")}
    shown = [images[pk] for pk in ids if pk in images][:limit]
    return [(image, [place.repository.name for place in image.places_seen]) for image in shown]  # type: ignore[attr-defined]  # set by images_with_places
