"""A generated data set ("dock") of N images, like that of a company. A fixed seed makes it the same every time.

It has chains of bases that share layers (root, runtime, team base, application), a few bases with many derived images,
and repositories of very different sizes. An image has about 320 packages, in inventories that images share. Some of the
package versions occur in the advisories of this project, so that findings are real. Images are yielded one by one, so
the data set is never in memory as a whole.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lifecycle.sbom.packages import Package

SEED: Final = 20_261_124
DISTRO: Final = "debian-12"
TEAMS: Final = 20
LIBRARY_TEAM: Final = "base"  # owns roots and runtimes
# Number of packages per kind of layer. An application on a team base has all of them: 320.
OF_ROOT: Final = 92
OF_RUNTIME: Final = 118
OF_TEAM_BASE: Final = 30
OF_APPLICATION: Final = 80
VERSIONS_PER_LOCK_FILE: Final = 2  # number of builds of an application with the same packages

# (source package, version with published advisories, version with the fixes), from advisories/data/demo.
_KNOWN_DEBIAN: Final = (
    ("openssl", "3.0.11-1~deb12u2", "3.0.18-1~deb12u2"),
    ("expat", "2.5.0-1", "2.5.0-1+deb12u2"),
    ("perl", "5.36.0-7", "5.36.0-7+deb12u3"),
    ("libarchive", "3.6.2-1", "3.6.2-1+deb12u3"),
    ("xz-utils", "5.4.1-0.2", "5.4.1-1"),
    ("libssh2", "1.10.0-3", "1.11.0-1"),
    ("rsync", "3.2.7-1", "3.2.7-1+deb12u2"),
    ("libpng1.6", "1.6.39-2", "1.6.39-2+deb12u1"),
    ("python3.11", "3.11.2-6", "3.11.2-6+deb12u6"),
    ("nodejs", "18.13.0+dfsg1-1", "18.20.4+dfsg-1~deb12u1"),
)
_KNOWN_PYPI: Final = (
    ("requests", "2.25.0", "2.32.4"), ("urllib3", "1.26.5", "2.6.3"), ("jinja2", "2.11.2", "3.1.6"),
    ("cryptography", "3.2", "46.0.5"), ("werkzeug", "1.0.1", "3.1.6"), ("flask", "1.0", "3.1.3"),
    ("pyyaml", "5.3", "6.0.2"), ("pip", "20.3", "26.0"), ("setuptools", "60.0.0", "80.9.0"), ("idna", "2.10", "3.10"),
)  # fmt: skip
_FIRST: Final = ("root",) * 4 + ("runtime",) * 8 + ("team",) * 12
_SYLLABLES: Final = ("ka", "lo", "mi", "ren", "to", "vas", "qu", "ber", "sol", "dy", "fen", "gra")


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """One layer: its compressed and uncompressed digests, its size and its history entry."""

    digest: str
    diff_id: str
    size_bytes: int
    created_by: str


@dataclass(frozen=True, slots=True)
class PlannedInventory:
    """The packages of one layer. Equal packages have the same `key`."""

    key: str
    packages: Sequence[Package]
    layer_position: int


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image. Its layers are in order, base first."""

    number: int
    digest: str
    repository: str
    tag: str
    layers: Sequence[PlannedLayer]
    inventories: Sequence[PlannedInventory]


def planned_images(count: int) -> Iterator[PlannedImage]:
    """Yield `count` images, each base before its derived images."""
    return _Planner(count).run()


def team_slugs() -> list[str]:
    """Return the slugs of the teams that own the repositories."""
    return [LIBRARY_TEAM, *(f"team-{number:02}" for number in range(1, TEAMS))]


def _sha(text: str) -> str:
    return "sha256:" + hashlib.sha256(f"{SEED} {text}".encode()).hexdigest()


class _Planner:
    def __init__(self, count: int) -> None:
        self.random = random.Random(SEED)
        self.count = count
        self.repository_count = max(10, count // 40)  # of applications
        self.bases: dict[str, list[PlannedImage]] = {"root": [], "runtime": [], "team": []}
        self.builds: dict[str, int] = {}  # number of images so far, by repository
        self.lock_files: dict[str, PlannedInventory] = {}
        # Enough names that versions differ between bases, but so few that most package versions are shared.
        self.os_names = [f"lib{self._word(number)}" for number in range(900)]
        self.app_names = [f"{self._word(number)}-{self._word(number * 7 + 3)}" for number in range(3000)]

    @staticmethod
    def _word(number: int) -> str:
        parts = []
        for _ in range(4):
            number, rest = divmod(number, len(_SYLLABLES))
            parts.append(_SYLLABLES[rest])
        return "".join(parts)

    def run(self) -> Iterator[PlannedImage]:
        for number in range(self.count):
            kind = self._kind(number)
            base = self._base_for(kind)
            image = self._image(number, kind, base)
            if kind in self.bases:
                self.bases[kind].append(image)
            yield image

    def _kind(self, number: int) -> str:
        """Return the kind of the next image: first some bases, then about 2.5 % bases among the applications."""
        if number < len(_FIRST):
            return _FIRST[number]
        draw = self.random.random()
        limits = (("root", 0.0005), ("runtime", 0.005), ("team", 0.025))
        return next((kind for kind, limit in limits if draw < limit), "application")

    def _base_for(self, kind: str) -> PlannedImage | None:
        if kind == "root":
            return None
        draw = self.random.random()
        below = {"runtime": "root", "team": "runtime", "application": "team"}[kind]
        if kind == "application" and draw < 0.25:  # a static site, or a service on the plain runtime
            below = "root" if draw < 0.05 else "runtime"
        pool = self.bases[below]
        return pool[int(len(pool) * self.random.random() ** 3)]  # most images are built on the first ones

    def _image(self, number: int, kind: str, base: PlannedImage | None) -> PlannedImage:
        repository = self._repository(kind)
        build = self.builds[repository] = self.builds.get(repository, 0) + 1
        below = base.layers if base else ()
        own = [
            PlannedLayer(
                _sha(f"layer {number} {position}"),
                _sha(f"diff {number} {position}"),
                self.random.randrange(20_000, 40_000_000),
                f"RUN install step {position} of {repository} build {build}",
            )
            for position in range({"root": 1, "runtime": 3, "team": 2, "application": 4}[kind])
        ]
        inventory = self._inventory(kind, repository, build, len(below))
        return PlannedImage(
            number,
            _sha(f"image {number}"),
            repository,
            f"1.{build}",
            (*below, *own),
            (*(base.inventories if base else ()), inventory),
        )

    def _repository(self, kind: str) -> str:
        if kind in {"root", "runtime"}:
            return f"{LIBRARY_TEAM}/{kind}-{self.random.randrange(4)}"
        if kind == "team":
            return f"team-{self.random.randrange(1, TEAMS):02}/platform"
        chosen = int(self.repository_count * self.random.random() ** 2)  # some are built ten times a day
        return f"team-{1 + chosen % (TEAMS - 1):02}/service-{chosen:04}"

    def _inventory(self, kind: str, repository: str, build: int, layer_position: int) -> PlannedInventory:
        if kind != "application":
            first, size = {"root": (0, OF_ROOT), "runtime": (100, OF_RUNTIME), "team": (300, OF_TEAM_BASE)}[kind]
            start = first + {"root": 0, "runtime": 40, "team": 30}[kind] * self.random.randrange(4)
            release = len(self.bases[kind])
            return PlannedInventory(
                f"{kind} {release}", [self._debian(start + index, release) for index in range(size)], layer_position
            )
        inventory = self.lock_files.get(repository)
        if inventory is None or build % VERSIONS_PER_LOCK_FILE == 0:
            draw = self.random.random
            names = {int(len(self.app_names) * draw() ** 1.5) for _ in range(OF_APPLICATION)}
            packages = [self._language(name, int(20 * draw() ** 2)) for name in sorted(names)]
            inventory = PlannedInventory(f"{repository} {build}", packages, layer_position)
        elif inventory.layer_position != layer_position:
            inventory = PlannedInventory(inventory.key, inventory.packages, layer_position)
        self.lock_files[repository] = inventory
        return inventory

    def _debian(self, index: int, release: int) -> Package:
        """Return the package at `index`. With each release of their image, a tenth of the packages change."""
        if index % 9 == 0 and index < 9 * len(_KNOWN_DEBIAN):
            name, old, new = _KNOWN_DEBIAN[index // 9]
            version = new if release % 3 == 2 else old
            return Package(f"pkg:deb/debian/{name}@{version}?arch=amd64&distro={DISTRO}", name, version)
        changes = (release + index % 10) // 10
        name, version = self.os_names[index], f"1.{index % 7}.{changes}-1"
        return Package(f"pkg:deb/debian/{name}@{version}?arch=amd64&distro={DISTRO}", name, version)

    def _language(self, index: int, age: int) -> Package:
        if index < 4 * len(_KNOWN_PYPI):
            name, old, new = _KNOWN_PYPI[index // 4]
            return Package(f"pkg:pypi/{name}@{new if age % 2 else old}")
        kind = "npm" if index % 2 else "pypi"
        return Package(f"pkg:{kind}/{self.app_names[index]}@{1 + age % 5}.{age}.0")
