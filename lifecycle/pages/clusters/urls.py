"""`/clusters/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.clusters import views

urlpatterns = [
    path("clusters/", views.clusters, name="clusters"),
    path("clusters/new/", views.new_cluster, name="cluster-new"),
    path("clusters/<slug:slug>/", views.cluster, name="cluster"),
    path("clusters/<slug:slug>/bindings/", views.bindings, name="cluster-bindings"),
    path("clusters/<slug:slug>/delete/", views.delete, name="cluster-delete"),
    path("clusters/<slug:slug>/forecast/", views.forecast_page, name="cluster-forecast"),
    path("clusters/<slug:slug>/manifest/", views.manifest, name="cluster-manifest"),
    path("clusters/<slug:slug>/debts/<int:pk>/review/", views.review, name="cluster-debt-review"),
    path("why/<slug:key>/", views.why, name="why"),
    path("clusters/<slug:slug>/secrets/", views.secret, name="cluster-secrets"),
]
