"""What pages and API say across images: the records of an advisory, and the visible images with it or a package."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final

from django.db.models import Q

from accounts.models import User
from lifecycle.advisories.models import Advisory, Match
from lifecycle.advisories.queries import aliases_of, named_by
from lifecycle.authority.queries import repositories_open_to
from lifecycle.evidence.waiving import waived_in
from lifecycle.quarantine.queries import add_covers
from lifecycle.registry.models import Image
from lifecycle.registry.queries import Location, locations_of
from lifecycle.sbom.models import InventoryPackage, PackageVersion
from lifecycle.search.queries import carriers
from lifecycle.vex.models import VexEffect

_RECORDS_MAX: Final = 50  # records of one vulnerability; many distributions and languages have their own


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """All live records of one vulnerability, the one with the requested id first, and all its names."""

    records: list[Advisory]
    names: list[str]  # without the requested id

    @property
    def rated(self) -> Advisory | None:
        """The first record with a known severity."""
        return next((record for record in self.records if record.severity_by), None)

    @property
    def scored(self) -> Advisory | None:
        """The first record with a CVSS vector."""
        return next((record for record in self.records if record.vector), None)

    @property
    def cves(self) -> list[str]:
        """The CVE ids of all records."""
        return sorted({cve for record in self.records for cve in record.cves})


@dataclass(slots=True)
class CarrierRow:
    """A visible image, and its packages that the page is about."""

    image: Image
    place: Location | None
    packages: list[Any] = field(default_factory=list)  # PackageVersion with `vex` and perhaps `fixed_version`


def vulnerability(osv_id: str) -> Vulnerability | None:
    """Return the records with this id, and those that name it as an alias or upstream; None when there is none."""
    live = Advisory.objects.filter(withdrawn_at=None, tombstoned_at=None)
    names = {osv_id, *aliases_of([osv_id])[osv_id]}
    about = Q(osv_id__in=names) | Q(pk__in=named_by(osv_id))
    records = list(live.filter(about).select_related("feed").order_by("osv_id", "pk")[:_RECORDS_MAX])
    if not records:
        return None
    records.sort(key=lambda record: (record.osv_id != osv_id, record.score is None, record.osv_id))
    for record in records:
        names |= {record.osv_id, *record.aliases, *record.upstream}
    return Vulnerability(records, sorted(names - {osv_id}))


def packages_called(kind: str, name: str) -> list[PackageVersion]:
    """Return the versions of a package, by version."""
    return list(PackageVersion.objects.filter(type=kind, name=name).order_by("version_key", "version", "pk"))


def affected_packages(records: Iterable[Advisory]) -> list[int]:
    """Return the ids of the package versions that these records affect."""
    matches = Match.objects.filter(advisory__in=[record.pk for record in records], valid_to=None)
    return list(matches.values_list("package_id", flat=True).distinct())


def are_visible(user: User, packages: Iterable[int]) -> bool:
    """Return whether an image that `user` can see has one of these package versions."""
    held = carriers(repositories_open_to(user)).filter(inventory__inventory_packages__package__in=list(packages))
    return held.exists()


def carrier_rows(
    user: User, images: list[Image], packages: Iterable[int], records: Iterable[Advisory] = ()
) -> list[CarrierRow]:
    """Return `images` with their location and those of `packages` that they have; with `records`, with the fix.

    `vex` of a package is the status of the VEX statement that counts in this image, or "waived"; "" for none. Seven
    queries for any number of images, five without records.
    """
    wanted = set(packages)
    add_covers(images, user)
    places = locations_of([image.pk for image in images], repositories_open_to(user))
    inside = InventoryPackage.objects.filter(
        package__in=wanted, inventory__image_inventories__image__in=[image.pk for image in images]
    ).values_list("inventory__image_inventories__image", "package_id")
    held: dict[int, set[int]] = defaultdict(set)
    for image_id, package_id in inside:
        held[image_id].add(package_id)
    states = _states_in(images, {record.vulnerability for record in records})
    rows = PackageVersion.objects.in_bulk({pk for ids in held.values() for pk in ids})
    fixes: dict[int, str] = {}
    ids = [record.pk for record in records]
    if ids:
        live = Match.objects.filter(advisory__in=ids, package__in=rows, valid_to=None).order_by("fixed_version", "pk")
        fixes = dict(live.values_list("package_id", "fixed_version"))
    for pk, row in rows.items():
        row.fixed_version = fixes.get(pk, "")  # type: ignore[attr-defined]  # for the template alone
    return [
        CarrierRow(
            image,
            places.get(image.pk),
            sorted(
                (_with_state(rows[pk], states.get((image.pk, pk), "")) for pk in held[image.pk]),
                key=lambda row: (row.name, row.version),
            ),
        )
        for image in images
    ]


def _states_in(images: list[Image], vulnerabilities: set[str]) -> dict[tuple[int, int], str]:
    """Return {(image, package version): status of the VEX statement that counts for one of these, or "waived"}."""
    if not vulnerabilities or not images:
        return {}
    rows = VexEffect.objects.filter(image__in=[image.pk for image in images], vulnerability__in=vulnerabilities)
    found = rows.values_list("image_id", "package_id", "statement__status", "suppresses")
    waived = waived_in([image.pk for image in images])
    states = {(image, package): "waived" for image, package, name in waived if name in vulnerabilities}
    for image_id, package_id, status, suppresses in found:
        if suppresses or (image_id, package_id) not in states:
            states[image_id, package_id] = status
    return states


def _with_state(package: PackageVersion, state: str) -> PackageVersion:
    found = copy(package)  # other images have it too
    found.vex = state  # type: ignore[attr-defined]  # for the template alone
    return found
