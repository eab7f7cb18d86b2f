"""Which layer brought a Debian or Alpine package: read from the layers' own tars, which strangers wrote.

Both managers rewrite their whole database whenever they touch it, so the last layer that wrote it says nothing. dpkg
keeps a record of each package beside it; of apk's databases, one is compared with the one below. rpm's are binary
files that only its own library should parse (SQLite, ndb, Berkeley DB): its packages are credited to the layer that
syft names, the last one that wrote the database.
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
HEADER_MAX: Final = 1024 * 1024  # of one extended header: tarfile reads these whole into memory

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
    """A member whose extended headers are small."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > HEADER_MAX:
            raise LimitExceeded(f"A tar header is longer than {HEADER_MAX} bytes.")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]  # typeshed does not have this method


class _Counted(io.RawIOBase):
    """Reads of all layers together, up to a limit."""

    def __init__(self, source: IO[bytes], budget: list[int]) -> None:
        self._source = source
        self._budget = budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(min(size, 1024 * 1024) if size >= 0 else 1024 * 1024)
        self._budget[0] -= len(content)
        if self._budget[0] < 0:
            raise LimitExceeded(f"The layers are longer than {UNPACKED_MAX} bytes, unpacked.")
        return content


def package_of_path(path: str) -> str:
    """Return the Debian package whose own record `path` is; "" for any other path."""
    found = _LIST.fullmatch(path) or _STATUS_D.fullmatch(path)
    return found[1] if found else ""


def package_positions(layers: Iterable[Path | None]) -> dict[tuple[str, str], int]:
    """Return, by (syft's type, package), the layer that brought the copy in force (base first; None: not readable).

    deb: the topmost layer that wrote its record; dpkg writes `info/<package>.list` anew at each installation and
    upgrade, distroless images a file in `status.d`. apk: the layer whose database first has the entry as it is on top.
    A layer that is no gzip or plain tar says nothing. Nothing is unpacked to disk. Raises LimitExceeded.
    """
    positions: dict[tuple[str, str], int] = {}
    installed: dict[str, tuple[int, str]] = {}  # apk: name -> (layer, what the database says of it)
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
                        archive.members = []  # type: ignore[attr-defined]  # else every member of every layer stays in memory
                        members += 1
                        if members > MEMBERS_MAX:
                            raise LimitExceeded(f"The layers hold more than {MEMBERS_MAX} files.")
                        if not member.isreg():
                            continue
                        if name := package_of_path(member.name):
                            positions["deb", name] = position
                        elif _APK.fullmatch(member.name) and (file := archive.extractfile(member)) is not None:
                            installed = _apk_entries(file, position, installed)
            except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError):
                continue  # a broken or unknown format: what was read until there stays
    positions.update({("apk", name): position for name, (position, _) in installed.items()})
    return positions


def _apk_entries(file: IO[bytes], position: int, below: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Return what a database lists; an entry that the one below has too, word for word, keeps its layer."""
    content = file.read(DATABASE_MAX + 1)
    if len(content) > DATABASE_MAX:
        raise LimitExceeded(f"A package database is longer than {DATABASE_MAX} bytes.")
    entries: dict[str, tuple[int, str]] = {}
    for block in content.decode(errors="replace").split("\n\n"):
        words = dict(line.split(":", 1) for line in block.splitlines() if line[:2] in {"P:", "V:", "C:"})
        if name := words.get("P", "").strip():
            said = f"{words.get('V', '')} {words.get('C', '')}"  # the version, and the checksum of its control data
            known = below.get(name)
            entries[name] = known if known is not None and known[1] == said else (position, said)
    return entries
