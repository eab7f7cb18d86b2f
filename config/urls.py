"""All addresses: pages at `/`, JSON at `/api/v1/`, machines at `/hooks/`, probes beside them."""

from __future__ import annotations

from django.urls import include, path

from lifecycle.pages import probes

urlpatterns = [
    path("", include("lifecycle.pages.urls")),
    path("accounts/", include("accounts.urls")),
    path("api/v1/", include("lifecycle.api.urls")),
    path("hooks/", include("lifecycle.api.hook_urls")),
    path("livez", probes.livez, name="livez"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.metrics, name="metrics"),
]

handler400 = "lifecycle.pages.error_pages.bad_request"
handler403 = "lifecycle.pages.error_pages.permission_denied"
handler404 = "lifecycle.pages.error_pages.not_found"
handler500 = "lifecycle.pages.error_pages.server_error"
