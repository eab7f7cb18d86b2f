"""The tree over tiles agrees with RFC 6962 computed from its definition, and proofs prove what they should."""

from __future__ import annotations

import hashlib

import pytest

from lifecycle.tlog.tiles import ENTRIES, TileName, bundle, names_between
from lifecycle.tlog.tree import EMPTY_ROOT, Tree, TreeBroken, grown, hash_of_entry, reader_of

SIZES = (1, 2, 3, 7, 8, 255, 256, 257, 511, 513, 1000)


def leaf(index: int) -> bytes:
    return hash_of_entry(str(index).encode())


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


def root_of_path(index: int, size: int, value: bytes, path: list[bytes]) -> bytes:
    """RFC 9162, 2.1.3.2: an algorithm of another shape than the one that makes the path."""
    number, last = index, size - 1
    for other in path:
        assert last > 0
        if number & 1 or number == last:
            value = hashlib.sha256(b"\x01" + other + value).digest()
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            value = hashlib.sha256(b"\x01" + value + other).digest()
        number, last = number >> 1, last >> 1
    assert last == 0
    return value


def roots_of_consistency(old: int, new: int, old_root: bytes, proof: list[bytes]) -> tuple[bytes, bytes]:
    """RFC 9162, 2.1.4.2: the roots of the old and the new tree that a proof leads to."""
    if old == new:
        return old_root, old_root
    parts = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    first = second = parts[0]
    for part in parts[1:]:
        assert last > 0
        if number & 1 or number == last:
            first = hashlib.sha256(b"\x01" + part + first).digest()
            second = hashlib.sha256(b"\x01" + part + second).digest()
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            second = hashlib.sha256(b"\x01" + second + part).digest()
        number, last = number >> 1, last >> 1
    assert last == 0
    return first, second


def tree_of(size: int, batch: int) -> Tree:
    """A tree that grew in batches."""
    tiles: dict[tuple[int, int], bytes] = {}
    for start in range(0, size, batch):
        tiles |= grown(reader_of(tiles), start, [leaf(i) for i in range(start, min(size, start + batch))])
    return Tree(reader_of(tiles), size)


@pytest.mark.parametrize("batch", [1, 7, 256, 1000])
def test_tree_has_the_root_of_the_rfc_for_each_size(batch: int) -> None:
    tree = tree_of(1000, batch)
    leaves = [leaf(i) for i in range(1000)]
    assert tree.root(0) == EMPTY_ROOT
    assert all(tree.root(size) == plain_root(leaves[:size]) for size in SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_leads_to_the_root_and_only_from_the_right_place(size: int) -> None:
    tree = tree_of(1000, 256)
    for index in {0, 1, size // 2, size - 1} & set(range(size)):
        path = tree.inclusion(index, size)
        assert root_of_path(index, size, leaf(index), path) == tree.root(size)
        assert root_of_path(index, size, leaf(index + 1), path) != tree.root(size)
    with pytest.raises(IndexError):
        tree.inclusion(size, size)


@pytest.mark.parametrize("size", SIZES)
def test_consistency_leads_to_both_roots(size: int) -> None:
    tree = tree_of(1000, 256)
    for old in sorted({1, 2, size // 2, size - 1, size} & set(range(1, size + 1))):
        proof = tree.consistency(old, size)
        assert roots_of_consistency(old, size, tree.root(old), proof) == (tree.root(old), tree.root(size))


def test_missing_tile_is_no_tree() -> None:
    tiles = grown(reader_of({}), 0, [leaf(i) for i in range(300)])
    del tiles[0, 1]
    with pytest.raises(TreeBroken):
        Tree(reader_of(tiles), 300).root()
    with pytest.raises(TreeBroken):
        grown(reader_of(tiles), 300, [leaf(300)])
    assert len(Tree(reader_of(tiles), 256).root()) == 32


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (TileName(0, 0), "0/000"),
        (TileName(0, 1234067), "0/x001/x234/067"),
        (TileName(2, 1000, 7), "2/x001/000.p/7"),
        (TileName(ENTRIES, 5, 255), "entries/005.p/255"),
    ],
)
def test_tiles_are_spelled_as_the_specification_does(name: TileName, path: str) -> None:
    assert str(name) == path
    assert TileName.parse(path) == name


@pytest.mark.parametrize(
    "path", ["", "0/0", "0/0000", "64/000", "00/000", "0/x000/001", "0/000.p/256", "0/000.p/0", "0/000/", "../000"]
)
def test_other_paths_name_no_tile(path: str) -> None:
    assert TileName.parse(path) is None


def test_only_tiles_that_changed_are_written_again() -> None:
    names = [str(name) for name in names_between(255, 513)]
    assert names == ["entries/000", "entries/001", "entries/002.p/1", "0/000", "0/001", "0/002.p/1", "1/000.p/2"]
    assert list(names_between(513, 513)) == []


def test_bundle_gives_lengths_in_16_bits() -> None:
    assert bundle([b"a", b"", b"bc"]) == b"\x00\x01a\x00\x00\x00\x02bc"
