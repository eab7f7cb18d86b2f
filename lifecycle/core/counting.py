"""Several counts in one statement: each page shows five in its top bar, and round trips cost more than most of them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet


def counts_of(*querysets: QuerySet[Any]) -> tuple[int, ...]:
    """Return the number of rows of each queryset, in order, with one query; with none if none can have rows."""
    parts: list[str] = []
    parameters: list[Any] = []
    for rows in querysets:
        try:
            text, values = rows.order_by().values("pk").query.sql_with_params()
        except EmptyResultSet:  # `none()`, or a condition that nothing fulfils
            parts.append("0")
        else:
            parts.append(f"(SELECT count(*) FROM ({text}) counted)")  # noqa: S608 -- Django's text, with placeholders
            parameters += values
    if not parameters and set(parts) <= {"0"}:
        return (0,) * len(parts)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(parts)}", parameters)
        found: tuple[int, ...] = cursor.fetchone()
    return found
