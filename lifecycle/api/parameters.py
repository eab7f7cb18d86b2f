"""Query parameters of the API: each operation accepts exactly those of its OpenAPI document, and rejects others."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:
    from rest_framework.views import APIView  # it imports this file, by the name in the settings

_NUL: Final = "\x00"  # PostgreSQL stores no text with it


@dataclass(frozen=True, slots=True)
class Parameters:
    """The query parameters of one operation. Those in `repeatable` can be given more than once."""

    names: tuple[str, ...]
    repeatable: frozenset[str]

    def problems(self, query: Any) -> dict[str, list[str]]:
        """Return {parameter: what is wrong} for a QueryDict; empty when all is fine."""
        known = f"Known parameters: {', '.join(self.names)}." if self.names else "This request has no parameters."
        problems: dict[str, list[str]] = {}
        for name in query:
            values = query.getlist(name)
            if name not in self.names:
                problems[name] = [f"Unknown parameter. {known}"]
            elif len(values) > 1 and name not in self.repeatable:
                problems[name] = [f"Give this parameter once. It was given {len(values)} times."]
            elif not all(values):
                problems[name] = ["Give a value, or leave the parameter out."]
            elif any(_NUL in value for value in values):
                problems[name] = ["Null characters are not allowed."]
        return problems


def choice(request: Request, name: str, values: Collection[str]) -> str:
    """Return a query parameter with one of these values, "" when it is absent. Raises ValidationError."""
    value: str = request.query_params.get(name, "")
    if value and value not in values:
        raise ValidationError({name: [f"Choose one of: {', '.join(values)}."]})
    return value


def parameters_of(view: APIView, method: str) -> Parameters:
    """Return the query parameters of a view for an HTTP method, as `extend_schema` and its pagination declare them."""
    name = getattr(view, "action", None) or method.lower()
    is_page = name == "list" or (name == "get" and hasattr(view, "list"))
    return _parameters(type(view), name, method, is_page)  # type: ignore[arg-type]  # a class is hashable


@cache
def _parameters(view_class: type[APIView], name: str, method: str, is_page: bool) -> Parameters:
    declared: list[OpenApiParameter] = []
    schema_class = getattr(getattr(view_class, name, None), "kwargs", {}).get("schema")
    if schema_class is not None:
        schema = schema_class()
        schema.view, schema.method = _Unversioned(), method
        declared = [item for item in schema.get_override_parameters() if item.location == OpenApiParameter.QUERY]
    names = [item.name for item in declared]
    pagination = getattr(view_class, "pagination_class", None) if is_page else None
    if pagination is not None:
        names += [item["name"] for item in pagination().get_schema_operation_parameters(None)]
    return Parameters(tuple(sorted(set(names))), frozenset(item.name for item in declared if item.many))


class _Unversioned:
    """What drf-spectacular asks of a view to decide which declarations apply: all do, we have one version."""

    request = None
    kwargs: dict[str, Any] = {}

    def determine_version(self, *_args: Any, **_kwargs: Any) -> tuple[None, None]:
        return None, None


class OnlyKnownParameters(BasePermission):
    """Rejects unknown and repeated query parameters with 400. A misspelled filter would return too many rows.

    It is a permission because DRF runs permissions of every view after authentication and before the view.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return True; raises ValidationError (400) that names each wrong parameter and the known ones."""
        query, method = request.query_params, request.method or ""
        if not query or method not in view.allowed_methods:  # then the response is 405
            return True
        if problems := parameters_of(view, method).problems(query):
            raise ValidationError(problems)
        return True
