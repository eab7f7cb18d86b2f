"""`/policies/` and `/waivers/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.policies import check_views, due_views, isolation_views, views

urlpatterns = [
    path("policies/", views.policies, name="policies"),
    path("policies/try/", views.try_expression, name="policy-try"),
    path("policies/<str:scope>/", views.policy, name="policy"),
    path("due-dates/", due_views.due_date_table, name="due-dates"),
    path("isolation/", isolation_views.isolation, name="isolation"),
    path("external-checks/", check_views.checks, name="external-checks"),
    path("external-checks/new/", check_views.new_check, name="external-check-new"),
    path("external-checks/<int:pk>/", check_views.check, name="external-check"),
    path("external-checks/<int:pk>/delete/", check_views.delete_check, name="external-check-delete"),
    path("waivers/", views.waiver_list, name="waivers"),
    path("waivers/new/", views.new_waiver, name="waiver-new"),
    path("waivers/<int:pk>/", views.waiver, name="waiver"),
    path("waivers/<int:pk>/approve/", views.decide_waiver, {"act": "approve"}, name="waiver-approve"),
    path("waivers/<int:pk>/reject/", views.decide_waiver, {"act": "reject"}, name="waiver-reject"),
    path("waivers/<int:pk>/revoke/", views.decide_waiver, {"act": "revoke"}, name="waiver-revoke"),
]
