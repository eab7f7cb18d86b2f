"""API bench: response times and rates of lists in `/api/v1/` and of pages, with the real web process and N images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from django.conf import settings
from django.db.models import Count, Max
from django.test import Client
from django.urls import reverse

from accounts.models import User
from lifecycle.api.pagination import cursor_behind
from lifecycle.audit.models import AuditEvent
from lifecycle.bench import loading
from lifecycle.bench.measuring import Caller, load_s_for, percentile, repeated_ms, repeats_for, requests_per_s
from lifecycle.bench.processes import Processes
from lifecycle.bench.types import Figure, Figures
from lifecycle.lineage.models import Ancestry
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Repository, RepositoryImage

P95_TARGET_MS: Final = 50.0  # a list of images with its scan summary
LIST_TO_SQL_TARGET: Final = 5.0  # the whole response, in times of its SQL in the same run
PAGE_TO_SQL_TARGET: Final = 10.0
# Median times in ms as measured on 2026-11-28, before lists were read as plain rows: {images: {figure: ms}}.
BEFORE: Final[Mapping[int, Mapping[str, float]]] = {
    10_000: {"api_images_first_p50": 34.0, "page_lineage_roots_p50": 98.0},
    100_000: {"page_lineage_roots_p50": 489.0, "page_lineage_of_the_biggest_base_p50": 533.0, "page_inbox_p50": 227.0},
}
JSON_TARGET: Final = 500.0  # requests/s
HTML_TARGET: Final = 250.0


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load the data, start the web process, and measure with one connection, then with four at once."""
    dock = loading.load(images, note=note)
    loading.complete(dock, note=note)
    with Processes() as processes:
        processes.web(has_pages=True)
        note("sending requests")
        return _measure_requests(dock, images)


def _measure_requests(dock: loading.Dock, images: int) -> Figures:
    figures: dict[str, Figure] = {}
    repeats, seconds = repeats_for(images), load_s_for(images)
    for reader, paths in (("wide", _wide_paths()), ("narrow", _narrow_paths()), ("admin", _admin_paths())):
        caller = _api_caller(dock.tokens[reader])
        for title, path in paths.items():
            _measure(figures, caller, title, "/api/v1/" + path, repeats, P95_TARGET_MS, images)
        caller.close()
    session = _session("wide")
    caller = Caller(settings.PUBLIC_URL, session)
    for title, path in _pages().items():
        _measure(figures, caller, title, path, repeats, None, images)
    caller.close()
    token = dock.tokens["wide"]
    rate = requests_per_s(partial(_api_caller, token), "/api/v1/images/", seconds=seconds)
    figures["api_images_requests_per_s"] = Figure(rate, "requests/s", JSON_TARGET)
    rate = requests_per_s(partial(Caller, settings.PUBLIC_URL, session), "/images/", seconds=seconds)
    figures["page_images_requests_per_s"] = Figure(rate, "requests/s", HTML_TARGET)
    return figures


def _measure(  # noqa: PLR0917 -- called twice
    figures: dict[str, Figure], caller: Caller, title: str, path: str, repeats: int, target: float | None, images: int
) -> None:
    """Add the median and the 95th percentile of a request, and how many times its SQL it takes."""
    caller.database_ms.clear()
    times_ms = repeated_ms(partial(caller.get, path), repeats=repeats)
    before = BEFORE.get(images, {}).get(f"{title}_p50")
    figures[f"{title}_p50"] = Figure(percentile(times_ms, 0.5), "ms", before=before)
    figures[f"{title}_p95"] = Figure(percentile(times_ms, 0.95), "ms", target)
    database_ms = percentile(caller.database_ms[-repeats:], 0.5)
    figures[f"{title}_sql_p50"] = Figure(database_ms, "ms")
    ratio_target = (
        PAGE_TO_SQL_TARGET if title.startswith("page_") else LIST_TO_SQL_TARGET if target is not None else None
    )
    figures[f"{title}_to_its_sql"] = Figure(percentile(times_ms, 0.5) / max(database_ms, 0.01), "times", ratio_target)


def _wide_paths() -> Mapping[str, str]:
    """Return the API paths for a user who sees all teams. A deep page starts in the middle of the list."""
    image = _usual_image()
    middle_image, middle_promotion = _middle(Image), _middle(PromotionRequest)
    return {
        "api_images_first": "images/",
        "api_images_deep": f"images/?cursor={cursor_behind(middle_image)}",
        "api_images_of_200": "images/?limit=200",
        "api_image": f"images/{image.digest}/",
        "api_image_findings": f"images/{image.digest}/findings/",
        "api_repositories_first": "repositories/",
        "api_repositories_deep": f"repositories/?cursor={cursor_behind(_middle(Repository))}",
        "api_promotions_first": "promotions/",
        "api_promotions_open": "promotions/?state=open",
        "api_promotions_deep": f"promotions/?cursor={cursor_behind(middle_promotion)}",
        "api_audit_events_first": "audit-events/",
        "api_audit_events_deep": f"audit-events/?cursor={cursor_behind(_middle(AuditEvent))}",
    }


def _narrow_paths() -> Mapping[str, str]:
    """Return the API paths for a user who sees only one repository."""
    return {
        "api_images_first_of_one_repository": "images/",
        "api_repositories_first_of_one_repository": "repositories/",
        "api_promotions_first_of_one_repository": "promotions/",
        "api_audit_events_first_of_one_team": "audit-events/",
    }


def _admin_paths() -> Mapping[str, str]:
    return {"api_audit_events_first_of_an_admin": "audit-events/"}


def _pages() -> Mapping[str, str]:
    """Return {name of the figure: path of the page}."""
    image = _usual_image()
    member = RepositoryImage.objects.select_related("repository__team").filter(image=image)[0]
    address = reverse("lifecycle:image", args=[member.repository.team.slug, member.repository.name, image.digest])
    biggest = Repository.objects.annotate(count=Count("tags")).order_by("-count").select_related("team")[0]
    hub = Image.objects.get(
        pk=Ancestry.objects.values("ancestor").annotate(count=Count("id")).order_by("-count")[0]["ancestor"]
    )
    return {
        "page_images": reverse("lifecycle:images"),
        "page_images_search": reverse("lifecycle:images") + "?q=service-00",
        "page_repository_with_most_tags": reverse("lifecycle:repository", args=[biggest.team.slug, biggest.name]),
        "page_image": address,
        "page_image_findings": f"{address}?tab=findings",
        "page_image_packages": f"{address}?tab=packages",
        "page_image_lineage": f"{address}?tab=lineage",
        "page_image_history": f"{address}?tab=history",
        "page_lineage_roots": reverse("lifecycle:lineage"),
        "page_lineage_of_an_image": reverse("lifecycle:lineage-image", args=[image.digest]),
        "page_lineage_of_the_biggest_base": reverse("lifecycle:lineage-image", args=[hub.digest]),
        "page_inbox": reverse("lifecycle:inbox"),
        "page_promotions": reverse("lifecycle:promotions"),
    }


def _usual_image() -> Image:
    """Return an application image from the middle of the data set, with bases, packages and findings."""
    return Image.objects.filter(pk__gte=_middle(Image), layer_count__gte=8).order_by("pk")[0]


def _middle(model: type[Image | Repository | PromotionRequest | AuditEvent]) -> int:
    return int((model.objects.aggregate(last=Max("pk"))["last"] or 2) // 2)


def _api_caller(token: str) -> Caller:
    return Caller(settings.PUBLIC_URL, {"Authorization": f"Bearer {token}", "Accept": "application/json"})


def _session(username: str) -> dict[str, str]:
    """Return the headers of a signed-in browser."""
    client = Client()
    client.force_login(User.objects.get(username=username), backend=settings.AUTHENTICATION_BACKENDS[0])
    cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
    return {"Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}", "Accept": "text/html"}
