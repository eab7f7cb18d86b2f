"""The findings of one image, for its page. Findings are computed and never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db.models import Case, Count, IntegerField, Max, QuerySet, Value, When

from lifecycle.advisories.models import Match
from lifecycle.core.severities import SEVERITIES
from lifecycle.evidence.open_findings import open_matches, unknown_matches
from lifecycle.registry.models import Image

UNKNOWN_MAX: Final = 200  # rows of the page; the API lists all


@dataclass(frozen=True, slots=True)
class LayerShare:
    """Number of findings in one layer. `layer_position` is None where the SBOM does not name the layer."""

    layer_position: int | None
    count: int


def findings_of(image: Image) -> QuerySet[Match]:
    """Return the open matches in `image`, each (package, vulnerability) once, with package, advisory and feed loaded.

    Annotated with `layer_position` (the topmost layer with the package, None when unknown) and `rank` (severity).
    Page them by (-rank, id).
    """
    whens = [When(severity=name, then=Value(rank)) for rank, name in enumerate(reversed(SEVERITIES))]
    return (
        open_matches()
        .filter(
            package__inventory_packages__inventory__image_inventories__image=image,
        )
        .annotate(
            layer_position=Max("package__inventory_packages__inventory__image_inventories__layer_position"),
            rank=Case(*whens, default=Value(0), output_field=IntegerField()),
        )
        .select_related("package", "advisory__feed")
    )


def unknown_findings_of(image: Image) -> list[Match]:
    """Return the matches in `image` that cannot be judged, each with its `reason`, sorted by advisory id.

    At most UNKNOWN_MAX.
    """
    contained = unknown_matches().filter(package__inventory_packages__inventory__image_inventories__image=image)
    rows = contained.distinct().select_related("package", "advisory__feed")
    return list(rows.order_by("advisory__vulnerability", "package__purl", "id")[:UNKNOWN_MAX])


def findings_by_layer(image: Image) -> list[LayerShare]:
    """Return the number of findings in each layer of `image`, base first, with one query."""
    rows = (
        open_matches()
        .filter(
            package__inventory_packages__inventory__image_inventories__image=image,
        )
        .values("package__inventory_packages__inventory__image_inventories__layer_position")
        .annotate(count=Count("id", distinct=True))
    )
    shares = [
        LayerShare(
            row["package__inventory_packages__inventory__image_inventories__layer_position"],
            row["count"],
        )
        for row in rows
    ]
    return sorted(
        shares,
        key=lambda share: -1 if share.layer_position is None else share.layer_position,
    )
