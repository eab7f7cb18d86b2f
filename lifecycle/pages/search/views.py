"""The search, and the pages across images: one advisory, one package. They show only images that the reader can see."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

from lifecycle.advisories.exploits import exploit_feeds, exploits_of, together
from lifecycle.advisories.models import Feed
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.pages.requests import cursors, reader
from lifecycle.search import vulnerabilities
from lifecycle.search.queries import TEXT_MAX, images_with_packages_seen
from lifecycle.search.queries import search as hits_for


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """Show what `?q=` finds. The palette (Ctrl+K) loads only the list."""
    text = request.GET.get("q", "")[:TEXT_MAX].strip()
    hits = hits_for(reader(request), text)
    context = {
        "q": text,
        "hits": [(hit, reverse(hit.page, args=hit.page_args)) for hit in hits],
        "is_palette": bool(getattr(request, "htmx", False)),
    }
    name = "_hits" if context["is_palette"] else "search"
    response = render(request, f"lifecycle/search/{name}.html", context)
    patch_vary_headers(response, ["HX-Request"])
    return response


@require_safe
def advisory(request: HttpRequest, osv_id: str) -> HttpResponse:
    """Show the records of one vulnerability under any of its names, and the images of the reader that it affects."""
    user = reader(request)
    found = vulnerabilities.vulnerability(osv_id)
    if found is None:
        raise NotFound("No feed has an advisory with this id.")
    packages = vulnerabilities.affected_packages(found.records)
    page = keyset_page(images_with_packages_seen(user, packages), ("-id",), **cursors(request))
    lead = found.records[0]
    rated = found.rated
    cves = found.cves
    context = {
        "osv_id": osv_id,
        # Its name is nobody's business: no link tells it to a public page.
        "is_private": all(record.feed.kind == Feed.Kind.OWN for record in found.records),
        "names": found.names,
        "lead": lead,
        "records": found.records,
        "scored": found.scored,
        "severity": rated.severity if rated else "unknown",
        "exploit": together(cves, exploits_of(cves)),
        "exploit_feeds": exploit_feeds(),
        "severity_by": rated.severity_by if rated else "",
        "page": page,
        "rows": vulnerabilities.carrier_rows(user, page.rows, packages, found.records),
    }
    return render(request, "lifecycle/search/advisory.html", context)


@require_safe
def package(request: HttpRequest, kind: str, name: str) -> HttpResponse:
    """Show the images of the reader with any version of one package."""
    user = reader(request)
    versions = [row.pk for row in vulnerabilities.packages_called(kind, name)]
    page = keyset_page(images_with_packages_seen(user, versions), ("-id",), **cursors(request))
    if not page and not request.GET.get("after") and not request.GET.get("before"):
        raise NotFound("No image you can see contains this package.")
    rows = vulnerabilities.carrier_rows(user, page.rows, versions)
    context = {"kind": kind, "name": name, "page": page, "rows": rows}
    return render(request, "lifecycle/search/package.html", context)
