"""The page of what runs where, now or at a time."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from lifecycle.authority.queries import environments_visible_to
from lifecycle.core.errors import Malformed
from lifecycle.core.paging import keyset_page
from lifecycle.inventory.queries import at_time, digests_shown, running_images_visible_to
from lifecycle.pages.requests import chosen, cursors, reader
from lifecycle.pages.runtime.page_queries import cluster_lines, places_of
from lifecycle.runtime.exposure import known_of
from lifecycle.runtime.times import read_time


@require_safe
def running(request: HttpRequest) -> HttpResponse:
    """List what runs in clusters of the reader's teams, and images of repositories that they can see."""
    user = reader(request)
    lines = cluster_lines(user)
    places = environments_visible_to(user).select_related("team").order_by("team__slug", "position")
    environments = [f"{row.team.slug}/{row.slug}" for row in places[:200]]
    choice = {
        "cluster": chosen(request, "cluster", [line.cluster.slug for line in lines]),
        "environment": chosen(request, "environment", environments),
        "namespace": request.GET.get("namespace", "").strip()[:253],
        "at": request.GET.get("at", "").strip()[:40],
    }
    moment = read_time(choice["at"]) if choice["at"] else None
    if choice["at"] and moment is None:
        raise Malformed("Enter a time such as 2026-11-30T12:00:00Z.", back=request.path)
    rows = at_time(running_images_visible_to(user), moment)
    if choice["cluster"]:
        rows = rows.filter(Q(is_place_seen=True), cluster__slug=choice["cluster"])
    if choice["environment"]:
        team, _, slug = choice["environment"].partition("/")
        rows = rows.filter(Q(is_place_seen=True), environment__team__slug=team, environment__slug=slug)
    if choice["namespace"]:
        rows = rows.filter(Q(is_place_seen=True), namespace=choice["namespace"])
    page = keyset_page(rows, ("-id",), **cursors(request))
    seen = [row for row in page.rows if row.is_image_seen]
    now, pages, digests = known_of(seen), places_of(page.rows, user), digests_shown(page.rows)
    then = known_of(seen, moment) if moment else {}
    context: dict[str, Any] = {
        "page": page,
        "entries": [(row, digests[row.pk], pages.get(row.pk), now.get(row.pk), then.get(row.pk)) for row in page.rows],
        "lines": lines,
        "choice": choice,
        "environments": environments,
        "moment": moment,
        "is_filtered": any(choice.values()),
    }
    return render(request, "lifecycle/runtime/running.html", context)
