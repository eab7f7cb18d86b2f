"""All URLs: pages at `/`, the API at `/api/v1/`, notifications at `/hooks/`, and the probes."""

from __future__ import annotations

from django.urls import include, path

from lifecycle.api.log import LogFileView
from lifecycle.pages import probes

urlpatterns = [
    path("", include("lifecycle.pages.urls")),
    path("accounts/", include("accounts.urls")),
    path("api/v1/", include("lifecycle.api.urls")),
    path("hooks/", include("lifecycle.api.hook_urls")),
    path("log/<path:path>", LogFileView.as_view(), name="log-file"),
    path("livez", probes.livez, name="livez"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.metrics, name="metrics"),
]

handler400 = "lifecycle.pages.error_pages.bad_request"
handler403 = "lifecycle.pages.error_pages.permission_denied"
handler404 = "lifecycle.pages.error_pages.not_found"
handler500 = "lifecycle.pages.error_pages.server_error"
