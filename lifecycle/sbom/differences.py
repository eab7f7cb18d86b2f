"""The differences between two SBOMs of an image, by package name: only here, only there, another version."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.sbom.models import PackageList, PackageVersion

SHOWN: Final = 200  # rows of each kind

_Name = tuple[str, str]  # type, and name with namespace


@dataclass(frozen=True, slots=True)
class Difference:
    """A package that only one list has, or in other versions. `mine` and `theirs` are the versions, sorted."""

    type: str
    name: str
    mine: tuple[str, ...]
    theirs: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {"type": self.type, "name": self.name, "mine": list(self.mine), "theirs": list(self.theirs)}


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs, up to SHOWN of each kind, and how many there are."""

    only_mine: tuple[Difference, ...]
    only_theirs: tuple[Difference, ...]
    other_version: tuple[Difference, ...]
    only_mine_count: int
    only_theirs_count: int
    other_version_count: int
    same_count: int

    @property
    def count(self) -> int:
        """Number of packages that differ."""
        return self.only_mine_count + self.only_theirs_count + self.other_version_count

    @property
    def rows(self) -> tuple[Difference, ...]:
        """All rows, by name within each kind: what our scan alone sees first, as it can hide findings."""
        return (*self.only_theirs, *self.other_version, *self.only_mine)


def differences(mine: PackageList, theirs: PackageList) -> Differences:
    """Return what differs between the packages of two lists; two queries."""
    ours, other = _packages(mine), _packages(theirs)
    rows = {
        name: Difference(*name, tuple(sorted(ours.get(name, ()))), tuple(sorted(other.get(name, ()))))
        for name in sorted(ours.keys() | other.keys())
        if ours.get(name) != other.get(name)
    }
    only_mine = [row for row in rows.values() if not row.theirs]
    only_theirs = [row for row in rows.values() if not row.mine]
    changed = [row for row in rows.values() if row.mine and row.theirs]
    return Differences(
        tuple(only_mine[:SHOWN]),
        tuple(only_theirs[:SHOWN]),
        tuple(changed[:SHOWN]),
        len(only_mine),
        len(only_theirs),
        len(changed),
        len(ours.keys() | other.keys()) - len(rows),
    )


def _packages(row: PackageList) -> dict[_Name, set[str]]:
    found: dict[_Name, set[str]] = defaultdict(set)
    packages = PackageVersion.objects.filter(
        inventory_packages__inventory__in=row.inventories.values("inventory")
    ).values_list("type", "namespace", "name", "version")
    for kind, namespace, name, version in packages.distinct():
        found[kind, f"{namespace}/{name}" if namespace else name].add(version)
    return dict(found)
