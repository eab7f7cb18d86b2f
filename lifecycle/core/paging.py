"""Keyset pagination for lists: a page costs the same at row 50 and at row 5,000,000, without counting rows.

The cursor contains the sort values of a page's first or last row. It is signed, so that users cannot forge queries.
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
    """One page of a list, and the cursors of the pages before and after it ("" without such a page)."""

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
        raise Malformed("Invalid page link. Go back to the first page of the list.") from error
    if given_order != list(order):
        raise Malformed("This page link belongs to another sort order. Go back to the first page of the list.")
    return list(values)


def _beyond(order: Sequence[str], values: Sequence[Any], *, forward: bool) -> Q:
    """Return the condition for rows after (or before) the row with `values`, in lexicographic order."""
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
    """Return one page of `rows` in `order`, with one query.

    `order` lists field names, with `-` for descending. None of them is null, and the last one is unique. Raises
    Malformed for an invalid cursor or one of another sort order.
    """
    if before:
        backwards = [name[1:] if name.startswith("-") else f"-{name}" for name in order]
        page_rows = list(
            rows.filter(_beyond(order, _decode(before, order), forward=False)).order_by(*backwards)[: size + 1]
        )
        has_more, page_rows = len(page_rows) > size, page_rows[:size][::-1]
        newer = _encode(page_rows[0], order) if page_rows and has_more else ""
        return Page(page_rows, newer, _encode(page_rows[-1], order) if page_rows else "")
    if after:
        rows = rows.filter(_beyond(order, _decode(after, order), forward=True))
    page_rows = list(rows.order_by(*order)[: size + 1])
    has_more, page_rows = len(page_rows) > size, page_rows[:size]
    return Page(
        page_rows,
        _encode(page_rows[0], order) if page_rows and after else "",
        _encode(page_rows[-1], order) if has_more else "",
    )
