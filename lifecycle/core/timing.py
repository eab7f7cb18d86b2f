"""`Server-Timing` (W3C) on every response: the milliseconds in the database, and in all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse


class DatabaseTimer:
    """Adds up the time of all statements; a wrapper for `connection.execute_wrapper`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.statements = 0

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.seconds += time.perf_counter() - started
            self.statements += 1


class ServerTimingMiddleware:
    """Measures each request. Browsers show the header in their tools, and `manage.py bench` reads it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started, timer = time.perf_counter(), DatabaseTimer()
        with connection.execute_wrapper(timer):
            response = self.get_response(request)
        total = time.perf_counter() - started
        response["Server-Timing"] = (
            f'db;dur={1000 * timer.seconds:.2f};desc="{timer.statements} statements", total;dur={1000 * total:.2f}'
        )
        return response
