"""`/running/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.runtime import views

urlpatterns = [path("running/", views.running, name="running")]
