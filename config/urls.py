"""All addresses: pages at `/`, JSON at `/api/v1/`, machines at `/hooks/`, probes beside them."""

from __future__ import annotations

from django.urls import include, path

from lifecycle.core import probes

urlpatterns = [
    path("", include("lifecycle.urls")),
    path("accounts/", include("accounts.urls")),
    path("api/v1/", include("lifecycle.api.urls")),
    path("hooks/", include("lifecycle.ingest.urls")),
    path("livez", probes.livez, name="livez"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.metrics, name="metrics"),
]

handler400 = "lifecycle.core.error_pages.bad_request"
handler403 = "lifecycle.core.error_pages.permission_denied"
handler404 = "lifecycle.core.error_pages.not_found"
handler500 = "lifecycle.core.error_pages.server_error"
