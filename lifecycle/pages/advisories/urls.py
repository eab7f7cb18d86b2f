"""`/feeds/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.advisories import views

urlpatterns = [
    path("feeds/", views.feeds, name="feeds"),
    path("feeds/new/", views.new_feed, name="new-feed"),
    path("feeds/<int:pk>/", views.feed, name="feed"),
    path("feeds/<int:pk>/sync/", views.sync, name="feed-sync"),
    path("feeds/<int:pk>/remove/", views.remove, name="feed-remove"),
]
