"""`/lineage/` and `/lineage/<digest>/`."""

from __future__ import annotations

from django.urls import path, re_path

from lifecycle.pages.lineage import views

urlpatterns = [
    path("lineage/", views.roots, name="lineage"),
    re_path(
        r"^lineage/(?P<digest>sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})/$", views.neighbourhood, name="lineage-image"
    ),
]
