"""Keyset pages for lists: a page costs the same at row 50 and at row 5,000,000, and nothing is counted.

The cursor is the sort values of a page's edge row, signed, so that nobody can ask the database odd questions with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from django.core import signing
from django.db.models import Model, Q, QuerySet

from lifecycle.core.errors import Malformed

PAGE_SIZE: Final = 50  # rows
_SALT: Final = "lifecycle.core.paging"

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list, and the cursors of the pages beside it ("" where there is none)."""

    rows: list[Row]
    newer: str  # `?before=`
    older: str  # `?after=`

    def __bool__(self) -> bool:
        return bool(self.rows)


def _encode(row: Model, order: Sequence[str]) -> str:
    values: list[Any] = []
    for name in order:
        value: Any = row
        for part in name.lstrip("-").split("__"):
            value = getattr(value, part)
        values.append(value.isoformat() if isinstance(value, datetime) else value)
    return signing.dumps([list(order), values], salt=_SALT, compress=True)


def _decode(cursor: str, order: Sequence[str]) -> list[Any]:
    try:
        given_order, values = signing.loads(cursor, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise Malformed("This page address is not one of ours: go back to the start of the list.") from error
    if given_order != list(order):
        raise Malformed("This page address belongs to another order of the list: go back to its start.")
    return list(values)


def _beyond(order: Sequence[str], values: Sequence[Any], *, forward: bool) -> Q:
    """Return the condition of rows after (or before) the one with `values`, in lexicographic order."""
    condition, equal = Q(), Q()
    for name, value in zip(order, values, strict=True):
        field = name.lstrip("-")
        is_descending = name.startswith("-") == forward
        condition |= equal & Q(**{f"{field}__{'lt' if is_descending else 'gt'}": value})
        equal &= Q(**{field: value})
    return condition


def keyset_page(
    rows: QuerySet[Row],
    order: Sequence[str],
    *,
    after: str = "",
    before: str = "",
    size: int = PAGE_SIZE,
) -> Page[Row]:
    """Return one page of `rows` in `order` (field names, `-` for descending; the last one unique, none null).

    One query. Raises Malformed for a cursor that is not ours or of another order.
    """
    if before:
        backwards = [name[1:] if name.startswith("-") else f"-{name}" for name in order]
        found = list(
            rows.filter(_beyond(order, _decode(before, order), forward=False)).order_by(*backwards)[: size + 1]
        )
        has_more, found = len(found) > size, found[:size][::-1]
        newer = _encode(found[0], order) if found and has_more else ""
        return Page(found, newer, _encode(found[-1], order) if found else "")
    if after:
        rows = rows.filter(_beyond(order, _decode(after, order), forward=True))
    found = list(rows.order_by(*order)[: size + 1])
    has_more, found = len(found) > size, found[:size]
    return Page(
        found,
        _encode(found[0], order) if found and after else "",
        _encode(found[-1], order) if has_more else "",
    )
