"""Strategies for fuzzers of parsers: any JSON value, and valid documents of which a part is changed."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

# Python's json module writes lone surrogates as escapes, which real documents can contain too.
TEXTS = st.text(max_size=12) | st.sampled_from(["", "0", "*", "\0", "\ud800", "a" * 600, "2.6.0-NA", "1:2-3", "é"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS


def json_values() -> st.SearchStrategy[Any]:
    """Return a strategy for any JSON value, of a bounded size."""
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=12,
    )


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key or index) of every value below `value`."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in pairs for place in [(value, key), *_places(inner)]]


@st.composite
def mutated(draw: st.DrawFn, valid: dict[str, Any], leaves: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Return a copy of `valid` in which up to three values are replaced, repeated or removed."""
    document = copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, 3))):
        places = _places(document)
        if not places:
            break
        container, key = places[draw(st.integers(0, len(places) - 1))]
        action = draw(st.sampled_from(["replace", "leaf", "remove", "repeat"]))
        if action == "remove":
            del container[key]
        elif action == "repeat":
            container[key] = [container[key], copy.deepcopy(container[key])]
        else:
            container[key] = draw(leaves if action == "leaf" else json_values())
    return document
