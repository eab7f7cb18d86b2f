"""Pages of the audit log: the filtered list, one event, and the export as a file."""

from __future__ import annotations

from typing import Any, Final

from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe

from accounts.models import User
from lifecycle.audit import exporting
from lifecycle.audit.forms import FilterForm
from lifecycle.audit.models import AuditEvent
from lifecycle.audit.queries import filtered, for_list
from lifecycle.authority.access import event_for
from lifecycle.authority.queries import audited_teams, events_visible_to
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotPermitted
from lifecycle.core.paging import Page, keyset_page
from lifecycle.pages.audit import wording
from lifecycle.pages.audit.forms import ExportForm
from lifecycle.pages.audit.page_queries import links_of
from lifecycle.pages.requests import cursors, reader, sort_of
from lifecycle.sealed_log import exporting as sealed
from lifecycle.sealed_log.exporting import Wanted
from lifecycle.sealed_log.queries import entries_about
from lifecycle.sealed_log.status import status

EXPORT_MAX: Final = 10_000  # events in one file; narrow the dates to get the rest in more files

_NOTE: Final = f"An export contains at most {EXPORT_MAX:,} events and is recorded in the audit log."


def _auditor(request: HttpRequest) -> User:
    """Return the reader if they can read the audit log of at least one team; raises NotPermitted."""
    user = reader(request)
    if not user.is_superuser and not audited_teams(user).exists():
        raise NotPermitted("You need audit.read in a team. Ask a team owner or an admin to grant it.")
    return user


@require_safe
def audit(request: HttpRequest) -> HttpResponse:
    """List the events that the reader can read, newest first. The query string contains the filter."""
    user = _auditor(request)
    form = FilterForm(request.GET)
    page: Page[AuditEvent] = Page([], "", "")
    sort, order = sort_of(request, {"time": ("-id",)})
    if form.is_valid():
        rows = filtered(for_list(events_visible_to(user)), form.event_filter())
        page = keyset_page(rows, order, **cursors(request))
    teams = list(audited_teams(user).order_by("slug").values_list("slug", flat=True))
    is_filtered = any(request.GET.get(name) for name in form.fields)
    context = {"page": page, "form": form, "teams": teams, "is_filtered": is_filtered, "note": _NOTE, "sort": sort}
    context["log"] = status()
    return render(request, "lifecycle/audit/audit.html", context, status=422 if form.errors else 200)


@require_safe
def event(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one event with all recorded fields."""
    user = reader(request)
    stored = event_for(user, pk)
    details, before, after = wording.split(stored.details)
    context = {
        "event": stored,
        "links": links_of(stored, user),
        **_seal_of(stored),
        "details": [(wording.label_of(name), wording.text_of(value)) for name, value in details],
        "changes": wording.changes_of(before, after),
        "differences": wording.differences(before, after),
        "as_json": "".join(exporting.lines_of([stored], "jsonl")),
    }
    return render(request, "lifecycle/audit/event.html", context)


def _seal_of(event: AuditEvent) -> dict[str, Any]:
    """Return the entry of an event, how the log stands, and whether an anchor has the entry."""
    entry = entries_about(event.pk).select_related("origin").first()
    log = status()
    if entry is None or log.origin is None:
        return {"entry": entry, "log": log, "is_anchored": False}
    is_earlier = entry.origin_id != log.origin.pk  # the log that follows names its size and root
    return {"entry": entry, "log": log, "is_anchored": is_earlier or entry.index < log.anchored_size}


@require_GET
def export(request: HttpRequest) -> HttpResponseBase:
    """Send the filtered events as a file (`?format=csv` or `jsonl`), newest first, and record the export."""
    user = _auditor(request)
    form, kind = FilterForm(request.GET), request.GET.get("format", "csv")
    if not form.is_valid():
        raise Malformed("The filter has errors. Fix them on the audit log page.")
    lines = exporting.export(events_visible_to(user), form.event_filter(), kind, actor=user, limit=EXPORT_MAX)
    response = StreamingHttpResponse(lines, content_type=exporting.FORMATS[kind])
    name = f"audit-{clock.now():%Y%m%dT%H%M%SZ}.{kind}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response


@require_GET
def sealed_export(request: HttpRequest) -> HttpResponseBase:
    """Send a signed export of the days in the query string, or of one subject, and record the export."""
    form = ExportForm(request.GET)
    if not form.is_valid():
        raise Malformed("Enter days as 2026-11-30, and the last day not before the first.")
    stream = sealed.export(reader(request), Wanted(**form.cleaned_data))
    return FileResponse(stream, as_attachment=True, filename=sealed.FILE_NAME, content_type=sealed.MEDIA_TYPE)


@require_GET
def proof(request: HttpRequest, pk: int) -> HttpResponse:
    """Send the proof that an event is in the log, as a file."""
    text = sealed.proof_of(event_for(reader(request), pk))
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="event-{pk}.tlog-proof"'
    return response
