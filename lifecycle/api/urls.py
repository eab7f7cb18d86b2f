"""URLs of `/api/v1/`, including its OpenAPI document."""

from __future__ import annotations

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from lifecycle.api import authority
from lifecycle.api.audit import AuditEventViewSet
from lifecycle.api.environments import EnvironmentViewSet
from lifecycle.api.jobs import JobViewSet
from lifecycle.api.lineage import LineageView
from lifecycle.api.me import MeView
from lifecycle.api.promotion import PromotionViewSet
from lifecycle.api.rebuild import (
    RecipeView,
    RepositoryBuilderView,
    TeamBuilderView,
    WatchesView,
    WatchView,
    WaveViewSet,
)
from lifecycle.api.registry import ImageViewSet, MetadataView, RepositoryViewSet
from lifecycle.api.schema import SchemaView
from lifecycle.api.search import SearchView

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
    path("schema/", SchemaView.as_view(), name="schema"),
    path("me/", MeView.as_view(), name="me"),
    path("repositories/<int:repository_id>/metadata/", MetadataView.as_view(), name="repository-metadata"),
    path("repositories/<int:repository_id>/recipe/", RecipeView.as_view(), name="repository-recipe"),
    path("repositories/<int:repository_id>/builder/", RepositoryBuilderView.as_view(), name="repository-builder"),
    path("repositories/<int:repository_id>/watches/", WatchesView.as_view(), name="repository-watches"),
    path("repositories/<int:repository_id>/watches/<int:watch_id>/", WatchView.as_view(), name="repository-watch"),
    path("images/<str:digest>/lineage/", LineageView.as_view(), name="image-lineage"),
    path("teams/", authority.TeamsView.as_view(), name="teams"),
    path("teams/<slug:team>/", authority.TeamView.as_view(), name="team"),
    path("teams/<slug:team>/grants/", authority.GrantsView.as_view(), name="team-grants"),
    path("teams/<slug:team>/grants/<int:grant_id>/", authority.GrantView.as_view(), name="team-grant"),
    path("teams/<slug:team>/robots/", authority.RobotsView.as_view(), name="team-robots"),
    path("teams/<slug:team>/robots/<int:robot_id>/", authority.RobotView.as_view(), name="team-robot"),
    path(
        "teams/<slug:team>/robots/<int:robot_id>/take-over/",
        authority.RobotTakeOverView.as_view(),
        name="robot-take-over",
    ),
    path("teams/<slug:team>/robots/<int:robot_id>/tokens/", authority.RobotTokensView.as_view(), name="robot-tokens"),
    path(
        "teams/<slug:team>/robots/<int:robot_id>/tokens/<int:token_id>/",
        authority.RobotTokenView.as_view(),
        name="robot-token",
    ),
    path("teams/<slug:team>/environments/", authority.TeamEnvironmentsView.as_view(), name="team-environments"),
    path("teams/<slug:team>/builder/", TeamBuilderView.as_view(), name="team-builder"),
    path("teams/<slug:team>/explain/", authority.ExplainView.as_view(), name="team-explain"),
    path("roles/", authority.RolesView.as_view(), name="roles"),
    path("roles/<slug:role>/", authority.RoleView.as_view(), name="role"),
    path("search/", SearchView.as_view(), name="search"),
    path("tokens/", authority.TokensView.as_view(), name="tokens"),
    path("tokens/<int:token_id>/", authority.TokenView.as_view(), name="token"),
    path("", include(router.urls)),
]
