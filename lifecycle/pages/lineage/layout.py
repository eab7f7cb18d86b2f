"""The layout of a lineage graph: columns by depth, order in a column by barycentre. Pure arithmetic, no queries.

The server computes the layout, so that the drawing has real links, can be printed, needs no script, and has the same
data as the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

NODES_MAX: Final = 150  # larger graphs are not readable
COLUMN_PX: Final = 272
NODE_WIDTH_PX: Final = 184
NODE_HEIGHT_PX: Final = 48
ROW_PX: Final = 64
TOP_PX: Final = 64  # space for the ruler with the depths
MARGIN_PX: Final = 20
_SWEEPS: Final = 4  # more sweeps change nothing in graphs of this size


@dataclass(slots=True)
class Node:
    """A box: one image, or a group of several (a roll-up). `column` is its depth below the drawn roots."""

    key: str
    column: int
    title: str
    line: str = ""
    url: str = ""
    is_focus: bool = False
    is_rollup: bool = False
    is_upstream: bool = False
    is_untrusted: bool = False
    note: str = ""  # for screen readers and on hover
    x: float = 0
    y: float = 0


@dataclass(slots=True)
class Edge:
    """A line from a base to a derived image."""

    base: str
    derived: str
    is_on_focus_line: bool = False
    is_weak: bool = False  # evidence is only an annotation: drawn dashed, with a label
    label: str = ""
    path: str = ""
    label_x: float = 0
    label_y: float = 0


@dataclass(frozen=True, slots=True)
class Drawing:
    """Nodes and edges with their positions, the size of the picture in CSS pixels, and the x of each depth."""

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    width: float
    height: float
    depths: Sequence[tuple[int, float]] = field(default_factory=tuple)
    ticks: Sequence[tuple[float, bool]] = field(default_factory=tuple)


def columns_of(keys: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the longest distance of each key from a root, so that every edge points right.

    In a cycle, distances stop below the number of keys.
    """
    names = list(keys)
    column = dict.fromkeys(names, 0)
    pairs = [(base, derived) for base, derived in edges if base in column and derived in column]
    for _ in names:
        has_moved = False
        for base, derived in pairs:
            if column[derived] <= column[base] and column[base] + 1 < len(names):
                column[derived] = column[base] + 1
                has_moved = True
        if not has_moved:
            break
    return column


def _place_in_column(neighbours: dict[str, list[str]], rank: dict[str, float], node: Node) -> tuple[bool, float]:
    near = [rank[key] for key in neighbours[node.key]]
    return node.is_rollup, sum(near) / len(near) if near else rank[node.key]


def _ordered(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Return the columns, ordered for few crossing lines: each node is near the middle of its neighbours."""
    columns: list[list[Node]] = [[] for _ in range(max((node.column for node in nodes), default=-1) + 1)]
    for node in nodes:
        columns[node.column].append(node)
    for column in columns:
        column.sort(key=lambda node: (node.is_rollup, node.title, node.line, node.key))
    bases: dict[str, list[str]] = {node.key: [] for node in nodes}
    deriveds: dict[str, list[str]] = {node.key: [] for node in nodes}
    for edge in edges:
        bases[edge.derived].append(edge.base)
        deriveds[edge.base].append(edge.derived)
    for sweep in range(_SWEEPS):
        neighbours = bases if sweep % 2 == 0 else deriveds
        rank = {node.key: index - len(column) / 2 for column in columns for index, node in enumerate(column)}
        for column in columns if sweep % 2 == 0 else reversed(columns):
            column.sort(key=partial(_place_in_column, neighbours, rank))
            rank.update({node.key: index - len(column) / 2 for index, node in enumerate(column)})
    return columns


def draw(nodes: Sequence[Node], edges: Sequence[Edge]) -> Drawing:
    """Return the drawing of the nodes; raises ValueError for more than NODES_MAX (the caller groups images first)."""
    if len(nodes) > NODES_MAX:
        raise ValueError(f"{len(nodes)} nodes are too many for a drawing. The limit is {NODES_MAX}.")
    known = {node.key for node in nodes}
    edges = [edge for edge in edges if edge.base in known and edge.derived in known]
    columns = _ordered(nodes, edges)
    tallest = max((len(column) for column in columns), default=1)
    height = TOP_PX + tallest * ROW_PX + MARGIN_PX
    for number, column in enumerate(columns):
        first = TOP_PX + ((tallest - len(column)) * ROW_PX + ROW_PX - NODE_HEIGHT_PX) // 2
        for index, node in enumerate(column):
            node.x, node.y = MARGIN_PX + number * COLUMN_PX, first + index * ROW_PX
    place = {node.key: node for node in nodes}
    for edge in edges:
        start, end = place[edge.base], place[edge.derived]
        x0, y0 = start.x + NODE_WIDTH_PX, start.y + NODE_HEIGHT_PX / 2
        x1, y1 = end.x, end.y + NODE_HEIGHT_PX / 2
        bend = (COLUMN_PX - NODE_WIDTH_PX) * 0.55
        edge.path = f"M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"
        edge.label_x, edge.label_y = (x0 + x1) / 2, (y0 + y1) / 2
    width = max(len(columns), 1) * COLUMN_PX - (COLUMN_PX - NODE_WIDTH_PX) + 2 * MARGIN_PX
    depths = tuple((number, MARGIN_PX + number * COLUMN_PX) for number in range(len(columns)))
    tick = COLUMN_PX / 10
    ticks = tuple((MARGIN_PX + n * tick, n % 10 == 0) for n in range(int((width - 2 * MARGIN_PX) / tick) + 1))
    return Drawing(list(nodes), edges, width, height, depths, ticks)
