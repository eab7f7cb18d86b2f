"""The page of the sealed log: how far it is sealed and anchored, its anchors, and its signed export."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from lifecycle.core.reasons import refuse_if
from lifecycle.pages.audit.forms import AnchorForm, ExportForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import reader
from lifecycle.sealed_log import services
from lifecycle.sealed_log.access import why_not_read_log
from lifecycle.sealed_log.models import Anchor, LogOrigin
from lifecycle.sealed_log.status import status


@require_http_methods(["GET", "HEAD", "POST"])
def log(request: HttpRequest) -> HttpResponse:
    """Show the sealed log, and add an anchor."""
    user = reader(request)
    refuse_if(why_not_read_log(user))
    why_not = services.why_not_manage_anchors(user)
    form = AnchorForm(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        refuse_if(why_not)
        if form.is_valid():
            with errors_shown_on(form):
                row = services.add_anchor(**form.cleaned_data, actor=user)
                messages.success(request, f"Anchor {row} added. It gets the last checkpoint now.")
                return redirect("lifecycle:audit-log")
    context = {
        "log": status(),
        "anchors": Anchor.objects.select_related("created_by").order_by("name"),
        "earlier": LogOrigin.objects.order_by("-number")[1:21],
        "form": form,
        "export_form": ExportForm(),
        "may_manage": why_not is None,
    }
    return render(request, "lifecycle/audit/log.html", context, status=422 if form.errors else 200)


@require_POST
def remove_anchor(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove an anchor."""
    services.remove_anchor(pk, actor=reader(request))
    messages.success(request, "Anchor removed. The checkpoints it has got stay there.")
    return redirect("lifecycle:audit-log")
