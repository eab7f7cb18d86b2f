"""`/vex/`."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from lifecycle.pages.vex import feed_views, views

urlpatterns: list[URLPattern | URLResolver] = [
    path("vex/", views.decision_list, name="vex"),
    path("vex/new/", views.new_decision, name="vex-new"),
    path("vex/<int:pk>/", views.decision, name="vex-decision"),
    path("vex/<int:pk>/approve/", views.act_on_decision, {"act": "approve"}, name="vex-approve"),
    path("vex/<int:pk>/reject/", views.act_on_decision, {"act": "reject"}, name="vex-reject"),
    path("vex/<int:pk>/withdraw/", views.act_on_decision, {"act": "withdraw"}, name="vex-withdraw"),
    path("vex/documents/", views.document_list, name="vex-documents"),
    path("vex/documents/<int:pk>/", views.document, name="vex-document"),
    path("vex/documents/<int:pk>/accept/", views.act_on_document, {"act": "accept"}, name="vex-document-accept"),
    path("vex/documents/<int:pk>/withdraw/", views.act_on_document, {"act": "withdraw"}, name="vex-document-withdraw"),
    path("vex/feeds/", feed_views.feed_list, name="vex-feeds"),
    path("vex/feeds/<int:pk>/", feed_views.feed, name="vex-feed"),
    path("vex/feeds/<int:pk>/sync/", feed_views.sync, name="vex-feed-sync"),
    path("vex/feeds/<int:pk>/trust/", feed_views.act_on_feed, {"act": "trust"}, name="vex-feed-trust"),
    path("vex/feeds/<int:pk>/distrust/", feed_views.act_on_feed, {"act": "distrust"}, name="vex-feed-distrust"),
    path("vex/feeds/<int:pk>/remove/", feed_views.act_on_feed, {"act": "remove"}, name="vex-feed-remove"),
]
