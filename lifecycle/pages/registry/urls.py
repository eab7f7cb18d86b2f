"""`/images/` and `/t/<team>/r/<repository>/...`. A repository name can contain slashes, hence the path converter."""

from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from lifecycle.pages import preferences
from lifecycle.pages.registry import settings_views, views


class DigestConverter(StringConverter):
    """An OCI digest as a part of a URL."""

    regex = r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}"


register_converter(DigestConverter, "digest")

# No part of a repository's name is "-", so that no repository hides behind these addresses.
urlpatterns = [
    path("", views.start, name="start"),
    path("images/", views.images, name="images"),
    path("findings/export/<str:kind>", views.export_fleet, name="findings-export"),
    path("t/<slug:team>/r/<path:name>/-/describe/", views.describe, name="repository-describe"),
    path("t/<slug:team>/r/<path:name>/-/visibility/", settings_views.show_to, name="repository-visibility"),
    path("t/<slug:team>/r/<path:name>/-/archive/", settings_views.archive, name="repository-archive"),
    path("t/<slug:team>/r/<path:name>/-/delete/", settings_views.remove, name="repository-delete"),
    path("t/<slug:team>/r/<path:name>/-/protect/", views.protect, name="repository-protect"),
    path("t/<slug:team>/r/<path:name>/-/metadata/", views.set_metadata, name="metadata-set"),
    path("t/<slug:team>/r/<path:name>/-/metadata/remove/", views.remove_metadata, name="metadata-remove"),
    path("t/<slug:team>/r/<path:name>/-/tags/<str:tag>/delete/", views.delete_tag, name="tag-delete"),
    path("t/<slug:team>/r/<path:name>/i/<digest:digest>/delete/", views.delete_image, name="image-delete"),
    path("t/<slug:team>/r/<path:name>/i/<digest:digest>/rescan/", views.rescan, name="image-rescan"),
    path("t/<slug:team>/r/<path:name>/i/<digest:digest>/sboms/", views.send_sbom, name="image-send-sbom"),
    path(
        "t/<slug:team>/r/<path:name>/i/<digest:digest>/sboms/<int:sbom_id>/withdraw/",
        views.withdraw_sbom,
        name="image-withdraw-sbom",
    ),
    path("t/<slug:team>/r/<path:name>/i/<digest:digest>/export/<str:kind>", views.export, name="image-export"),
    path("t/<slug:team>/r/<path:name>/i/<digest:digest>/", views.image, name="image"),
    path("t/<slug:team>/r/<path:name>/", views.repository, name="repository"),
    path("theme/", preferences.theme, name="theme"),
]
