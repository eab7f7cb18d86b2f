"""The lineage pages: the list of root images, and the neighbourhood of one image."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from lifecycle.authority.queries import images_visible_to, repositories_open_to
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.pages.lineage.page_queries import derived_counts, neighbourhood_of, roots_visible
from lifecycle.pages.rebuild.page_queries import plan_offer
from lifecycle.pages.registry.page_queries import entries_of, lag_of
from lifecycle.pages.requests import cursors, reader
from lifecycle.quarantine.queries import add_covers
from lifecycle.registry.models import Image
from lifecycle.registry.queries import locations_of


@require_safe
def roots(request: HttpRequest) -> HttpResponse:
    """List the root images (base images with no base that the reader can see), newest first."""
    user = reader(request)
    repositories = repositories_open_to(user)
    page = keyset_page(roots_visible(user), ("-id",), **cursors(request))
    ids = [image.pk for image in page.rows]
    locations, counts = locations_of(ids, repositories), derived_counts(ids, user)
    entries = [(image, locations[image.pk], counts[image.pk]) for image in page.rows if image.pk in locations]
    add_covers((image for image, _, _ in entries), user)
    return render(request, "lifecycle/lineage/roots.html", {"page": page, "entries": entries})


@require_safe
def neighbourhood(request: HttpRequest, digest: str) -> HttpResponse:
    """Show the ancestors and descendants of one image; for an index, those of its first platform."""
    user = reader(request)
    visible, repositories = images_visible_to(user), repositories_open_to(user)
    named = visible.filter(digest=digest).exclude(kind=Image.Kind.ARTIFACT).first()
    if named is None:
        raise NotFound("Image not found, or you don't have access.")
    entries = entries_of(named)
    focus = entries[0].child if entries else named
    around = neighbourhood_of(focus, user)
    locations = locations_of([named.pk, focus.pk], repositories)
    place = locations.get(named.pk) or locations_of([focus.pk], repositories).get(focus.pk)
    context = {
        "named": named,
        "image": focus,
        "place": place,
        "plan": plan_offer(user, place.repository, named) if place is not None else None,
        "around": around,
        "most": max((level.count for level in around.levels), default=1),
        "lag": lag_of(named, repositories) or lag_of(focus, repositories),
    }
    return render(request, "lifecycle/lineage/neighbourhood.html", context)
