"""`/retention/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.retention import views

urlpatterns = [
    path("retention/", views.plan_list, name="retention"),
    path("retention/teams/<slug:team>/", views.rules, name="retention-team"),
    path("retention/teams/<slug:team>/plan/", views.new_plan, name="retention-team-plan"),
    path("retention/repositories/<int:repository>/", views.rules, name="retention-repository"),
    path("retention/repositories/<int:repository>/plan/", views.new_plan, name="retention-repository-plan"),
    path("retention/<int:pk>/", views.plan, name="retention-plan"),
    path("retention/<int:pk>/confirm/", views.confirm, name="retention-confirm"),
    path("retention/<int:pk>/restore/", views.restore, name="retention-restore"),
]
