"""The lookup `like`: SQL LIKE with a pattern from a column, which Django's `contains` would escape."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Lookup, TextField


@CharField.register_lookup
@TextField.register_lookup
class Like(Lookup):
    """`value LIKE pattern`, with `\\` as the escape character, as in `RoleGrant.repository_like`."""

    lookup_name = "like"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        left, left_parameters = self.process_lhs(compiler, connection)
        right, right_parameters = self.process_rhs(compiler, connection)
        return f"{left} LIKE {right}", (*left_parameters, *right_parameters)
