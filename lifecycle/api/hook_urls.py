"""`/hooks/...`: URLs for notifications from other systems."""

from __future__ import annotations

from django.urls import URLPattern, path

from lifecycle.api import hooks as views

# No trailing slash, as in the registry's configuration: a redirect would lose the notification.
urlpatterns: list[URLPattern] = [path("registry/<slug:name>", views.registry_hook, name="registry-hook")]
