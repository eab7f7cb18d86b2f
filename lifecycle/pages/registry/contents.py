"""The files tab of the image page: what was found, by kind, with the layer at fault and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lifecycle.evidence.contents import FileProblem, ImageContents
from lifecycle.sbom.contents import Kind
from lifecycle.sbom.secret_rules import secret_rules

_TITLES: Final = {
    Kind.MALWARE: "Malware",
    Kind.PRIVATE_KEY: "Private keys",
    Kind.CREDENTIAL: "Credentials",
    Kind.SETUID: "Setuid files",
    Kind.SETGID: "Setgid files",
    Kind.DEVICE: "Device nodes",
    Kind.WORLD_WRITABLE: "World-writable files",
    Kind.UNOWNED: "Programs that no package owns",
}
_SHOWN: Final = 100  # of each kind


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file with a problem. `origin` says whose layer brought it."""

    file: FileProblem
    detail: str
    origin: Mapping[str, str]  # who, and which layer


@dataclass(frozen=True, slots=True)
class FileGroup:
    """The files of one kind: how many, and the first ones."""

    title: str
    count: int
    rows: list[FileRow]


def groups_of(contents: ImageContents, origin_of: Callable[[int], Mapping[str, str]]) -> list[FileGroup]:
    """Return what was found by kind, the worst kind first. `origin_of` says from where a layer is."""
    titles = {rule.id: rule.title for rule in secret_rules().rules}
    groups = []
    for kind, title in _TITLES.items():
        found = [item for item in contents.found if item.kind == kind]
        if found:
            rows = [FileRow(f, titles.get(f.detail, f.detail), origin_of(f.layer)) for f in found[:_SHOWN]]
            groups.append(FileGroup(title, contents.counts.get(kind, len(found)), rows))
    return groups
