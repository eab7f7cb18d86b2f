"""`/inbox/` and `/promotions/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.promotion import views

urlpatterns = [
    path("inbox/", views.inbox, name="inbox"),
    path("inbox/lists/", views.inbox_lists, name="inbox-lists"),
    path("inbox/seen/", views.results_seen, name="results-seen"),
    path("promotions/bulk/", views.bulk, name="promotions-bulk"),
    path("promotions/", views.promotions, name="promotions"),
    path("promotions/environments/", views.environments, name="environments"),
    path("promotions/new/", views.new, name="promotion-new"),
    path("promotions/<int:pk>/", views.promotion, name="promotion"),
    path("promotions/<int:pk>/detail/", views.detail, name="promotion-detail"),
    path("promotions/<int:pk>/progress/", views.progress, name="promotion-progress"),
    path("promotions/<int:pk>/approve/", views.approve, name="promotion-approve"),
    path("promotions/<int:pk>/reject/", views.reject, name="promotion-reject"),
    path("promotions/<int:pk>/withdraw/", views.withdraw, name="promotion-withdraw"),
    path("promotions/<int:pk>/execute/", views.execute, name="promotion-execute"),
]
