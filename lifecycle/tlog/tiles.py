"""Names and contents of the files of a log: https://c2sp.org/tlog-tiles."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from lifecycle.tlog.tree import TILE_HEIGHT, TILE_WIDTH

ENTRY_MAX_BYTES: Final = 65_535  # an entry bundle gives the length of each entry in 16 bits
ENTRIES: Final = -1  # in place of a level: the entries themselves
_PATH: Final = re.compile(r"(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True, slots=True)
class TileName:
    """A tile: its level (or ENTRIES), its number in the level, and how many hashes or entries it holds, 1 to 256."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @classmethod
    def parse(cls, path: str) -> Self | None:
        """Return the tile of the path below `tile/`; None for any other text, also for a second spelling."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        level = ENTRIES if found[1] == "entries" else int(found[1])
        width = int(found[3]) if found[3] else TILE_WIDTH
        name = cls(level, int(found[2].replace("x", "").replace("/", "")), width)
        return name if str(name) == path else None

    def __str__(self) -> str:
        number, text = divmod(self.number, 1000)[0], f"{self.number % 1000:03d}"
        while number:
            number, part = divmod(number, 1000)
            text = f"x{part:03d}/{text}"
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"{level}/{text}" + (f".p/{self.width}" if self.width < TILE_WIDTH else "")


def names_between(old: int, new: int) -> Iterator[TileName]:
    """Yield the tiles that are new or wider in a tree of `new` entries than in one of `old`, entries first."""
    yield from _names_of_level(ENTRIES, old, new)
    level = 0
    while new >> (TILE_HEIGHT * level):
        yield from _names_of_level(level, old >> (TILE_HEIGHT * level), new >> (TILE_HEIGHT * level))
        level += 1


def _names_of_level(level: int, old: int, new: int) -> Iterator[TileName]:
    if old == new:
        return
    for number in range(old // TILE_WIDTH, -(-new // TILE_WIDTH)):
        yield TileName(level, number, min(TILE_WIDTH, new - number * TILE_WIDTH))


def bundle(entries: Iterable[bytes]) -> bytes:
    """Return an entry bundle: each entry after its length. Raises struct.error for one over ENTRY_MAX_BYTES."""
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)
