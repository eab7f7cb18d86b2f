"""`/quarantines/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.quarantine import views

urlpatterns = [
    path("quarantines/", views.quarantine_list, name="quarantines"),
    path("quarantines/new/", views.new_quarantine, name="quarantine-new"),
    path("quarantines/<int:pk>/", views.quarantine, name="quarantine"),
    path("quarantines/<int:pk>/request-release/", views.act, {"act": "request_release"}, name="quarantine-request"),
    path("quarantines/<int:pk>/release/", views.act, {"act": "release"}, name="quarantine-release"),
    path("quarantines/<int:pk>/refuse-release/", views.act, {"act": "refuse_release"}, name="quarantine-refuse"),
    path("quarantines/<int:pk>/withdraw/", views.act, {"act": "withdraw"}, name="quarantine-withdraw"),
    path("quarantines/<int:pk>/exemptions/", views.exempt, name="quarantine-exempt"),
]
