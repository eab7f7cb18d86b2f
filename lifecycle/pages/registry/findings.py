"""The findings of one image, for its page. Findings are computed and never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db.models import Case, Count, IntegerField, Max, QuerySet, Value, When

from accounts.models import User
from lifecycle.advisories.models import Match
from lifecycle.core.severities import SEVERITIES
from lifecycle.evidence.open_findings import (
    decided_matches_in,
    open_matches_in,
    unknown_matches_in,
    waived_matches_in,
)
from lifecycle.registry.models import Image
from lifecycle.vex.effects import advice_for
from lifecycle.vex.models import VexStatement
from lifecycle.vex.queries import Decided, decided_in, documents_visible_to

UNKNOWN_MAX: Final = 200  # rows of the page; the API lists all


DECIDED_MAX: Final = 200  # rows of the page; the API lists all


@dataclass(frozen=True, slots=True)
class DecidedFinding:
    """A finding that a VEX statement suppresses."""

    match: Match
    statement: Decided


@dataclass(frozen=True, slots=True)
class Statements:
    """What VEX statements say of the findings of one platform manifest."""

    suppressed: list[DecidedFinding]
    of_finding: dict[tuple[int, str], Decided]  # (package version, vulnerability): what counts
    advice: dict[tuple[int, str], VexStatement]  # what documents say that do not count


def statements_for(image: Image, user: User) -> Statements:
    """Return what VEX statements say of the findings of a platform manifest, as far as `user` may know it."""
    counted = {key[1:]: found for key, found in decided_in([image.pk], user).items()}
    suppressed = []
    if any(found.suppresses for found in counted.values()):
        rows = decided_matches_in([image.pk]).distinct().select_related("package", "advisory")
        for match in rows.order_by("advisory__vulnerability", "package__purl", "id")[:DECIDED_MAX]:
            found = counted.get((match.package_id, match.advisory.vulnerability))
            if found is not None and found.suppresses:
                suppressed.append(DecidedFinding(match, found))
    ids = advice_for(image.pk)
    visible = VexStatement.objects.filter(document__in=documents_visible_to(user)).select_related("document")
    advice = visible.defer("document__content").in_bulk(set(ids.values())) if ids else {}
    return Statements(suppressed, counted, {key: advice[pk] for key, pk in ids.items() if pk in advice})


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
        open_matches_in([image.pk])
        .annotate(
            layer_position=Max("package__inventory_packages__inventory__image_inventories__layer_position"),
            rank=Case(*whens, default=Value(0), output_field=IntegerField()),
        )
        .select_related("package", "advisory__feed")
    )


def waived_findings_of(image: Image) -> list[Match]:
    """Return the matches that are waived in `image`, sorted by advisory id; at most DECIDED_MAX."""
    rows = waived_matches_in([image.pk]).distinct().select_related("package", "advisory")
    return list(rows.order_by("advisory__vulnerability", "package__purl", "id")[:DECIDED_MAX])


def unknown_findings_of(image: Image) -> list[Match]:
    """Return the matches in `image` that cannot be judged, each with its `reason`, sorted by advisory id.

    At most UNKNOWN_MAX.
    """
    rows = unknown_matches_in([image.pk]).distinct().select_related("package", "advisory__feed")
    return list(rows.order_by("advisory__vulnerability", "package__purl", "id")[:UNKNOWN_MAX])


def findings_by_layer(image: Image) -> list[LayerShare]:
    """Return the number of findings in each layer of `image`, base first, with one query."""
    rows = (
        open_matches_in([image.pk])
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
