"""Keyset pagination: all pages cost the same, and no row appears twice."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from django.core import signing
from django.db.models import Model, Q, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

PAGE_DEFAULT = 50
PAGE_MAX = 200


_SALT: Final = "api.cursor"


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
        limit = self._limit(request)
        if not isinstance(queryset, QuerySet):
            raise TypeError("a keyset page needs a QuerySet")
        is_descending = str((queryset.query.order_by or ("-pk",))[0]).startswith("-")
        rows = queryset.order_by("-pk" if is_descending else "pk")
        if cursor := request.query_params.get("cursor"):
            try:
                last = signing.loads(cursor, salt=_SALT)
            except signing.BadSignature:
                raise ValidationError({"cursor": ["Invalid cursor. Start again without it."]}) from None
            rows = rows.filter(Q(pk__lt=last) if is_descending else Q(pk__gt=last))
        page = list(rows[: limit + 1])
        self._next = None
        if len(page) > limit:
            page.pop()
            last_row: Model = page[-1]
            query = request.query_params.copy()
            query["cursor"] = cursor_behind(last_row.pk)
            self._next = f"{request.build_absolute_uri(request.path)}?{query.urlencode()}"
        return page

    def _limit(self, request: Request) -> int:
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
