"""The URLs of all pages, in one namespace. Django matches them in this order."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from lifecycle.pages import about, api_docs
from lifecycle.pages.advisories import urls as advisories
from lifecycle.pages.alerts import urls as alerts
from lifecycle.pages.audit import urls as audit
from lifecycle.pages.authority import urls as authority
from lifecycle.pages.clusters import urls as clusters
from lifecycle.pages.comparison import urls as comparison
from lifecycle.pages.jobs import urls as jobs
from lifecycle.pages.lineage import urls as lineage
from lifecycle.pages.notices import urls as notices
from lifecycle.pages.pentests import urls as pentests
from lifecycle.pages.policies import urls as policies
from lifecycle.pages.promotion import urls as promotion
from lifecycle.pages.quarantine import urls as quarantine
from lifecycle.pages.rebuild import urls as rebuild
from lifecycle.pages.registry import urls as registry
from lifecycle.pages.remedies import urls as remedies
from lifecycle.pages.retention import urls as retention
from lifecycle.pages.runtime import urls as runtime
from lifecycle.pages.search import urls as search
from lifecycle.pages.sso import urls as sso
from lifecycle.pages.trends import urls as trends
from lifecycle.pages.trust import urls as trust
from lifecycle.pages.vex import urls as vex

app_name = "lifecycle"

urlpatterns: list[URLPattern | URLResolver] = [
    path("about/", about.about, name="about"),
    path("docs/api/", api_docs.api_docs, name="api-docs"),
    *promotion.urlpatterns,
    *policies.urlpatterns,
    *quarantine.urlpatterns,
    *clusters.urlpatterns,
    *retention.urlpatterns,
    *runtime.urlpatterns,
    *vex.urlpatterns,
    *pentests.urlpatterns,
    *remedies.urlpatterns,
    *comparison.urlpatterns,
    *rebuild.urlpatterns,
    *lineage.urlpatterns,
    *alerts.urlpatterns,
    *audit.urlpatterns,
    *jobs.urlpatterns,
    *authority.urlpatterns,
    *advisories.urlpatterns,
    *notices.urlpatterns,
    *sso.urlpatterns,
    *trends.urlpatterns,
    *trust.urlpatterns,
    *registry.urlpatterns,
    *search.urlpatterns,
]
