"""Chain ids: one equality in place of a comparison of lists."""

from __future__ import annotations

import hashlib

from lifecycle.lineage.chains import TRAPS, chain_ids, is_evidence, top_chain_id

A, B, C = ("sha256:" + character * 64 for character in "abc")


def test_chain_ids_are_those_of_the_image_spec():
    second = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {C}".encode()).hexdigest()
    assert chain_ids([A, B, C]) == [A, second, third]


def test_an_unknown_layer_ends_the_chain():
    assert chain_ids([A, None, C]) == [A, "", ""]
    assert chain_ids(["", B]) == ["", ""]
    assert top_chain_id([A, ""]) == ""
    assert top_chain_id([]) == ""


def test_order_and_number_of_layers_change_the_chain():
    assert len({top_chain_id(ids) for ids in ([A, B], [B, A], [A, A], [A], [A, B, A])}) == 5


def test_only_traps_shared_is_no_evidence():
    assert not is_evidence(TRAPS)
    assert not is_evidence([None, ""])
    assert is_evidence([*TRAPS, A])
    empty_tar = "sha256:" + hashlib.sha256(bytes(1024)).hexdigest()
    assert empty_tar in TRAPS
