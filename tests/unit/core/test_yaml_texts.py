"""YAML of users: which plain scalars are texts, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from lifecycle.cli import yaml_texts
from lifecycle.core.errors import Malformed
from lifecycle.policy.isolation_reading import documents_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1_000", -1000), ("0x10", 16), ("010", 8), ("0b11", 3), ("9" * 19, int("9" * 19)),
        ("9" * 20, "9" * 20), ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("0.5", 0.5), (".5", 0.5), ("1.5e+3", 1500.0),
        ("2027-01-31", "2027-01-31"), ("2027-01-31T00:00:00Z", "2027-01-31T00:00:00Z"), ("yes", True), ("off", False),
        ("~", None), ("", None), (".inf", ".inf"), ("'1'", "1"), ('{"a": [1, null]}', {"a": [1, None]}),
        ("<<: {a: 1}\nb: 2", {"a": 1, "b": 2}),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: Any) -> None:
    found = yaml_texts.load(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "c is there twice"),
        ("[{a: 1}, {a: 1, 'a': 2}]", "a is there twice"),
        ("? [a]\n: 1", "a key is a text"),
        ("&a x: 1\n*a : 2", "a key is a text"),
        ("!!int 1:30", "this is no int"),
        ("!!int 0x_", "this is no int"),
        ("!!float 1:30.5", "this is no float"),
        ("!!binary aaaa", "could not determine a constructor"),
        ("!!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(yaml.YAMLError, match=says):
        yaml_texts.load(text)


def test_same_key_in_two_objects_is_fine() -> None:
    assert yaml_texts.load("a: {b: 1, c: [{b: 1}]}\nb: {a: 1}") == {"a": {"b": 1, "c": [{"b": 1}]}, "b": {"a": 1}}


def test_long_numbers_take_no_time() -> None:
    long = "1" + ":1" * 400_000
    begin = time.process_time()
    assert documents_of(f"a: {long}") == [{"a": long}]
    with pytest.raises(yaml.YAMLError):
        yaml_texts.load(f"!!int {long}")
    assert time.process_time() - begin < 5  # base 60 took minutes


def test_manifests_with_doubled_keys_are_refused() -> None:
    with pytest.raises(Malformed, match="in line 2: kind is there twice"):
        documents_of("kind: Pod\nkind: Job\n")
