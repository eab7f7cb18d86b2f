"""`/search/`, and the pages across images: `/advisories/<id>/` and `/packages/<type>/<name>/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.search import views

urlpatterns = [
    path("search/", views.search, name="search"),
    path("advisories/<path:osv_id>/", views.advisory, name="advisory"),
    path("packages/<str:kind>/<path:name>/", views.package, name="package"),
]
