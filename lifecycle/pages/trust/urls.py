"""`/trusted-sources/`, `/signing-keys/`, and the check of an image's signatures."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.trust import key_views, views

urlpatterns = [
    path("trusted-sources/", views.sources, name="trusted-sources"),
    path("trusted-sources/new/", views.new_source, name="new-trusted-source"),
    path("trusted-sources/<int:pk>/", views.source, name="trusted-source"),
    path("trusted-sources/<int:pk>/retire/", views.retire_source, name="retire-trusted-source"),
    path("signing-keys/", key_views.keys, name="signing-keys"),
    path("signing-keys/<slug:name>/public.pem", key_views.public_key, name="signing-key"),
    path("signing-keys/<slug:name>/retire/", key_views.retire_key, name="retire-signing-key"),
    path("t/<slug:team>/r/<path:name>/i/<str:digest>/signatures/", views.check, name="check-signatures"),
]
