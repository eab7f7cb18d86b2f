"""The lineage drawing: lines point right, boxes do not overlap, and too many boxes are refused."""

from __future__ import annotations

import itertools

import pytest

from lifecycle.pages.lineage.layout import NODE_HEIGHT_PX, NODES_MAX, Edge, Node, columns_of, draw


def test_column_is_longest_path_from_a_root() -> None:
    edges = [("debian", "python"), ("python", "api"), ("debian", "api"), ("debian", "static")]
    assert columns_of(["debian", "python", "api", "static"], edges) == {"debian": 0, "python": 1, "api": 2, "static": 1}


def test_circular_edges_do_not_loop_forever() -> None:
    assert set(columns_of(["a", "b"], [("a", "b"), ("b", "a")])) == {"a", "b"}


def test_lines_do_not_cross_when_avoidable() -> None:
    nodes = [Node(key, column, key) for key, column in (("a", 0), ("b", 0), ("x", 1), ("y", 1))]
    drawing = draw(nodes, [Edge("a", "y"), Edge("b", "x")])
    y = {node.key: node.y for node in drawing.nodes}
    assert (y["a"] - y["b"]) * (y["y"] - y["x"]) > 0


def test_boxes_in_a_column_do_not_overlap() -> None:
    drawing = draw([Node("root", 0, "root"), *(Node(f"n{i}", 1, f"n{i}") for i in range(9))], [])
    ys = sorted(node.y for node in drawing.nodes if node.column == 1)
    assert all(lower - upper >= NODE_HEIGHT_PX for upper, lower in itertools.pairwise(ys))
    assert ys[-1] + NODE_HEIGHT_PX < drawing.height


def test_too_many_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="150"):
        draw([Node(str(i), 0, str(i)) for i in range(NODES_MAX + 1)], [])
