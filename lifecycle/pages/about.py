"""The About page: the version, the parts it runs on, and where help is."""

from __future__ import annotations

import platform

import django
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from lifecycle.core.version import version
from lifecycle.pages.requests import reader


@require_safe
def about(request: HttpRequest) -> HttpResponse:
    """Show the version to every signed-in user; the versions of the parts to admins, who need them for a report."""
    parts: list[tuple[str, str]] = []
    if reader(request).is_superuser:
        number = connection.cursor().connection.info.server_version
        parts = [
            ("Python", platform.python_version()),
            ("Django", django.get_version()),
            ("PostgreSQL", f"{number // 10000}.{number % 10000}"),
        ]
    context = {"version": version(), "parts": parts, "registry": settings.REGISTRY_PUBLIC_URL}
    return render(request, "about.html", context)
