"""The drawing of a lineage: every line points right, nothing overlaps, and the limit is a refusal."""

from __future__ import annotations

import itertools

import pytest

from lifecycle.pages.lineage.layout import NODE_HEIGHT_PX, NODES_MAX, Edge, Node, columns_of, draw


def test_columns_are_the_longest_way_from_a_root() -> None:
    edges = [("debian", "python"), ("python", "api"), ("debian", "api"), ("debian", "static")]
    assert columns_of(["debian", "python", "api", "static"], edges) == {"debian": 0, "python": 1, "api": 2, "static": 1}


def test_columns_end_when_edges_make_a_circle() -> None:
    assert set(columns_of(["a", "b"], [("a", "b"), ("b", "a")])) == {"a", "b"}


def test_lines_do_not_cross_when_an_order_without_crossings_exists() -> None:
    nodes = [Node(key, column, key) for key, column in (("a", 0), ("b", 0), ("x", 1), ("y", 1))]
    drawing = draw(nodes, [Edge("a", "y"), Edge("b", "x")])
    y = {node.key: node.y for node in drawing.nodes}
    assert (y["a"] - y["b"]) * (y["y"] - y["x"]) > 0


def test_boxes_of_a_column_stand_apart() -> None:
    drawing = draw([Node("root", 0, "root"), *(Node(f"n{i}", 1, f"n{i}") for i in range(9))], [])
    ys = sorted(node.y for node in drawing.nodes if node.column == 1)
    assert all(lower - upper >= NODE_HEIGHT_PX for upper, lower in itertools.pairwise(ys))
    assert ys[-1] + NODE_HEIGHT_PX < drawing.height


def test_more_boxes_than_a_drawing_may_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="150"):
        draw([Node(str(i), 0, str(i)) for i in range(NODES_MAX + 1)], [])
