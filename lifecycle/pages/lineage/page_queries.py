"""Queries of the lineage pages: root images, and the neighbourhood of one image, grouped to be readable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models import Count, Exists, OuterRef, QuerySet
from django.urls import reverse

from lifecycle.evidence.judgement import Known, judgement_of
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.pages.lineage.layout import NODES_MAX, Drawing, Edge, Node, columns_of, draw
from lifecycle.pages.templatetags.gravingdock import plural, short_digest
from lifecycle.registry.models import Image, Repository
from lifecycle.registry.queries import Location, images_held_in, locations_of

ANCESTORS_MAX: Final = 60  # a chain is rarely longer than 8, but several bases per image make it wide
DESCENDANTS_READ: Final = 400  # rows read for the drawing and its groups; the counts come from the closure
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
    derived_count: int
    is_focus: bool


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

    @property
    def descendant_count(self) -> int:
        return sum(level.count for level in self.levels)


def roots_visible(visible: QuerySet[Image], repositories: QuerySet[Repository]) -> QuerySet[Image]:
    """Return the root images among `visible`: base images with no base among them. Page them by -id."""
    visible_ids = images_held_in(repositories)
    return visible.filter(
        # Few images are a base, so start with those instead of checking each image for derived images.
        Exists(Ancestry.objects.filter(ancestor=OuterRef("pk"), descendant__in=visible_ids)),
        ~Exists(Derivation.objects.filter(derived=OuterRef("pk"), base__in=visible_ids)),
        kind=Image.Kind.MANIFEST,
        pk__in=Derivation.objects.values("base"),
    ).defer("manifest", "config")


def levels_below(image: Image, repositories: QuerySet[Repository]) -> list[Level]:
    """Return the number of images of `repositories` at each distance below `image`, with one query over the closure."""
    return _levels([image.pk], repositories)[image.pk]


def derived_counts(image_ids: Iterable[int], repositories: QuerySet[Repository]) -> dict[int, int]:
    """Return {image id: number of images of `repositories` built on it, at any distance}, with one query for all."""
    return {key: sum(level.count for level in levels) for key, levels in _levels(image_ids, repositories).items()}


def _levels(image_ids: Iterable[int], repositories: QuerySet[Repository]) -> dict[int, list[Level]]:
    ids = list(image_ids)
    rows = (
        Ancestry.objects.filter(ancestor__in=ids, descendant__in=images_held_in(repositories))
        .values("ancestor", "depth")
        .annotate(count=Count("id"))
        .order_by("ancestor", "depth")
    )
    levels: dict[int, list[Level]] = {key: [] for key in ids}
    for row in rows:
        below = levels[row["ancestor"]]
        below.append(Level(len(below) + 1, row["count"]))
    return levels


def _url(image: Image) -> str:
    return reverse("lifecycle:lineage-image", args=[image.digest])


def _findings_note(image: Image) -> str:
    known = judgement_of(image)
    if known.state == Known.UNKNOWN:
        return f"findings unknown: {known.why}"
    return plural(image.finding_count, "open finding") + (f"; {known.why}" if known.why else "")


def _node(image: Image, location: Location, column: int, *, is_focus: bool) -> Node:
    return Node(
        key=str(image.pk),
        column=column,
        title=location.repository.name,
        line=location.tag or short_digest(image.digest),
        url=_url(image),
        is_focus=is_focus,
        note=f"{image.digest}, {image.platform or 'platform unknown'}, {_findings_note(image)}",
    )


def neighbourhood_of(focus: Image, repositories: QuerySet[Repository]) -> Neighbourhood:
    """Return ancestors and descendants of `focus` in `repositories`, grouped to fit the drawing."""
    visible_ids = images_held_in(repositories)
    up = _without_documents(Ancestry.objects.filter(descendant=focus, ancestor__in=visible_ids), "ancestor")
    down = _without_documents(Ancestry.objects.filter(ancestor=focus, descendant__in=visible_ids), "descendant")
    ancestors = [row.ancestor for row in up.order_by("depth", "id")[:ANCESTORS_MAX]]
    # In the order of the database index, so that only the first rows are read for a base with 100,000 descendants.
    descendants = [row.descendant for row in down.order_by("depth", "descendant_id")[:DESCENDANTS_READ]]
    images = {image.pk: image for image in [*ancestors, focus, *descendants]}
    all_levels = _levels(images, repositories)
    levels = all_levels[focus.pk]
    counts = {key: sum(level.count for level in below) for key, below in all_levels.items()}
    locations = locations_of(images, repositories)
    images = {key: image for key, image in images.items() if key in locations or key == focus.pk}
    edges = list(Derivation.objects.filter(base_id__in=images, derived_id__in=images).order_by("id"))
    column = columns_of(map(str, images), [(str(edge.base_id), str(edge.derived_id)) for edge in edges])

    rolled, groups = _roll_up(focus, descendants, images, locations, edges)
    line = {focus.pk, *(image.pk for image in ancestors)}
    nodes = [
        _node(image, locations[key], column[str(key)], is_focus=key == focus.pk)
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
    rows = _rows(focus, images, locations, edges, column, counts)
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
    return Neighbourhood(drawing, rows, len(ancestors), levels, drawn)


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
    counts: dict[int, int],
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
                counts.get(image.pk, 0),
                image.pk == focus.pk,
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
