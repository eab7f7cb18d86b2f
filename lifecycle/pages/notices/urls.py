"""`/notices/`: what the reader was told, and how they want to be told."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.notices import channel_views, views

urlpatterns = [
    path("notices/", views.notices, name="notices"),
    path("notices/read-all/", views.read_all, name="notices-read-all"),
    path("notices/<int:pk>/open/", views.open_notice, name="notice-open"),
    path("notices/<int:pk>/read/", views.read, name="notice-read"),
    path("account/notices/", views.preferences, name="notice-preferences"),
    path("account/notices/test-mail/", views.test_mail, name="notice-test-mail"),
    path("account/notices/mutes/", views.mute, name="notice-mutes"),
    path("account/notices/mutes/<int:pk>/end/", views.unmute, name="notice-unmute"),
    path("channels/", channel_views.channels, name="channels"),
    path("channels/new/", channel_views.new_channel, name="new-channel"),
    path("channels/<int:pk>/", channel_views.channel, name="channel"),
    path("channels/<int:pk>/test/", channel_views.test_channel, name="test-channel"),
    path("channels/<int:pk>/delete/", channel_views.delete_channel, name="delete-channel"),
    path("channels/messages/<int:pk>/redeliver/", channel_views.redeliver, name="redeliver-message"),
]
