"""Values that page views read from the request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypedDict, cast

from django.http import HttpRequest

from accounts.models import User
from lifecycle.core.errors import Malformed

SELECTED_MAX: Final = 100  # rows of one bulk action; a list shows 50


class Cursors(TypedDict):
    """The position in a list, as arguments for `keyset_page`."""

    after: str
    before: str


def reader(request: HttpRequest) -> User:
    """Return the signed-in user. LoginRequiredMiddleware guarantees that there is one."""
    return cast(User, request.user)


def chosen(request: HttpRequest, name: str, allowed: Iterable[str]) -> str:
    """Return the value of a filter in the URL, "" without one.

    Raises Malformed for a value that is not in `allowed`: a filter that is silently ignored shows too much.
    """
    value = request.GET.get(name, "")
    values = list(allowed)
    if value and value not in values:
        known = f"Choose one of: {', '.join(values)}." if values else "There are no values to choose from."
        raise Malformed(f"Unknown value of the filter {name}: {value[:60]}. {known}", back=request.path)
    return value


def sort_of(request: HttpRequest, orders: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """Return (name, order) of the sort in the URL (`?sort=name` or `-name`), by default the first of `orders`.

    `orders` maps the name of a column to an order for `keyset_page`; a `-` before the name reverses it. Raises
    Malformed for another name.
    """
    name = chosen(request, "sort", [sign + key for key in orders for sign in ("", "-")]) or next(iter(orders))
    order = orders[name.removeprefix("-")]
    if name.startswith("-"):
        order = tuple(field[1:] if field.startswith("-") else f"-{field}" for field in order)
    return name, order


def selected_ids(request: HttpRequest) -> list[int]:
    """Return the ids of the rows that are selected in a list, at most SELECTED_MAX, without repetition."""
    ids = [int(text) for text in request.POST.getlist("ids") if text.isascii() and text.isdigit() and len(text) < 19]
    return list(dict.fromkeys(ids))[:SELECTED_MAX]


def cursors(request: HttpRequest) -> Cursors:
    """Return the position in a list from the URL."""
    return {"after": request.GET.get("after", ""), "before": request.GET.get("before", "")}
