"""What proofs of a Merkle tree lead to: RFC 9162, 2.1.3.2 and 2.1.4.2, for the tree of RFC 6962."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


class BadProof(ValueError):
    """A proof has too few or too many hashes for its place."""


def hash_of_entry(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_by_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root of the tree of `size` entries in which `leaf` is at `index`, if `proof` is right."""
    if not 0 <= index < size:
        raise BadProof("The index is outside of the tree.")
    number, last, value = index, size - 1, leaf
    for other in proof:
        if last == 0:
            raise BadProof("The proof is too long.")
        if number & 1 or number == last:
            value = _node(other, value)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            value = _node(value, other)
        number, last = number >> 1, last >> 1
    if last != 0:
        raise BadProof("The proof is too short.")
    return value


def roots_by_consistency(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the roots of the trees of `old` and of `new` entries that `proof` leads to."""
    if not 0 < old <= new:
        raise BadProof("The older log is not smaller.")
    if old == new:
        if proof:
            raise BadProof("The proof is too long.")
        return old_root, old_root
    parts = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not parts:
        raise BadProof("The proof is too short.")
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    first = second = parts[0]
    for part in parts[1:]:
        if last == 0:
            raise BadProof("The proof is too long.")
        if number & 1 or number == last:
            first, second = _node(part, first), _node(part, second)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            second = _node(second, part)
        number, last = number >> 1, last >> 1
    if last != 0:
        raise BadProof("The proof is too short.")
    return first, second


class Roots:
    """The roots of a growing tree: add one hash after the other, and ask for the root at any time."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []  # (height, root) of full subtrees, the largest first
        for leaf in leaves:
            self.add(leaf)

    def add(self, leaf: bytes) -> None:
        """Add the hash of the next entry."""
        height, value = 0, leaf
        while self._peaks and self._peaks[-1][0] == height:
            value = _node(self._peaks.pop()[1], value)
            height += 1
        self._peaks.append((height, value))
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all entries so far."""
        if not self._peaks:
            return EMPTY_ROOT
        value = self._peaks[-1][1]
        for _, peak in reversed(self._peaks[:-1]):
            value = _node(peak, value)
        return value
