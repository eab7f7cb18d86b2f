"""The pages of feeds, for admins: list, add, change, synchronise and remove."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from lifecycle.advisories import feeds as services
from lifecycle.advisories.access import feed_for, feeds_for
from lifecycle.advisories.kinds import SYNC_FEED
from lifecycle.core.paging import keyset_page
from lifecycle.jobs.models import Job
from lifecycle.pages.advisories.forms import FeedForm, NewFeedForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader


@require_safe
def feeds(request: HttpRequest) -> HttpResponse:
    """List all feeds with their age, and what could not be read."""
    rows = feeds_for(reader(request))
    page = keyset_page(rows, ("name", "id"), **cursors(request))
    busy = _running([row.pk for row in page.rows])
    for row in page.rows:
        row.job = busy.get(row.pk)  # type: ignore[attr-defined]  # for the template alone
    kinds = set(rows.values_list("kind", flat=True))
    context = {
        "page": page,
        "missing": [label for kind, label in services.FEED_KINDS if kind not in kinds],
    }
    return render(request, "lifecycle/advisories/feeds.html", context)


def _running(feed_ids: list[int]) -> dict[int, Job]:
    rows = Job.objects.filter(
        kind=SYNC_FEED.name, subject_id__in=feed_ids, state__in=(Job.State.WAITING, Job.State.RUNNING)
    )
    return {job.subject_id: job for job in rows.order_by("-pk")}


@require_http_methods(["GET", "HEAD", "POST"])
def new_feed(request: HttpRequest) -> HttpResponse:
    """Add a feed."""
    user = reader(request)
    feeds_for(user)
    form = NewFeedForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            row = services.add_feed(actor=user, **form.values())
            messages.success(request, f"Feed {row} added. Its first run is queued.")
            return redirect("lifecycle:feed", row.pk)
    context = {"form": form, "feed": None}
    return render(request, "lifecycle/advisories/feed.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def feed(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a feed with its last result, and change it."""
    user = reader(request)
    row = feed_for(user, pk)
    form = FeedForm.of(row, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            text = request.POST.get("revision", "")
            revision = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
            values = dict(form.cleaned_data)
            by_hand = values["every_hours"] is None
            services.change_feed(pk, actor=user, revision=revision, by_hand=by_hand, **values)
            messages.success(request, f"Feed {row} saved.")
            return redirect("lifecycle:feed", pk)
    counts = [(name.replace("_", " "), value) for name, value in row.result.items() if name != "errors"]
    context = {"form": form, "feed": row, "job": _running([pk]).get(pk), "counts": counts}
    return render(request, "lifecycle/advisories/feed.html", context, status=422 if form.errors else 200)


@require_POST
def sync(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue a run."""
    job = services.sync_now(pk, actor=reader(request), accept_smaller=bool(request.POST.get("accept_smaller")))
    messages.success(request, "The run is queued. This is its job.")
    return redirect("lifecycle:job", job.pk)


@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then queue the removal of a feed."""
    user = reader(request)
    row = feed_for(user, pk)
    if request.method == "POST":
        services.remove_feed(pk, actor=user)
        messages.success(request, f"Feed {row} is being removed with its advisories.")
        return redirect("lifecycle:feeds")
    return render(request, "lifecycle/advisories/remove_feed.html", {"feed": row})
