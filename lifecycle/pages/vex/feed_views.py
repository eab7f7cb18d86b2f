"""Pages of VEX feeds: the list, and one feed with its last run and its documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from lifecycle.authority.access import team_for
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core.paging import keyset_page
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader
from lifecycle.pages.vex.forms import NewVexFeedForm, VexFeedForm
from lifecycle.vex import feeds
from lifecycle.vex.access import feed_for
from lifecycle.vex.models import VexFeed
from lifecycle.vex.queries import feeds_visible_to

_OFFERED_MAX: Final = 200
_DOCUMENTS_SHOWN: Final = 50


@require_http_methods(["GET", "HEAD", "POST"])
def feed_list(request: HttpRequest) -> HttpResponse:
    """List the feeds that the reader can see, newest first, with a form to add one."""
    user = reader(request)
    form = NewVexFeedForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            values = form.values()
            team = values.pop("team")
            row = feeds.add_feed(actor=user, team=team_for(user, team) if team else None, **values)
            messages.success(request, f"Feed {row} added. Its first run is queued.")
            return redirect("lifecycle:vex-feed", row.pk)
    page = keyset_page(feeds_visible_to(user), ("-id",), **cursors(request))
    teams = teams_visible_to(user).order_by("slug").values_list("slug", flat=True)[:_OFFERED_MAX]
    context = {"page": page, "form": form, "offered": {"team": teams}.items()}
    return render(request, "lifecycle/vex/feeds.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def feed(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a feed with its last result, and change it."""
    user = reader(request)
    row = feed_for(user, pk)
    form = VexFeedForm.of(row, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            text = request.POST.get("revision", "")
            revision = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
            values = form.values()
            by_hand = values["every_hours"] is None
            feeds.change_feed(pk, actor=user, revision=revision, by_hand=by_hand, **values)
            messages.success(request, f"Feed {row} saved.")
            return redirect("lifecycle:vex-feed", pk)
    return _feed_page(request, row, form)


def _feed_page(request: HttpRequest, row: VexFeed, form: VexFeedForm) -> HttpResponse:
    user = reader(request)
    hidden = ("problems", "problem_count")
    context = {
        "feed": row,
        "form": form,
        "counts": [(name.replace("_", " "), value) for name, value in row.result.items() if name not in hidden],
        "documents": row.documents.order_by("-pk").defer("content")[:_DOCUMENTS_SHOWN],
        "fingerprint": feeds.fingerprint_of(row),
        "why_not_change": feeds.why_not_change(user, row),
        "why_not_trust": feeds.why_not_trust(user, row),
        "why_not_distrust": feeds.why_not_distrust(user, row),
        "why_not_remove": feeds.why_not_remove(user, row),
    }
    return render(request, "lifecycle/vex/feed.html", context, status=422 if form.errors else 200)


@require_POST
def sync(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue a run."""
    job = feeds.sync_now(pk, actor=reader(request), accept_smaller=bool(request.POST.get("accept_smaller")))
    messages.success(request, "The run is queued. This is its job.")
    return redirect("lifecycle:job", job.pk)


@require_POST
def act_on_feed(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Trust a feed, end its trust, or remove it."""
    acts: dict[str, tuple[Callable[..., Any], str]] = {
        "trust": (feeds.trust, "What the feed says counts now."),
        "distrust": (feeds.distrust, "What the feed says is advice now."),
        "remove": (feeds.remove_feed, "The feed is removed, and what it said is withdrawn."),
    }
    service, done = acts[act]
    service(pk, actor=reader(request), reason=request.POST.get("reason", "")[:2000])
    messages.success(request, done)
    return redirect("lifecycle:vex-feeds") if act == "remove" else redirect("lifecycle:vex-feed", pk)
