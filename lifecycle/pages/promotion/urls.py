"""`/inbox/`, `/promotions/` and `/release-sets/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.promotion import decision_views, environment_views, release_views, views

urlpatterns = [
    path("inbox/", views.inbox, name="inbox"),
    path("inbox/lists/", views.inbox_lists, name="inbox-lists"),
    path("inbox/seen/", views.results_seen, name="results-seen"),
    path("promotions/bulk/", decision_views.bulk, name="promotions-bulk"),
    path("promotions/", views.promotions, name="promotions"),
    path("promotions/environments/", views.environments, name="environments"),
    path("promotions/environments/<int:pk>/", environment_views.environment, name="environment"),
    path("promotions/environments/<int:pk>/remove/", environment_views.remove, name="environment-remove"),
    path("promotions/gates/", environment_views.gates, name="gates"),
    path("promotions/gates/windows/", environment_views.add_window, name="window-add"),
    path("promotions/gates/windows/<int:pk>/remove/", environment_views.remove_window, name="window-remove"),
    path("promotions/gates/holds/", environment_views.add_hold, name="hold-add"),
    path("promotions/gates/holds/<int:pk>/lift/", environment_views.lift, name="hold-lift"),
    path("promotions/new/", views.new, name="promotion-new"),
    path("promotions/break-glass/", views.break_the_glass, name="promotion-break-glass"),
    path("promotions/<int:pk>/comment/", decision_views.comment, name="promotion-comment"),
    path("promotions/<int:pk>/threads/<int:thread>/resolve/", decision_views.resolve, name="promotion-resolve"),
    path("promotions/<int:pk>/verify/", decision_views.verify, name="promotion-verify"),
    path("promotions/<int:pk>/review/", decision_views.review, name="promotion-review"),
    path("promotions/rollback/", views.roll_back, name="promotion-rollback"),
    path("promotions/<int:pk>/", views.promotion, name="promotion"),
    path("promotions/<int:pk>/detail/", views.detail, name="promotion-detail"),
    path("promotions/<int:pk>/progress/", views.progress, name="promotion-progress"),
    path("promotions/<int:pk>/approve/", decision_views.approve, name="promotion-approve"),
    path("promotions/<int:pk>/reject/", decision_views.reject, name="promotion-reject"),
    path("promotions/<int:pk>/object/", decision_views.object_to, name="promotion-object"),
    path("promotions/<int:pk>/withdraw-vote/", decision_views.withdraw_vote, name="promotion-withdraw-vote"),
    path("promotions/<int:pk>/overrule/", decision_views.overrule, name="promotion-overrule"),
    path("promotions/<int:pk>/withdraw/", decision_views.withdraw, name="promotion-withdraw"),
    path("promotions/<int:pk>/execute/", decision_views.execute, name="promotion-execute"),
    path("release-sets/", release_views.release_sets_list, name="release-sets"),
    path("release-sets/new/", release_views.new_set, name="release-set-new"),
    path("release-sets/<int:pk>/", release_views.release_set, name="release-set"),
    path("release-sets/<int:pk>/progress/", release_views.set_progress, name="release-set-progress"),
    path("release-sets/<int:pk>/overrule/", release_views.overrule_set, name="release-set-overrule"),
    path("release-sets/<int:pk>/execute/", release_views.execute_set, name="release-set-execute"),
    *(
        path(f"release-sets/<int:pk>/{act}/", release_views.decide, {"act": act}, name=f"release-set-{act}")
        for act in release_views.ACTS
    ),
]
