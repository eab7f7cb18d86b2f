"""`/fixes/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.remedies import views

urlpatterns = [
    path("fixes/", views.fixes, name="fixes"),
    path("fixes/<str:key>/", views.fix, name="fix"),
]
