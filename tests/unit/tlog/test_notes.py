"""Notes, checkpoints and canonical JSON, compared with vectors of their specifications."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lifecycle.tlog.canonical import canonical
from lifecycle.tlog.notes import Checkpoint, NoteRefused, VerifierKey, proof_text
from lifecycle.tlog.tree import Tree, grown, hash_of_entry, reader_of

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NOTE = """lifecycle.example/audit
3
NmQuc8JUCrEh46a/lUWwokmCzYMOsT080Z3jzmwCHsE=

— lifecycle.example/audit 3aO6OQPgH68CYsSwHkQx7DWymKNlDwZ1flPA7jp4gi7OnmgiM8pyLWpUXu6s2okqxdE/YZQWRugdSBVDtFNpg+a6KQ8=
"""
VKEY = "lifecycle.example/audit+dda3ba39+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"


def test_checkpoint_of_three_entries_is_the_known_one() -> None:
    tiles = grown(reader_of({}), 0, [hash_of_entry(entry) for entry in (b"a", b"b", b"c")])
    head = Checkpoint("lifecycle.example/audit", 3, Tree(reader_of(tiles), 3).root())
    assert head.signed(KEY) == NOTE
    assert str(VerifierKey(head.origin, KEY.public_key())) == VKEY
    assert Checkpoint.parse(VerifierKey.parse(VKEY).text_of(NOTE)) == head


def test_published_example_of_the_signed_note_is_verified() -> None:
    """The example of golang.org/x/mod/sumdb/note."""
    key = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    assert key.text_of(f"{text}\n— PeterNeumann {line}\n") == text


@pytest.mark.parametrize(
    "note",
    [
        NOTE.replace("\n3\n", "\n4\n"),  # another size
        NOTE.replace("3aO6OQPg", "3aO6OQPh"),  # another signature
        NOTE.replace("— lifecycle.example/audit", "— other.example/audit"),  # nobody we know signed
        NOTE.replace("—", "-"),
        NOTE.rstrip("\n"),
        "",
    ],
)
def test_other_notes_are_refused(note: str) -> None:
    with pytest.raises(NoteRefused):
        VerifierKey.parse(VKEY).text_of(note)


def test_signatures_of_others_are_ignored() -> None:
    witnessed = NOTE + "— witness.example AAAAAAAA\n"
    assert Checkpoint.parse(VerifierKey.parse(VKEY).text_of(witnessed)).size == 3


@pytest.mark.parametrize("text", ["a\n03\nAAAA\n", "a\n3\n\n", "a\n-1\nAAAA\n", "a\nx\nAAAA\n", "\n3\nAAAA\n", "a"])
def test_other_texts_are_no_checkpoint(text: str) -> None:
    with pytest.raises(NoteRefused):
        Checkpoint.parse(text)


@pytest.mark.parametrize("text", ["", "a+b+c", VKEY.replace("dda3", "dda4"), VKEY[:-2]])
def test_other_texts_are_no_key(text: str) -> None:
    with pytest.raises(NoteRefused):
        VerifierKey.parse(text)


def test_proof_has_the_form_of_the_specification() -> None:
    assert proof_text(7, [b"\x00" * 32], NOTE) == (f"c2sp.org/tlog-proof@v1\nindex 7\n{'A' * 43}=\n\n{NOTE}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # RFC 8785, 3.2.2 and 3.2.3
        (
            {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
             "string": '\u20ac$\u000f\u000aA\'\u0042\u0022\u005c\\"/', "literals": [None, True, False]},
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
        ),
        (
            {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7},
            '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"\U0001f600":5,"\ufb33":3}',
        ),
        ([0.0, -0.0, 1.0, 1e21, 1e20, 123456.789, 1e-6, 1e-7, -5e-324, 9007199254740993], None),
        ({"b": [{}, [], ""], "a": "\x7f\u2028"}, '{"a":"\x7f\u2028","b":[{},[],""]}'),
    ],
)  # fmt: skip
def test_json_has_one_spelling(value: object, text: str | None) -> None:
    if text is None:
        text = "[0,0,1,1e+21,100000000000000000000,123456.789,0.000001,1e-7,-5e-324,9007199254740993]"
    assert canonical(value).decode() == text
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical(value)
