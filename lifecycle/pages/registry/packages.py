"""The packages of one image, for its page."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Exists, Max, OuterRef, Q, QuerySet

from lifecycle.advisories.coverage import is_covered, no_feed, uncovered
from lifecycle.advisories.models import Match
from lifecycle.evidence.risk import NOT_MATCHED, UNREADABLE
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion


def packages_of(image: Image) -> QuerySet[PackageVersion]:
    """Return the package versions of `image`, each once, annotated with `layer_position`; page them by (name, id)."""
    return PackageVersion.objects.filter(inventory_packages__inventory__image_inventories__image=image).annotate(
        layer_position=Max("inventory_packages__inventory__image_inventories__layer_position")
    )


def unjudged(packages: QuerySet[PackageVersion]) -> QuerySet[PackageVersion]:
    """Return those of `packages` that an advisory could not match."""
    return packages.filter(~Q(problem="") | Q(is_unmatched=True) | ~is_covered() | Exists(_unreadable()))


def _unreadable() -> QuerySet[Match]:
    return Match.objects.filter(package=OuterRef("pk"), valid_to=None, state=Match.State.UNKNOWN)


def add_reasons(packages: Sequence[PackageVersion]) -> None:
    """Set `why_unjudged` on each package: why an advisory could not match it, or ""; two queries."""
    uncertain = Match.objects.filter(package__in=packages, valid_to=None, state=Match.State.UNKNOWN)
    unreadable = set(uncertain.values_list("package", flat=True))
    outside = uncovered((package.ecosystem, package.release) for package in packages)
    for package in packages:
        reason = package.problem or (NOT_MATCHED if package.is_unmatched else "")
        if not reason and not package.owner and (package.ecosystem, package.release) in outside:
            reason = no_feed(package.ecosystem, package.release)
        reason = reason or (UNREADABLE if package.pk in unreadable else "")
        package.why_unjudged = reason  # type: ignore[attr-defined]  # for the template alone
