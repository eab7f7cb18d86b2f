"""The Merkle tree of RFC 6962 over stored tiles: its root, its growth, and proofs of inclusion and consistency.

A tile holds up to 256 hashes of one level: level 0 the hashes of entries, level L + 1 the roots of full tiles of level
L (https://c2sp.org/tlog-tiles). Everything else is computed from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

HASH_BYTES: Final = 32
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()  # RFC 6962, 2.1

# Returns the hashes of the tile (level, index), one after the other; b"" for a tile that is not there.
ReadTile = Callable[[int, int], bytes]


class TreeBroken(ValueError):
    """Stored tiles are missing or too short for the size of the tree."""


def hash_of_entry(entry: bytes) -> bytes:
    """Return the hash of one entry: a leaf of the tree."""
    return hashlib.sha256(b"\x00" + entry).digest()


def hash_of_node(left: bytes, right: bytes) -> bytes:
    """Return the hash of two neighbouring subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def hash_of_subtree(hashes: Sequence[bytes]) -> bytes:
    """Return the root over the hashes of a full subtree, whose number is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [hash_of_node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def split(tile: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    return [tile[i : i + HASH_BYTES] for i in range(0, len(tile), HASH_BYTES)]


def grown(read: ReadTile, size: int, leaves: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """Return {(level, index): hashes} of all tiles that change when `leaves` are added to a tree of `size` entries."""
    changed: dict[tuple[int, int], bytes] = {}
    level, new = 0, list(leaves)
    while new:
        number, width = divmod(size >> (TILE_HEIGHT * level), TILE_WIDTH)
        kept = read(level, number)[: width * HASH_BYTES] if width else b""
        if len(kept) != width * HASH_BYTES:
            raise TreeBroken(f"Tile {level}/{number} is shorter than the tree.")
        row = [*split(kept), *new]
        new = []
        for start in range(0, len(row), TILE_WIDTH):
            hashes = row[start : start + TILE_WIDTH]
            changed[level, number + start // TILE_WIDTH] = b"".join(hashes)
            if len(hashes) == TILE_WIDTH:
                new.append(hash_of_subtree(hashes))
        level += 1
    return changed


class Tree:
    """A tree of `size` entries over stored tiles. Each tile is read once. Raises TreeBroken where one is missing."""

    def __init__(self, read: ReadTile, size: int) -> None:
        self.size = size
        self._read = read
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._nodes: dict[tuple[int, int], bytes] = {}  # inside of tiles: proofs of neighbours share most of them

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` entries, all by default."""
        size = self.size if size is None else size
        return self._range(0, size) if size else EMPTY_ROOT

    def leaf(self, index: int) -> bytes:
        """Return the hash of one entry."""
        return self._node(0, index)

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the audit path of an entry in the tree of `size`: RFC 6962, 2.1.1. Raises IndexError outside of it."""
        size = self.size if size is None else size
        if not 0 <= index < size <= self.size:
            raise IndexError(index)
        low, high = 0, size
        path: list[bytes] = []
        while high - low > 1:
            middle = low + _half(high - low)
            if index < middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the tree of `size` begins with that of `old` entries: RFC 6962, 2.1.2."""
        size = self.size if size is None else size
        if not 0 < old <= size <= self.size:
            raise IndexError(old)
        low, high, is_known = 0, size, True
        proof: list[bytes] = []
        while old != high:
            middle = low + _half(high - low)
            if old <= middle:
                proof.append(self._range(middle, high))
                high = middle
            else:
                proof.append(self._range(low, middle))
                low, is_known = middle, False
        if not is_known:
            proof.append(self._range(low, high))
        return proof[::-1]

    def _range(self, low: int, high: int) -> bytes:
        """Return the root over entries low..high-1, where `low` is a place at which RFC 6962 splits."""
        count = high - low
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            return self._node(level, low >> level)
        middle = low + _half(count)
        return hash_of_node(self._range(low, middle), self._range(middle, high))

    def _node(self, level: int, index: int) -> bytes:
        """Return the root of the full subtree of 2^level entries that begins at index * 2^level."""
        if (level, index) not in self._nodes:
            self._nodes[level, index] = self._computed(level, index)
        return self._nodes[level, index]

    def _computed(self, level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        if height:
            return hash_of_node(self._node(level - 1, index * 2), self._node(level - 1, index * 2 + 1))
        number, offset = divmod(index, TILE_WIDTH)
        if (tile_level, number) not in self._tiles:
            self._tiles[tile_level, number] = self._read(tile_level, number)
        value = self._tiles[tile_level, number][offset * HASH_BYTES : (offset + 1) * HASH_BYTES]
        if len(value) != HASH_BYTES:
            raise TreeBroken(f"Tile {tile_level}/{number} is shorter than the tree.")
        return value


class Growing:
    """A tree that is derived from its entries, without tiles: add one hash after the other, and ask for the root."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []  # (height, root) of full subtrees, the largest first

    def add(self, leaf: bytes) -> None:
        """Add the hash of the next entry."""
        height, value = 0, leaf
        while self._peaks and self._peaks[-1][0] == height:
            value = hash_of_node(self._peaks.pop()[1], value)
            height += 1
        self._peaks.append((height, value))
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all entries so far."""
        if not self._peaks:
            return EMPTY_ROOT
        value = self._peaks[-1][1]
        for _, peak in reversed(self._peaks[:-1]):
            value = hash_of_node(peak, value)
        return value


def reader_of(tiles: Mapping[tuple[int, int], bytes]) -> ReadTile:
    """Return a reader of tiles in memory."""
    return lambda level, index: tiles.get((level, index), b"")


def _half(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)
