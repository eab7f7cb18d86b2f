"""`/api/v1/`: every route of the API, and its own description."""

from __future__ import annotations

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from lifecycle.api import schema  # noqa: F401 -- registers itself
from lifecycle.audit.api import AuditEventViewSet
from lifecycle.jobs.api import JobViewSet
from lifecycle.lineage.api import LineageView
from lifecycle.promotion.api import EnvironmentViewSet, PromotionViewSet
from lifecycle.rebuild.api import RecipeView, WatchesView, WatchView, WaveViewSet
from lifecycle.registry.api import ImageViewSet, RepositoryViewSet

router = SimpleRouter()
router.register("images", ImageViewSet, basename="image")
router.register("repositories", RepositoryViewSet, basename="repository")
router.register("environments", EnvironmentViewSet, basename="environment")
router.register("promotions", PromotionViewSet, basename="promotion")
router.register("rebuild-waves", WaveViewSet, basename="rebuildwave")
router.register("audit-events", AuditEventViewSet, basename="auditevent")
router.register("jobs", JobViewSet, basename="job")

app_name = "api"
urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("repositories/<int:repository_id>/recipe/", RecipeView.as_view(), name="repository-recipe"),
    path("repositories/<int:repository_id>/watches/", WatchesView.as_view(), name="repository-watches"),
    path("repositories/<int:repository_id>/watches/<int:watch_id>/", WatchView.as_view(), name="repository-watch"),
    path("images/<str:digest>/lineage/", LineageView.as_view(), name="image-lineage"),
    path("", include(router.urls)),
]
