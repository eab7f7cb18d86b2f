"""`/api/v1/`: every route of the API, and its own description."""

from __future__ import annotations

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from lifecycle.audit.api import AuditEventViewSet
from lifecycle.jobs.api import JobViewSet
from lifecycle.promotion.api import EnvironmentViewSet, PromotionViewSet
from lifecycle.registry.api import ImageViewSet, RepositoryViewSet

router = SimpleRouter()
router.register("images", ImageViewSet, basename="image")
router.register("repositories", RepositoryViewSet, basename="repository")
router.register("environments", EnvironmentViewSet, basename="environment")
router.register("promotions", PromotionViewSet, basename="promotion")
router.register("audit-events", AuditEventViewSet, basename="auditevent")
router.register("jobs", JobViewSet, basename="job")

app_name = "api"
urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("", include(router.urls)),
]
