"""What an orchestrator and a monitoring system ask: alive, ready, and how much of everything."""

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


@login_not_required  # an orchestrator has no account; the answer says nothing
@require_safe
def livez(request: HttpRequest) -> HttpResponse:
    """Answer 200: the process takes requests."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required  # as above; names of parts only
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 when PostgreSQL and Redis answer, else 503; the body names each part and its state."""
    parts = {"postgresql": "ok", "redis": "ok"}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        parts["postgresql"] = "unavailable"
    try:
        cache.get("readyz")
    except Exception:  # noqa: BLE001 -- whatever the cache's client raises means: not ready
        parts["redis"] = "unavailable"
    is_ready = set(parts.values()) == {"ok"}
    return JsonResponse(parts, status=200 if is_ready else 503)


@login_not_required  # counts without names; keep the port internal, or scrape through a proxy that asks who you are
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer the counters in the Prometheus text format."""
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
