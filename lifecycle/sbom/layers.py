"""Find the layer of each Debian and Alpine package from the tar files of the layers. These files are untrusted.

Both package managers rewrite their whole database on each change, so the last layer that wrote it is not the origin of
its packages. dpkg also keeps one record per package. For apk, each database is compared with the one below. The
databases of rpm are binary files that only its own library should parse (SQLite, ndb, Berkeley DB). Its packages get
the layer that syft names, which is the last one that wrote the database.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

from lifecycle.core.errors import LimitExceeded

UNPACKED_MAX: Final = 32 * 1024**3  # bytes of one image's layers, unpacked
MEMBERS_MAX: Final = 3_000_000
DATABASE_MAX: Final = 64 * 1024**2  # of one apk database; 15,000 packages with their files take about half of it
HEADER_MAX: Final = 1024 * 1024  # bytes of one extended header; tarfile reads the whole header into memory

_LIST: Final = re.compile(r"(?:\./)*var/lib/dpkg/info/([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\.list")
_APK: Final = re.compile(r"(?:\./)*(?:usr/)?lib/apk/db/installed")
_STATUS_D: Final = re.compile(r"(?:\./)*var/lib/dpkg/status\.d/([a-z0-9][a-z0-9+.-]*)")
_EXTENDED: Final = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


class _Member(tarfile.TarInfo):
    """A tar member that rejects large extended headers."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > HEADER_MAX:
            raise LimitExceeded(f"A tar header is longer than {HEADER_MAX} bytes.")
        if self.size > UNPACKED_MAX:  # tarfile skips a file in small blocks, also past the end: for hours
            raise LimitExceeded(f"A layer contains a file that claims more than {UNPACKED_MAX} bytes.")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]  # typeshed does not have this method


class _Counted(io.RawIOBase):
    """A stream with a limit on the bytes read from all layers together."""

    def __init__(self, source: IO[bytes], budget: list[int]) -> None:
        self._source = source
        self._budget = budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(min(size, 1024 * 1024) if size >= 0 else 1024 * 1024)
        self._budget[0] -= len(content)
        if self._budget[0] < 0:
            raise LimitExceeded(f"The unpacked layers are larger than {UNPACKED_MAX} bytes.")
        return content


def package_of_path(path: str) -> str:
    """Return the name of the Debian package that the file at `path` records, or "" for any other path."""
    match = _LIST.fullmatch(path) or _STATUS_D.fullmatch(path)
    return match[1] if match else ""


def package_positions(layers: Iterable[Path | None]) -> dict[tuple[str, str], int]:
    """Return {(type in syft, package): position of the layer with the final copy}.

    `layers` are the files of the layers, base first, None for unreadable ones. deb: the topmost layer that wrote the
    package's record. dpkg writes `info/<package>.list` at each installation and upgrade, and distroless images have a
    file in `status.d`. apk: the first layer whose database has the final entry. Only gzip and plain tar layers are
    read; others are skipped. Nothing is unpacked to disk. Raises LimitExceeded.
    """
    positions: dict[tuple[str, str], int] = {}
    installed: dict[str, tuple[int, str]] = {}  # apk: name -> (layer, version and checksum)
    budget, members = [UNPACKED_MAX], 0
    for position, path in enumerate(layers):
        if path is None:
            continue
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            source: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_gzip else raw  # type: ignore[assignment]  # GzipFile is not typed as IO
            try:
                with tarfile.open(fileobj=_Counted(source, budget), mode="r|", tarinfo=_Member) as archive:
                    while (member := archive.next()) is not None:
                        archive.members = []  # type: ignore[attr-defined]  # otherwise, all members of all layers stay in memory
                        members += 1
                        if members > MEMBERS_MAX:
                            raise LimitExceeded(f"The layers contain more than {MEMBERS_MAX} files.")
                        if not member.isreg():
                            continue
                        if name := package_of_path(member.name):
                            positions["deb", name] = position
                        elif _APK.fullmatch(member.name) and (file := archive.extractfile(member)) is not None:
                            installed = _apk_entries(file, position, installed)
            except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError):
                continue  # a broken or unknown format; the results up to this point are kept
    positions.update({("apk", name): position for name, (position, _) in installed.items()})
    return positions


def _apk_entries(file: IO[bytes], position: int, below: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Return the entries of a database. An entry with the same version and checksum below keeps its layer."""
    content = file.read(DATABASE_MAX + 1)
    if len(content) > DATABASE_MAX:
        raise LimitExceeded(f"A package database is larger than {DATABASE_MAX} bytes.")
    entries: dict[str, tuple[int, str]] = {}
    for block in content.decode(errors="replace").split("\n\n"):
        words = dict(line.split(":", 1) for line in block.splitlines() if line[:2] in {"P:", "V:", "C:"})
        if name := words.get("P", "").strip():
            entry = f"{words.get('V', '')} {words.get('C', '')}"  # version and checksum of the control data
            known = below.get(name)
            entries[name] = known if known is not None and known[1] == entry else (position, entry)
    return entries
