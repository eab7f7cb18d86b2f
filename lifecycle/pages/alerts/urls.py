"""`/alerts/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.alerts import views

urlpatterns = [
    path("alerts/", views.alerts, name="alerts"),
    path("alerts/<int:pk>/", views.alert, name="alert"),
    path("alerts/<int:pk>/acknowledge/", views.act, {"act": "acknowledge"}, name="alert-acknowledge"),
    path("alerts/<int:pk>/snooze/", views.act, {"act": "snooze"}, name="alert-snooze"),
    path("alerts/<int:pk>/resolve/", views.act, {"act": "resolve"}, name="alert-resolve"),
]
