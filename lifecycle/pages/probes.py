"""Liveness, readiness and metrics, for orchestrators and monitoring systems."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.db import connection
from django.db.models import Count, Min
from django.db.utils import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from lifecycle.core import clock
from lifecycle.jobs.models import Job
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image


@login_not_required  # an orchestrator has no account, and the response contains no data
@require_safe
def livez(request: HttpRequest) -> HttpResponse:
    """Return 200: the process accepts requests."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required  # as above; the response contains only names of services
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Return 200 when PostgreSQL and Redis respond, else 503. The body contains the state of each."""
    parts = {"postgresql": "ok", "redis": "ok"}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        parts["postgresql"] = "unavailable"
    try:
        cache.get("readyz")
    except Exception:  # noqa: BLE001 -- any error of the cache client means: not ready
        parts["redis"] = "unavailable"
    is_ready = set(parts.values()) == {"ok"}
    return JsonResponse(parts, status=200 if is_ready else 503)


@login_not_required  # only counts, no names; keep the port internal, or use a proxy with authentication
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics in the Prometheus text format."""
    lines = ["# TYPE gravingdock_jobs gauge"]
    oldest: dict[str, float] = {}
    for row in (
        Job.objects.values("kind", "state").annotate(count=Count("id"), oldest=Min("created_at")).order_by("kind")
    ):
        lines.append(f'gravingdock_jobs{{kind="{row["kind"]}",state="{row["state"]}"}} {row["count"]}')
        if row["state"] == Job.State.WAITING:
            oldest[row["kind"]] = (clock.now() - row["oldest"]).total_seconds()
    lines.append("# TYPE gravingdock_queue_oldest_age_seconds gauge")
    lines += [f'gravingdock_queue_oldest_age_seconds{{kind="{kind}"}} {age:.3f}' for kind, age in oldest.items()]
    lines.append("# TYPE gravingdock_images gauge")
    lines.append(f"gravingdock_images {Image.objects.count()}")
    lines.append("# TYPE gravingdock_promotions gauge")
    for entry in PromotionRequest.objects.values("state").annotate(count=Count("id")).order_by("state"):
        lines.append(f'gravingdock_promotions{{state="{entry["state"]}"}} {entry["count"]}')
    return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")
