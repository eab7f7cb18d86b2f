"""`/fixes/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.remedies import views

urlpatterns = [
    path("fixes/", views.fixes, name="fixes"),
    path("fixes/<str:key>/", views.fix, name="fix"),
    path("fixes/<str:key>/assign/", views.act, {"act": "assign"}, name="fix-assign"),
    path("fixes/<str:key>/snooze/", views.act, {"act": "snooze"}, name="fix-snooze"),
    path("fixes/<str:key>/wake/", views.act, {"act": "wake"}, name="fix-wake"),
    path("fixes/<str:key>/comment/", views.act, {"act": "comment"}, name="fix-comment"),
]
