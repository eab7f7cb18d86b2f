"""The page of the API: every operation, and with scripts, forms that send real requests."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator


@require_safe
def api_docs(request: HttpRequest) -> HttpResponse:
    """Show the operations of the API. Requests from the page use the session of the reader, or a token."""
    return render(request, "api_docs.html", {"areas": _operations()})


@cache
def _operations() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return [(area, [(method, path, summary)])] of the OpenAPI document, which does not change while we run."""
    areas: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]  # drf-spectacular has no types
    document = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]  # as above
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            areas[operation["tags"][0]].append((method.upper(), path, operation["summary"]))
    return sorted(areas.items())
