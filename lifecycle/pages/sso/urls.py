"""`/sso/` (the sign-in itself), `/sign-in/` (its administration), and `/account/identities/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.sso import signing_in, views

urlpatterns = [
    path("sso/<slug:slug>/start/", signing_in.start, name="sso-start"),
    path("sso/<slug:slug>/callback/", signing_in.callback, name="sso-callback"),
    path("sso/<slug:slug>/link/", signing_in.link, name="sso-link"),
    path("account/identities/", signing_in.identities, name="identities"),
    path("account/identities/<int:pk>/unlink/", signing_in.unlink, name="identity-unlink"),
    path("sign-in/", views.providers, name="sign-in-providers"),
    path("sign-in/new/", views.new_provider, name="new-sign-in-provider"),
    path("sign-in/<slug:slug>/", views.provider, name="sign-in-provider"),
    path("sign-in/<slug:slug>/test/", views.test, name="sign-in-provider-test"),
    path("sign-in/<slug:slug>/preview/", views.preview, name="sign-in-preview"),
    path("sign-in/<slug:slug>/rules/", views.add_rule, name="sign-in-add-rule"),
    path("sign-in/<slug:slug>/rules/<int:pk>/delete/", views.delete_rule, name="sign-in-delete-rule"),
    path("sign-in/<slug:slug>/delete/", views.delete_provider, name="sign-in-provider-delete"),
]
