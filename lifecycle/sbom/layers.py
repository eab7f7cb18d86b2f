"""Read what Debian's and Alpine's package managers recorded in the layers: which layer added a package, and its files.

The files are untrusted. Both package managers rewrite their whole database on each change, so the last layer that wrote
it is not the origin of its packages. dpkg also keeps one record per package. For apk, each database is compared with
the one below. The databases of rpm are binary files that only its own library should parse (SQLite, ndb, Berkeley DB).
Its packages get the layer that syft names, which is the last one that wrote the database.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from lifecycle.core.errors import LimitExceeded
from lifecycle.oci import layer_files
from lifecycle.oci.layer_files import MEMBERS_MAX, UNPACKED_MAX, Budget

DATABASE_MAX: Final = 64 * 1024**2  # of one apk database or list of files; 15,000 packages take about half of it
_LIST: Final = re.compile(r"(?:\./)*var/lib/dpkg/info/([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\.list")
_APK: Final = re.compile(r"(?:\./)*(?:usr/)?lib/apk/db/installed")
_STATUS_D: Final = re.compile(r"(?:\./)*var/lib/dpkg/status\.d/([a-z0-9][a-z0-9+.-]*)")
_SUMS: Final = ".md5sums"  # of distroless images: the files of the package, beside its record
_ROOT: Final = re.compile(r"^(?:\.?/)+")
_MERGED: Final = ("bin/", "lib/", "lib32/", "lib64/", "sbin/")  # links to the same folders below usr/

PackageName = tuple[str, str]  # (type in syft, name)


@dataclass(slots=True)
class Records:
    """What the layers say about the packages of a distribution.

    `positions`: the layer with the final copy of each package. `owners`: the package that installed a file.
    """

    positions: dict[PackageName, int] = field(default_factory=dict)
    owners: dict[str, PackageName] = field(default_factory=dict)


class Visitor(Protocol):
    """Something else that looks at the files of the layers in the same pass."""

    def begin(self, position: int) -> None: ...
    def visit(self, member: tarfile.TarInfo, content: Callable[[], IO[bytes] | None]) -> None: ...
    def unreadable(self, position: int) -> None: ...


def package_of_path(path: str) -> str:
    """Return the name of the Debian package that the file at `path` records, or "" for any other path."""
    match = _LIST.fullmatch(path) or _STATUS_D.fullmatch(path)
    return match[1] if match else ""


def same_path(path: str) -> str:
    """Return a path in one form: without a leading slash, and with `usr/` where distributions merged a folder."""
    path = _ROOT.sub("", path)
    return f"usr/{path}" if path.startswith(_MERGED) else path


def package_records(
    layers: Iterable[Path | None], wanted: Collection[str] = (), visitor: Visitor | None = None
) -> Records:
    """Return which layer added each Debian and Alpine package, and the owners of the `wanted` paths (`same_path`).

    `layers` are the files of the layers, base first, None for unreadable ones. deb: the topmost layer that wrote the
    package's record. dpkg writes `info/<package>.list` at each installation and upgrade, and distroless images have a
    file in `status.d`. apk: the first layer whose database has the final entry. Layers in an unknown format are
    skipped. Nothing is unpacked to disk. `visitor` sees each member of each layer. Raises LimitExceeded.
    """
    reader = _Reader(frozenset(wanted))
    budget = Budget(UNPACKED_MAX, MEMBERS_MAX)
    for position, path in enumerate(layers):
        if visitor is not None:
            visitor.begin(position)
        if path is None:
            if visitor is not None:
                visitor.unreadable(position)
            continue
        with path.open("rb") as layer:
            try:
                for archive, member in layer_files.members(layer, budget):
                    _read_member(reader, visitor, archive, member, position)
            except layer_files.UNREADABLE:  # a broken or unknown format; the results up to this point are kept
                if visitor is not None:
                    visitor.unreadable(position)
    return reader.records()


def _read_member(
    reader: _Reader, visitor: Visitor | None, archive: tarfile.TarFile, member: tarfile.TarInfo, position: int
) -> None:
    read = reader.reader_of(member.name) if member.isreg() else None
    if read is None:
        if visitor is not None:
            visitor.visit(member, lambda: archive.extractfile(member))
        return
    file = archive.extractfile(member)
    if file is not None and visitor is None:
        read(file, position)
    elif file is not None and visitor is not None:  # a layer is a stream, so a file is read once, for both
        content = file.read(DATABASE_MAX + 1)
        read(io.BytesIO(content), position)
        visitor.visit(member, lambda: io.BytesIO(content))


class _Reader:
    """The records read so far. A later layer replaces what an earlier one says about a package."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._debian: dict[str, int] = {}
        self._debian_files: dict[str, set[str]] = {}
        self._alpine: dict[str, tuple[int, str]] = {}  # name -> (layer, version and checksum)
        self._alpine_files: dict[str, set[str]] = {}

    def reader_of(self, path: str) -> Callable[[IO[bytes], int], None] | None:
        """Return the function that reads the file at `path`, or None for files that are no records."""
        if _APK.fullmatch(path):
            return self._read_alpine
        if not (name := package_of_path(path)):
            return None
        if not path.endswith(_SUMS):
            return lambda file, position: self._read_debian(name, file, position, is_list=path.endswith(".list"))
        return lambda file, _: self._read_sums(name.removesuffix(_SUMS), file)

    def _read_debian(self, name: str, file: IO[bytes], position: int, *, is_list: bool) -> None:
        self._debian[name] = position
        if is_list and self._wanted:
            self._debian_files[name] = self._wanted_of(_text(file).splitlines())

    def _read_sums(self, name: str, file: IO[bytes]) -> None:
        if self._wanted:
            lines = (line.partition("  ")[2] for line in _text(file).splitlines())
            self._debian_files.setdefault(name, set()).update(self._wanted_of(lines))

    def _read_alpine(self, file: IO[bytes], position: int) -> None:
        """Read a database. An entry with the same version and checksum as below keeps its layer."""
        entries: dict[str, tuple[int, str]] = {}
        files: dict[str, set[str]] = {}
        for block in _text(file).split("\n\n"):
            lines = block.splitlines()
            words = dict(line.split(":", 1) for line in lines if line[:2] in {"P:", "V:", "C:"})
            if name := words.get("P", "").strip():
                entry = f"{words.get('V', '')} {words.get('C', '')}"  # version and checksum of the control data
                below = self._alpine.get(name)
                entries[name] = below if below is not None and below[1] == entry else (position, entry)
                files[name] = self._wanted_of(_alpine_paths(lines)) if self._wanted else set()
        self._alpine, self._alpine_files = entries, files

    def _wanted_of(self, paths: Iterable[str]) -> set[str]:
        return set(self._wanted.intersection(map(same_path, paths)))

    def records(self) -> Records:
        """Return what the last layer leaves."""
        records = Records()
        records.positions = {("deb", name): position for name, position in self._debian.items()}
        records.positions.update({("apk", name): position for name, (position, _) in self._alpine.items()})
        for kind, files in (("deb", self._debian_files), ("apk", self._alpine_files)):
            records.owners.update({path: (kind, name) for name, paths in files.items() for path in paths})
        return records


def _alpine_paths(lines: Iterable[str]) -> Iterator[str]:
    """Yield the paths in one entry of apk's database: `F:` is a folder, `R:` a file in it."""
    folder = ""
    for line in lines:
        if line.startswith("F:"):
            folder = line[2:]
        elif line.startswith("R:"):
            yield f"{folder}/{line[2:]}"


def _text(file: IO[bytes]) -> str:
    content = file.read(DATABASE_MAX + 1)
    if len(content) > DATABASE_MAX:
        raise LimitExceeded(f"A package database is larger than {DATABASE_MAX} bytes.")
    return content.decode(errors="replace")
