"""`/rebuilds/`: waves, their logs, watches and recipes."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.rebuild import views

urlpatterns = [
    path("rebuilds/", views.waves, name="waves"),
    path("rebuilds/new/", views.plan, name="wave-plan"),
    path("rebuilds/<int:pk>/", views.wave, name="wave"),
    path("rebuilds/<int:pk>/confirm/", views.confirm, name="wave-confirm"),
    path("rebuilds/<int:pk>/cancel/", views.cancel, name="wave-cancel"),
    path("rebuilds/<int:pk>/retry/", views.retry, name="wave-retry"),
    path("rebuilds/<int:pk>/jobs/<int:job>/log/", views.log, name="wave-log"),
    path("rebuilds/<int:pk>/jobs/<int:job>/log.txt", views.raw_log, name="wave-log-raw"),
    path("rebuilds/repositories/<int:repository>/watches/", views.watch, name="watch-add"),
    path("rebuilds/repositories/<int:repository>/watches/<int:watch>/remove/", views.unwatch, name="watch-remove"),
    path("rebuilds/repositories/<int:repository>/builder/", views.repository_builder, name="repository-builder"),
    path("rebuilds/repositories/<int:repository>/recipe/", views.recipe, name="recipe-new"),
    path("teams/<slug:slug>/builder/", views.team_builder, name="team-builder"),
]
