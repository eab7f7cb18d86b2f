"""Chain ids: one value that identifies a list of layers."""

from __future__ import annotations

import hashlib

from lifecycle.oci.chains import TRAPS, chain_ids

A, B, C = ("sha256:" + character * 64 for character in "abc")


def test_chain_ids_follow_the_image_spec():
    second = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {C}".encode()).hexdigest()
    assert chain_ids([A, B, C]) == [A, second, third]
    assert second == "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c"


def test_unknown_layer_ends_the_chain():
    assert chain_ids([A, None, C]) == [A, "", ""]
    assert chain_ids(["", B]) == ["", ""]
    assert chain_ids([]) == []


def test_order_and_number_of_layers_change_the_chain():
    assert len({chain_ids(ids)[-1] for ids in ([A, B], [B, A], [A, A], [A], [A, B, A])}) == 5


def test_empty_tar_is_a_trap():
    empty_tar = "sha256:" + hashlib.sha256(bytes(1024)).hexdigest()
    assert empty_tar in TRAPS
