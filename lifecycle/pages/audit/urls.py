"""`/audit/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.audit import log_views, views

urlpatterns = [
    path("audit/", views.audit, name="audit"),
    path("audit/export/", views.export, name="audit-export"),
    path("audit/log/", log_views.log, name="audit-log"),
    path("audit/log/anchors/<int:pk>/remove/", log_views.remove_anchor, name="audit-anchor-remove"),
    path("audit/sealed-export/", views.sealed_export, name="audit-sealed-export"),
    path("audit/<int:pk>/proof/", views.proof, name="audit-proof"),
    path("audit/<int:pk>/", views.event, name="audit-event"),
]
