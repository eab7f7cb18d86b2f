"""Which layer brought a Debian package: read from the layers' own tars, which strangers wrote."""

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
HEADER_MAX: Final = 1024 * 1024  # of one extended header: tarfile reads these whole into memory

_LIST: Final = re.compile(r"(?:\./)*var/lib/dpkg/info/([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\.list")
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
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


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


def dpkg_positions(layers: Iterable[Path | None]) -> dict[str, int]:
    """Return, by Debian package, the topmost of `layers` (base first; None: not readable) that wrote its record.

    dpkg writes `info/<package>.list` anew at each installation and upgrade, distroless images a file in `status.d`.
    A layer that is no gzip or plain tar says nothing. Nothing is unpacked to disk. Raises LimitExceeded.
    """
    positions: dict[str, int] = {}
    budget, members = [UNPACKED_MAX], 0
    for position, path in enumerate(layers):
        if path is None:
            continue
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            source: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_gzip else raw  # type: ignore[assignment]
            try:
                with tarfile.open(fileobj=_Counted(source, budget), mode="r|", tarinfo=_Member) as archive:
                    while (member := archive.next()) is not None:
                        archive.members = []  # type: ignore[attr-defined]  # else every member of every layer stays in memory
                        members += 1
                        if members > MEMBERS_MAX:
                            raise LimitExceeded(f"The layers hold more than {MEMBERS_MAX} files.")
                        if member.isreg() and (name := package_of_path(member.name)):
                            positions[name] = position
            except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError):
                continue  # a broken or unknown format: what was read until there stays
    return positions
