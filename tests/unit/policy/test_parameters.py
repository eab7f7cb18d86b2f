"""Parameters of rules: what is accepted at its limits, and which of two values is stricter."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from lifecycle.core.errors import Malformed
from lifecycle.policy.catalogue import KINDS
from lifecycle.policy.parameters import NUMBER_MAX, TEXT_MAX, TEXTS_MAX, Parameter, Stricter, Type

REFUSED = object()


def parameter(type_: Type, stricter: Stricter = Stricter.SAME, **more: object) -> Parameter:
    return Parameter("p", type_, "Title", stricter, **more)


@pytest.mark.parametrize(
    ("type_", "given", "wanted"),
    [
        (Type.NUMBER, 0, 0),
        (Type.NUMBER, NUMBER_MAX, NUMBER_MAX),
        (Type.NUMBER, NUMBER_MAX + 1, REFUSED),
        (Type.NUMBER, -1, REFUSED),
        (Type.NUMBER, "7", 7),
        (Type.NUMBER, "000000007", 7),
        (Type.NUMBER, "0000000007", REFUSED),  # ten digits: nobody means this
        (Type.NUMBER, "-1", REFUSED),
        (Type.NUMBER, "1.5", REFUSED),
        (Type.NUMBER, "\u0663", REFUSED),  # a digit, but not of ours
        (Type.NUMBER, "x", REFUSED),
        (Type.NUMBER, 1.0, REFUSED),
        (Type.NUMBER, True, REFUSED),
        (Type.FLAG, True, True),
        (Type.FLAG, False, False),
        (Type.FLAG, 1, REFUSED),
        (Type.FLAG, "true", REFUSED),
        (Type.TEXT, " x ", "x"),
        (Type.TEXT, "x" * TEXT_MAX, "x" * TEXT_MAX),
        (Type.TEXT, "x" * (TEXT_MAX + 1), REFUSED),
        (Type.TEXT, " ", REFUSED),
        (Type.TEXT, "a\x00b", REFUSED),
        (Type.TEXT, 1, REFUSED),
        (Type.TEXTS, "b\n\n a \nb", ("a", "b")),
        (Type.TEXTS, ["b", "", " ", "a", "b"], ("a", "b")),
        (Type.TEXTS, ("b",), ("b",)),
        (Type.TEXTS, [f"{n:02}" for n in range(TEXTS_MAX)], tuple(f"{n:02}" for n in range(TEXTS_MAX))),
        (Type.TEXTS, ["x"] * (TEXTS_MAX + 1), REFUSED),
        (Type.TEXTS, [" "], REFUSED),
        (Type.TEXTS, "\n", REFUSED),
        (Type.TEXTS, ["x", 1], REFUSED),
        (Type.TEXTS, ["x", "y" * (TEXT_MAX + 1)], REFUSED),
        (Type.TEXTS, {"x": 1}, REFUSED),
        (Type.TEXTS, 1, REFUSED),
        (Type.SEVERITY, "low", "low"),
        (Type.SEVERITY, "none", REFUSED),
        (Type.SEVERITY, "unknown", REFUSED),
    ],
)
def test_value_is_stored_or_refused_with_what_is_wanted(type_, given, wanted):
    words = {
        Type.NUMBER: "Title: enter a whole number from 0 to 100000.",
        Type.FLAG: "Title: enter true or false.",
        Type.TEXT: "Title: enter a text of at most 2000 characters.",
        Type.TEXTS: "Title: enter a list of at most 50 texts.",
        Type.SEVERITY: "Title: choose one of critical, high, medium, low.",
    }
    if wanted is REFUSED:
        with pytest.raises(Malformed) as refused:
            parameter(type_).clean(given)
        assert refused.value.message == words[type_]
    else:
        found = parameter(type_).clean(given)
        assert (found, type(found)) == (wanted, type(wanted))


def test_number_has_the_maximum_of_its_parameter():
    hours = parameter(Type.NUMBER, maximum=5)
    assert hours.clean(5) == 5
    with pytest.raises(Malformed, match="from 0 to 5"):
        hours.clean(6)


@pytest.mark.parametrize("empty", [None, "", [], ()])
def test_empty_value_is_the_default(empty):
    assert parameter(Type.NUMBER, default=3).clean(empty) == 3
    assert parameter(Type.NUMBER).clean(empty) is None


@pytest.mark.parametrize(
    ("default", "empty", "is_refused"),
    [((), None, True), (None, None, True), (3, None, False), ((), "", True), (3, "", True), (3, [], True)],
)
def test_required_value_must_be_given_or_left_to_its_default(default, empty, is_refused):
    required = parameter(Type.NUMBER, default=default, is_required=True)
    if is_refused:
        with pytest.raises(Malformed) as refused:
            required.clean(empty)
        assert refused.value.message == "Title: enter a value."
    else:
        assert required.clean(empty) == default


# (type, order, the stricter value, the looser one)
ORDERS = [
    (Type.NUMBER, Stricter.LOWER, 1, 2),
    (Type.NUMBER, Stricter.LOWER, 0, None),  # no number is no limit
    (Type.NUMBER, Stricter.HIGHER, 2, 1),
    (Type.NUMBER, Stricter.HIGHER, 0, None),
    (Type.TEXTS, Stricter.MORE, ("a", "b"), ("a",)),
    (Type.TEXTS, Stricter.FEWER, ("a",), ("a", "b")),
    (Type.FLAG, Stricter.ON, True, False),
    (Type.FLAG, Stricter.OFF, False, True),
    (Type.SEVERITY, Stricter.MILDER, "low", "critical"),
    (Type.SEVERITY, Stricter.MILDER, "medium", "high"),
]


@pytest.mark.parametrize(("type_", "order", "strict", "loose"), ORDERS)
def test_stricter_value_wins_whoever_comes_first(type_, order, strict, loose):
    one = parameter(type_, order)
    assert one.strictest(strict, loose) == one.strictest(loose, strict) == strict
    assert one.strictest(strict, strict) == strict
    assert one.is_as_strict(strict, loose)
    assert not one.is_as_strict(loose, strict)
    assert one.is_as_strict(loose, loose)


def test_every_order_is_in_the_table_above():
    assert {order for _, order, _, _ in ORDERS} | {Stricter.SAME} == set(Stricter)


@pytest.mark.parametrize(("order", "both"), [(Stricter.MORE, ("a", "b")), (Stricter.FEWER, ())])
def test_of_two_lists_without_an_order_neither_is_as_strict(order, both):
    lists = parameter(Type.TEXTS, order)
    assert lists.strictest(("b",), ("a",)) == both
    assert not lists.is_as_strict(("a",), ("b",))
    assert not lists.is_as_strict(("b",), ("a",))


def test_value_without_order_is_as_strict_only_as_itself():
    text = parameter(Type.TEXT)
    assert text.is_as_strict("a", "a")
    assert not text.is_as_strict("a", "b")
    assert text.strictest("a", "a") == "a"
    with pytest.raises(ValueError, match="p has no order"):
        text.strictest("a", "b")


SAMPLES = {
    Type.NUMBER: (0, 1, 7),
    Type.FLAG: (True, False),
    Type.TEXT: ("a", "b"),
    Type.TEXTS: (("a",), ("b",), ("a", "b")),
    Type.SEVERITY: ("critical", "high", "medium", "low"),
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_strictness_of_each_parameter_is_an_order_with_a_lowest_common_bound(name):
    for item in KINDS[name].parameters:
        samples = (*SAMPLES[item.type], None) if item.default is None else SAMPLES[item.type]
        for one, other in product(samples, repeat=2):
            if item.stricter is Stricter.SAME:
                assert item.is_as_strict(one, other) == (one == other)
                continue
            both = item.strictest(one, other)
            assert item.is_as_strict(both, one)
            assert item.is_as_strict(both, other)
            assert item.strictest(other, one) == both
        for one, other in combinations(samples, 2):
            assert not (item.is_as_strict(one, other) and item.is_as_strict(other, one))
