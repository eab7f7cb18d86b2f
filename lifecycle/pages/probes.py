"""Liveness, readiness and metrics, for orchestrators and monitoring systems."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.cache import cache
from django.db import connection
from django.db.models import Count, Min, Sum
from django.db.utils import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from accounts import tokens
from accounts.models import ApiToken
from lifecycle.advisories.models import Feed
from lifecycle.alerts.models import Alert
from lifecycle.core import clock
from lifecycle.core.address import parse_address
from lifecycle.evidence.judgement import Known, with_known
from lifecycle.jobs.models import Job
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image
from lifecycle.sealed_log.status import status


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


# Headers that proxies add. A request with one of them did not start on this machine, although its peer may be local.
_FORWARDED: Final = (
    "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-IP",
    "X-Client-IP", "True-Client-IP", "CF-Connecting-IP",
)  # fmt: skip


def _may_read_metrics(request: HttpRequest) -> bool:
    """Return whether the request starts on this machine, or has METRICS_TOKEN or the token of an admin."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if text:
        if scheme.lower() != "bearer":
            return False
        if settings.METRICS_TOKEN and hmac.compare_digest(text.strip().encode(), settings.METRICS_TOKEN.encode()):
            return True
        token = tokens.find_token(text.strip())
        return token is not None and token.kind != ApiToken.Kind.REFRESH and token.user.is_superuser
    if any(name in request.headers for name in _FORWARDED):
        return False
    peer = parse_address(str(request.META.get("REMOTE_ADDR") or ""))
    if peer is None:
        return False
    address = ipaddress.ip_address(peer)
    inner = getattr(address, "ipv4_mapped", None)
    return (inner or address).is_loopback


@login_not_required  # it checks a token itself: monitoring systems have no session
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics in the Prometheus text format, or 401 without a token from another machine."""
    if not _may_read_metrics(request):
        refusal = HttpResponse(
            "Send METRICS_TOKEN or the access token of an admin as a bearer token, or ask on this machine.\n",
            status=401,
            content_type="text/plain",
        )
        refusal["WWW-Authenticate"] = 'Bearer realm="gravingdock"'
        return refusal
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
    lines.append("# TYPE gravingdock_images_by_findings gauge")  # platform manifests; "unknown" is not "none"
    counts: dict[str, int] = dict.fromkeys((known.value for known in Known), 0)
    manifests = with_known(Image.objects.filter(kind=Image.Kind.MANIFEST))
    rows = manifests.values("known").annotate(count=Count("id"))  # type: ignore[misc]  # the annotation is unknown
    counts |= {row["known"]: row["count"] for row in rows.order_by()}
    lines += [f'gravingdock_images_by_findings{{state="{state}"}} {count}' for state, count in counts.items()]
    lines.append("# TYPE gravingdock_packages_unjudged gauge")
    unjudged = Image.objects.aggregate(total=Sum("unjudged_count", default=0))["total"]
    lines.append(f"gravingdock_packages_unjudged {unjudged}")
    lines.append("# TYPE gravingdock_promotions gauge")
    for entry in PromotionRequest.objects.values("state").annotate(count=Count("id")).order_by("state"):
        lines.append(f'gravingdock_promotions{{state="{entry["state"]}"}} {entry["count"]}')
    lines += [*_of_feeds(), *_of_alerts(), *_of_log()]
    return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")


def _of_feeds() -> list[str]:
    """Return for each feed that was read: its age, and whether that is an alarm. A feed that was never read is one."""
    feeds = list(Feed.objects.exclude(kind=Feed.Kind.OWN).order_by("name"))
    now = clock.now()
    return [
        "# TYPE gravingdock_feed_age_seconds gauge",
        *(
            f"gravingdock_feed_age_seconds{{{_label('feed', feed.name)}}} {(now - feed.synced_at).total_seconds():.0f}"
            for feed in feeds
            if feed.synced_at is not None
        ),
        "# TYPE gravingdock_feed_stale gauge",
        *(f"gravingdock_feed_stale{{{_label('feed', feed.name)}}} {int(feed.is_stale)}" for feed in feeds),
    ]


def _of_alerts() -> list[str]:
    live = Alert.objects.exclude(state=Alert.State.RESOLVED).values("kind", "severity")
    rows = live.annotate(count=Count("id")).order_by("kind", "severity")
    return [
        "# TYPE gravingdock_alerts gauge",
        *(f'gravingdock_alerts{{kind="{row["kind"]}",severity="{row["severity"]}"}} {row["count"]}' for row in rows),
    ]


def _of_log() -> list[str]:
    """Return how far the audit log is sealed and anchored."""
    now = status()
    size = now.checkpoint.size if now.checkpoint is not None else 0
    lines = [
        "# TYPE gravingdock_audit_log_entries gauge",
        f"gravingdock_audit_log_entries {size}",
        "# TYPE gravingdock_audit_unsealed_age_seconds gauge",
        f"gravingdock_audit_unsealed_age_seconds {now.unsealed_s or 0:.1f}",
        "# TYPE gravingdock_audit_unanchored_entries gauge",
        f"gravingdock_audit_unanchored_entries {size - now.anchored_size}",
        "# TYPE gravingdock_audit_log_problems gauge",
        f"gravingdock_audit_log_problems {len(now.problems)}",
    ]
    if now.anchored_at is not None:
        age = (clock.now() - now.anchored_at).total_seconds()
        lines += [
            "# TYPE gravingdock_audit_anchor_age_seconds gauge",
            f"gravingdock_audit_anchor_age_seconds {age:.0f}",
        ]
    return lines


def _label(name: str, value: str) -> str:
    """Return a label with its value escaped, as the text format wants it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'
