"""`/compare/`."""

from __future__ import annotations

from django.urls import path, register_converter

from lifecycle.pages.comparison import views
from lifecycle.pages.registry.urls import DigestConverter

register_converter(DigestConverter, "compared")

urlpatterns = [
    path("compare/", views.choose, name="compare"),
    path("compare/<compared:before>...<compared:after>/", views.comparison, name="comparison"),
]
