"""Keyset pagination: all pages cost the same, and no row appears twice."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from django.core import signing
from django.db.models import Model, Q, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

PAGE_DEFAULT = 50
PAGE_MAX = 200


_SALT: Final = "api.cursor"

Row = TypeVar("Row", bound=Model)


def cursor_behind(pk: int) -> str:
    """Return the cursor of the page that begins after the row `pk`."""
    return signing.dumps(pk, salt=_SALT)


class KeysetPagination(BasePagination):
    """`?limit=&cursor=`; the response is `{"results": [...], "next": "<address>" | null}` with `Link: rel="next"`.

    Sorts by the primary key, ascending or descending as the queryset does. The cursor is signed and opaque.
    """

    def paginate_queryset(
        self, queryset: QuerySet[Any] | Sequence[Any], request: Request, view: Any = None
    ) -> list[Any]:
        if not isinstance(queryset, QuerySet):
            raise TypeError("a keyset page needs a QuerySet")
        limit, page = self.limit(request), list(self.rows(queryset, request))
        self._next = None
        if len(page) > limit:
            page.pop()
            last_row: Model = page[-1]
            self._next = self._address(request, last_row.pk)
        return page

    def rows(self, queryset: QuerySet[Row], request: Request) -> QuerySet[Row]:
        """Return the rows of the page in order, and one more if there are more."""
        is_descending = str((queryset.query.order_by or ("-pk",))[0]).startswith("-")
        rows = queryset.order_by("-pk" if is_descending else "pk")
        last = self.last(request)
        if last is not None:
            rows = rows.filter(Q(pk__lt=last) if is_descending else Q(pk__gt=last))
        return rows[: self.limit(request) + 1]

    def page_of(self, rows: list[tuple[int, dict[str, Any]]], request: Request) -> Response:
        """Return the response with (primary key, row) that a statement read, one row more than `limit` if there are."""
        limit = self.limit(request)
        self._next = self._address(request, rows[limit - 1][0]) if len(rows) > limit else None
        return self.get_paginated_response([row for _, row in rows[:limit]])

    def _address(self, request: Request, pk: int) -> str:
        query = request.query_params.copy()
        query["cursor"] = cursor_behind(pk)
        return f"{request.build_absolute_uri(request.path)}?{query.urlencode()}"

    def last(self, request: Request) -> int | None:
        """Return the primary key in `?cursor=`, after which the page begins; raises ValidationError (400)."""
        cursor = request.query_params.get("cursor")
        if not cursor:
            return None
        try:
            pk: int = signing.loads(cursor, salt=_SALT)
        except signing.BadSignature:
            raise ValidationError({"cursor": ["Invalid cursor. Start again without it."]}) from None
        return pk

    def limit(self, request: Request) -> int:
        """Return `?limit=`; raises ValidationError (400)."""
        text = request.query_params.get("limit", str(PAGE_DEFAULT))
        if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= PAGE_MAX:
            raise ValidationError({"limit": [f"Enter a whole number from 1 to {PAGE_MAX}."]})
        return int(text)

    def get_paginated_response(self, data: Any) -> Response:
        response = Response(OrderedDict(results=data, next=self._next))
        if self._next:
            response["Link"] = f'<{self._next}>; rel="next"'
        return response

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {"results": schema, "next": {"type": ["string", "null"], "format": "uri"}},
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}},
            {"name": "cursor", "in": "query", "schema": {"type": "string"}},
        ]
