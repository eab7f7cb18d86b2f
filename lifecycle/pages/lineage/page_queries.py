"""Queries of the lineage pages: root images, and the neighbourhood of one image, grouped to be readable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import connection
from django.db.models import Count, QuerySet
from django.db.models.expressions import RawSQL
from django.urls import reverse

from accounts.models import User
from lifecycle.authority.covers import open_sql
from lifecycle.authority.queries import repositories_open_to
from lifecycle.evidence.judgement import Known, judgement_of
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.pages.lineage.layout import NODES_MAX, Drawing, Edge, Node, columns_of, draw
from lifecycle.pages.templatetags.gravingdock import plural, short_digest
from lifecycle.quarantine.queries import add_covers
from lifecycle.registry.models import Image, Repository
from lifecycle.registry.queries import Location, images_held_in, locations_of
from lifecycle.trust.queries import untrusted_images

ANCESTORS_MAX: Final = 60  # a chain is rarely longer than 8, but several bases per image make it wide
DESCENDANTS_READ: Final = 200  # rows read for the drawing and its groups; the counts come from the closure
COUNTED_MAX: Final = 100  # images built on one of many images; the count stops here
ROLLED_FROM: Final = 3  # images of one repository on the same base become one box from this number on

EVIDENCE_WORDS: Final = {
    "layers": "matching layers",
    "annotation": "annotation or label",
    "provenance": "provenance statement",
    "declared": "our build record",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, with the same data as a box and its line in the drawing."""

    depth: int
    image: Image
    place: Location
    url: str
    relation: str
    evidence: str
    derived_count: str  # of `derived_counts`
    is_focus: bool
    is_untrusted: bool  # one of its bases is from no trusted source of its team


@dataclass(frozen=True, slots=True)
class Level:
    """Number of images at one distance from a base. Distances at which the reader sees no image are left out, so that
    an image between that they cannot see leaves no gap."""

    depth: int
    count: int


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The content of the lineage page of one image."""

    drawing: Drawing
    rows: Sequence[Row]
    ancestor_count: int
    levels: Sequence[Level]
    drawn: str  # sentence with the numbers of drawn and hidden images
    untrusted_count: int  # rows of images on untrusted bases, each image once

    @property
    def descendant_count(self) -> int:
        return sum(level.count for level in self.levels)


# Whether the reader can see one image. As a value with a limit, PostgreSQL looks it up for each image that it comes to,
# and never joins all memberships.
_SEEN: Final = """(SELECT true FROM lifecycle_repositoryimage m JOIN lifecycle_repository r ON r.id = m.repository_id
    WHERE m.image_id = {image} AND m.removed_at IS NULL AND {visible} LIMIT 1)"""
# The bases, one step in the index for each. Then those without a base that the reader can see, which are few.
_ROOTS: Final = """
WITH RECURSIVE base (id) AS (
    SELECT max(d.base_id) FROM lifecycle_derivation d
    UNION ALL
    SELECT (SELECT max(d.base_id) FROM lifecycle_derivation d WHERE d.base_id < base.id) FROM base WHERE base.id > 0
), topmost AS MATERIALIZED (
    SELECT base.id FROM base WHERE base.id > 0 AND (
        SELECT true FROM lifecycle_derivation d WHERE d.derived_id = base.id AND {base_seen} LIMIT 1
    ) IS NULL
)
SELECT topmost.id FROM topmost WHERE {root_seen} AND (
    SELECT true FROM lifecycle_ancestry a WHERE a.ancestor_id = topmost.id AND {below_seen} LIMIT 1
)"""
_DERIVED_COUNTS: Final = """
SELECT i.id, (SELECT count(*) FROM (
    SELECT FROM lifecycle_ancestry a WHERE a.ancestor_id = i.id AND {below_seen} LIMIT %s
) below)
FROM unnest(%s::bigint[]) AS i (id)"""


def roots_visible(actor: User) -> QuerySet[Image]:
    """Return the root images that `actor` can see: base images with no base that they can see. Page them by -id.

    The query grows with the number of base images, not with the number of images built on them.
    """
    visible, values = open_sql(actor, "r")
    ids = _ROOTS.format(
        base_seen=_SEEN.format(image="d.base_id", visible=visible),
        root_seen=_SEEN.format(image="topmost.id", visible=visible),
        below_seen=_SEEN.format(image="a.descendant_id", visible=visible),
    )
    rows = Image.objects.filter(kind=Image.Kind.MANIFEST, pk__in=RawSQL(ids, 3 * values))  # noqa: S611 -- grants are values
    return rows.defer("manifest", "config")


def derived_counts(image_ids: Iterable[int], actor: User) -> dict[int, str]:
    """Return {image id: number of images that `actor` can see and that are built on it, at any distance}.

    At most COUNTED_MAX are counted: "100+" for more. The page of the image itself has the exact number.
    """
    visible, values = open_sql(actor, "r")
    statement = _DERIVED_COUNTS.format(below_seen=_SEEN.format(image="a.descendant_id", visible=visible))
    with connection.cursor() as cursor:
        cursor.execute(statement, [*values, COUNTED_MAX + 1, list(image_ids)])
        return {pk: f"{COUNTED_MAX}+" if count > COUNTED_MAX else str(count) for pk, count in cursor.fetchall()}


def levels_below(image: Image, repositories: QuerySet[Repository]) -> list[Level]:
    """Return the number of images of `repositories` at each distance below `image`, with one query over the closure."""
    rows = (
        Ancestry.objects.filter(ancestor=image, descendant__in=images_held_in(repositories))
        .values("depth")
        .annotate(count=Count("id"))
        .order_by("depth")
    )
    return [Level(number, row["count"]) for number, row in enumerate(rows, start=1)]


def _url(image: Image) -> str:
    return reverse("lifecycle:lineage-image", args=[image.digest])


def _findings_note(image: Image) -> str:
    known = judgement_of(image)
    if known.state == Known.UNKNOWN:
        return f"findings unknown: {known.why}"
    return plural(image.finding_count, "open finding") + (f"; {known.why}" if known.why else "")


def _untrusted_among(image_ids: Iterable[int], repositories: QuerySet[Repository]) -> set[int]:
    """Return those of these images that stand on an untrusted base; none without trusted sources. Three queries."""
    rows = untrusted_images(repositories)
    return set() if rows is None else set(rows.filter(image__in=image_ids).values_list("image_id", flat=True))


def _node(image: Image, location: Location, column: int, *, is_focus: bool, is_untrusted: bool) -> Node:
    return Node(
        key=str(image.pk),
        column=column,
        title=location.repository.name,
        line=location.tag or short_digest(image.digest),
        url=_url(image),
        is_focus=is_focus,
        is_untrusted=is_untrusted,
        note=f"{image.digest}, {image.platform or 'platform unknown'}, {_findings_note(image)}"
        + (", untrusted base" if is_untrusted else "")
        + (", quarantined" if getattr(image, "covers", None) else ""),
    )


def neighbourhood_of(focus: Image, actor: User) -> Neighbourhood:
    """Return ancestors and descendants of `focus` that `actor` can see, grouped to fit the drawing."""
    repositories = repositories_open_to(actor)
    visible_ids = images_held_in(repositories)
    up = _without_documents(Ancestry.objects.filter(descendant=focus, ancestor__in=visible_ids), "ancestor")
    down = _without_documents(Ancestry.objects.filter(ancestor=focus, descendant__in=visible_ids), "descendant")
    ancestors = [row.ancestor for row in up.order_by("depth", "id")[:ANCESTORS_MAX]]
    # In the order of the database index, so that only the first rows are read for a base with 100,000 descendants.
    descendants = [row.descendant for row in down.order_by("depth", "descendant_id")[:DESCENDANTS_READ]]
    images = {image.pk: image for image in [*ancestors, focus, *descendants]}
    levels = levels_below(focus, repositories)
    counts = derived_counts(images, actor) | {focus.pk: str(sum(level.count for level in levels))}
    locations = locations_of(images, repositories)
    images = {key: image for key, image in images.items() if key in locations or key == focus.pk}
    edges = list(Derivation.objects.filter(base_id__in=images, derived_id__in=images).order_by("id"))
    add_covers(images.values(), actor)
    column = columns_of(map(str, images), [(str(edge.base_id), str(edge.derived_id)) for edge in edges])

    untrusted = _untrusted_among(images, repositories)
    rolled, groups = _roll_up(focus, descendants, images, locations, edges)
    line = {focus.pk, *(image.pk for image in ancestors)}
    nodes = [
        _node(image, locations[key], column[str(key)], is_focus=key == focus.pk, is_untrusted=key in untrusted)
        for key, image in images.items()
        if key not in rolled and key in locations
    ]
    for name, members in groups.items():
        first = images[members[0]]
        repository = locations[first.pk].repository
        nodes.append(
            Node(
                key=name,
                column=column[str(first.pk)],
                title=f"+{len(members)} of {repository.name}",
                line="in the table below",
                url=reverse("lifecycle:repository", args=[repository.team.slug, repository.name]),
                is_rollup=True,
                note=f"{len(members)} images of one repository, built on the same base",
            )
        )
    nodes = nodes[:NODES_MAX]
    lines: dict[tuple[str, str], Edge] = {}
    for edge in edges:
        base, derived = (
            rolled.get(edge.base_id, str(edge.base_id)),
            rolled.get(edge.derived_id, str(edge.derived_id)),
        )
        is_weak = edge.confidence == Derivation.Confidence.LOW
        lines.setdefault(
            (base, derived),
            Edge(
                base,
                derived,
                is_on_focus_line=edge.base_id in line and edge.derived_id in line,
                is_weak=is_weak,
                label="label only" if is_weak else "",
            ),
        )
    drawing = draw(nodes, list(lines.values()))
    rows = _rows(focus, images, locations, edges, column, counts, untrusted)
    known = sum(level.count for level in levels) + len(ancestors) + 1
    drawn_images = sum(not node.is_rollup for node in drawing.nodes)
    in_groups = sum(len(members) for members in groups.values())
    hidden = known - drawn_images - in_groups
    drawn = f"Shows {drawn_images} of {plural(known, 'image')}"
    if groups:
        drawn += f", plus {in_groups} in {plural(len(groups), 'group')}"
    drawn += "."
    if hidden > 0:
        drawn += f" {plural(hidden, 'more distant image')} {'is' if hidden == 1 else 'are'} not shown."
    return Neighbourhood(drawing, rows, len(ancestors), levels, drawn, len(untrusted & images.keys()))


def _without_documents(rows: QuerySet[Ancestry], end: str) -> QuerySet[Ancestry]:
    """Return `rows` with the image at one end loaded, without its large columns, which no drawing shows."""
    heavy = ("manifest", "config", "annotations", "labels")
    return rows.select_related(end).defer(*(f"{end}__{name}" for name in heavy))


def _roll_up(
    focus: Image,
    descendants: Sequence[Image],
    images: dict[int, Image],
    locations: dict[int, Location],
    edges: Sequence[Derivation],
) -> tuple[dict[int, str], dict[str, list[int]]]:
    """Return ({descendant id: group}, {group: ids}): leaf images of one repository on the same base share a group.

    Removes the most distant images from `images` when too many are left for the drawing.
    """
    bases: dict[int, list[int]] = defaultdict(list)
    has_children: set[int] = set()
    for edge in edges:
        bases[edge.derived_id].append(edge.base_id)
        has_children.add(edge.base_id)
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for image in descendants:
        if image.pk in locations and image.pk not in has_children and image.pk != focus.pk:
            alike[(locations[image.pk].repository.pk, tuple(sorted(bases[image.pk])))].append(image.pk)
    groups = {
        f"roll-{repository}-{'-'.join(map(str, under))}": members
        for (repository, under), members in alike.items()
        if len(members) >= ROLLED_FROM
    }
    drawn = len(images) - sum(len(members) - 1 for members in groups.values())
    if drawn > NODES_MAX:  # still too many: the most distant images are only counted in the sentence above the drawing
        for image in reversed(descendants):
            if drawn <= NODES_MAX:
                break
            if image.pk in images and not any(image.pk in members for members in groups.values()):
                del images[image.pk]
                drawn -= 1
    return {member: name for name, members in groups.items() for member in members}, groups


def _rows(  # noqa: PLR0917 -- called once, with the parts of one walk
    focus: Image,
    images: dict[int, Image],
    locations: dict[int, Location],
    edges: Sequence[Derivation],
    column: dict[str, int],
    counts: dict[int, str],
    untrusted: set[int],
) -> list[Row]:
    """Return the rows of the table in the order of a walk from the roots, each image once per immediate base."""
    children: dict[int, list[Derivation]] = defaultdict(list)
    has_base: set[int] = set()
    for edge in edges:
        if edge.base_id in images and edge.derived_id in images:
            children[edge.base_id].append(edge)
            has_base.add(edge.derived_id)
    rows: list[Row] = []
    seen: set[tuple[int, int]] = set()

    def add(image: Image, edge: Derivation | None) -> None:
        location = locations.get(image.pk)
        if location is None:
            return
        if edge is None:
            relation, evidence = "root image", "no base that you can see"
        else:
            base = locations.get(edge.base_id)
            relation = f"built on {base.label}" if base else "built on an image you cannot see"
            words = ", ".join(EVIDENCE_WORDS.get(kind, kind) for kind in edge.evidence)
            evidence = f"{words[:1].upper()}{words[1:]}. Confidence {edge.confidence}."
        rows.append(
            Row(
                column[str(image.pk)],
                image,
                location,
                _url(image),
                relation,
                evidence,
                counts[image.pk],
                image.pk == focus.pk,
                image.pk in untrusted,
            )
        )

    pending: list[tuple[int, Derivation | None]] = []
    pending += [(key, None) for key in reversed(images) if key not in has_base]
    while pending:
        key, step = pending.pop()
        if step is not None and (step.base_id, key) in seen:
            continue
        if step is not None:
            seen.add((step.base_id, key))
        add(images[key], step)
        pending += [(child.derived_id, child) for child in reversed(children[key])]
    return rows
