"""The one reader of layer files: plain, gzip or zstd tar. The files are untrusted, and nothing is unpacked to disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, cast

import zstandard

from lifecycle.core.errors import LimitExceeded

UNPACKED_MAX: Final = 32 * 1024**3  # bytes of one image's layers, unpacked
MEMBERS_MAX: Final = 3_000_000  # of one image's layers
HEADER_MAX: Final = 1024 * 1024  # bytes of one extended header; tarfile reads the whole header into memory
WINDOW_MAX: Final = 128 * 1024**2  # bytes of memory for a zstd frame; the zstd tool itself reads no larger ones
_READ_MAX: Final = 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"  # bytes 2 to 4 of a frame that readers skip, such as the index of zstd:chunked
# What reading a layer raises when it is damaged, or in no known format.
UNREADABLE: Final = (
    tarfile.TarError, EOFError, OSError, zlib.error, zstandard.ZstdError, ValueError, RecursionError,
)  # fmt: skip
_EXTENDED: Final = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


@dataclass(slots=True)
class Budget:
    """What may still be read from the layers of one image."""

    unpacked_bytes: int = UNPACKED_MAX
    members: int = MEMBERS_MAX

    def take_bytes(self, count: int) -> None:
        """Raise LimitExceeded when more is read than the budget holds."""
        self.unpacked_bytes -= count
        if self.unpacked_bytes < 0:
            raise LimitExceeded("The unpacked layers are too large to read.")

    def take_member(self) -> None:
        """Raise LimitExceeded when there are more members than the budget holds."""
        self.members -= 1
        if self.members < 0:
            raise LimitExceeded("The layers contain too many files.")


class _Member(tarfile.TarInfo):
    """A tar member that rejects large extended headers and impossible sizes."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > HEADER_MAX:
            raise LimitExceeded(f"A tar header is longer than {HEADER_MAX} bytes.")
        if self.size > UNPACKED_MAX:  # tarfile skips a file in small blocks, also past the end: for hours
            raise LimitExceeded(f"A layer contains a file that claims more than {UNPACKED_MAX} bytes.")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]  # typeshed does not have this method


class _Counted(io.RawIOBase):
    """A stream whose bytes are taken from a budget."""

    def __init__(self, source: IO[bytes], budget: Budget) -> None:
        self._source = source
        self._budget = budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(min(size, _READ_MAX) if size >= 0 else _READ_MAX)
        self._budget.take_bytes(len(content))
        return content


def unpacked(layer: IO[bytes]) -> IO[bytes]:
    """Return a stream of the layer's uncompressed bytes, from the format that its first bytes show.

    Reading from it raises one of UNREADABLE for damaged content. It needs a bounded amount of memory.
    """
    magic = layer.read(4)
    layer.seek(0)
    if magic.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=layer))
    if magic == _ZSTD or (magic[1:] == _ZSTD_SKIPPABLE and magic[0] & 0xF0 == 0x50):
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
        return cast(IO[bytes], reader.stream_reader(layer, read_across_frames=True, closefd=False))
    return layer


def members(layer: IO[bytes], budget: Budget) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield each member of a layer, with the archive from which its content can be read before the next one.

    Raises one of UNREADABLE for damaged content, and LimitExceeded.
    """
    counted = cast(IO[bytes], _Counted(unpacked(layer), budget))
    with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # otherwise, all members of all layers stay in memory
            budget.take_member()
            yield archive, member
