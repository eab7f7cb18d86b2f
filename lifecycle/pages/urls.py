"""The pages of every sub-domain, in one name space."""

from __future__ import annotations

import importlib
from typing import Final

from django.urls import URLPattern, URLResolver

app_name = "lifecycle"

# Each package's `urls.py` lists its own pages. The order is the order of matching.
_PACKAGES: Final = ("promotion", "comparison", "rebuild", "lineage", "audit", "jobs", "authority", "registry")

urlpatterns: list[URLPattern | URLResolver] = []
for _package in _PACKAGES:
    urlpatterns += importlib.import_module(f"lifecycle.{_package}.urls").urlpatterns
