"""`/hooks/...`: URLs for notifications from other systems."""

from __future__ import annotations

from django.urls import URLPattern, path

from lifecycle.api import hooks as views
from lifecycle.api import runtime_hooks

# No trailing slash, as in the registry's configuration: a redirect would lose the notification.
urlpatterns: list[URLPattern] = [
    path("registry/<slug:name>", views.registry_hook, name="registry-hook"),
    path("falco/<slug:source>/<str:secret>", runtime_hooks.falco_hook, name="falco-hook"),
    path("events/<slug:source>", runtime_hooks.events_hook, name="events-hook"),
]
