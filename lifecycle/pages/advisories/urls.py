"""`/feeds/` and `/private-advisories/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.advisories import private_views, views

urlpatterns = [
    path("feeds/", views.feeds, name="feeds"),
    path("feeds/new/", views.new_feed, name="new-feed"),
    path("feeds/<int:pk>/", views.feed, name="feed"),
    path("feeds/<int:pk>/sync/", views.sync, name="feed-sync"),
    path("feeds/<int:pk>/remove/", views.remove, name="feed-remove"),
    path("private-advisories/", private_views.private_advisories, name="private-advisories"),
    path("private-advisories/new/", private_views.propose, name="private-advisory-new"),
    path("private-advisories/<int:pk>/", private_views.private_advisory, name="private-advisory"),
    path(
        "private-advisories/<int:pk>/approve/", private_views.act, {"act": "approve"}, name="private-advisory-approve"
    ),
    path("private-advisories/<int:pk>/reject/", private_views.act, {"act": "reject"}, name="private-advisory-reject"),
    path("private-advisories/<int:pk>/cancel/", private_views.act, {"act": "cancel"}, name="private-advisory-cancel"),
]
