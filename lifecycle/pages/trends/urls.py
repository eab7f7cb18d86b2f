"""`/trends/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.trends import views

urlpatterns = [path("trends/", views.trends, name="trends")]
