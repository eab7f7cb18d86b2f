"""The pages of quarantines: the list, one quarantine with what it covers, and the forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from lifecycle.authority.queries import repositories_open_to
from lifecycle.core.paging import keyset_page
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.quarantine.forms import ActForm, ExemptionForm, QuarantineForm
from lifecycle.pages.requests import chosen, cursors, reader
from lifecycle.quarantine import services
from lifecycle.quarantine.access import quarantine_for
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covered_images, exemptions_of, quarantines_visible_to, withdrawals_of
from lifecycle.registry.queries import locations_of

_SHOWN: Final = 100  # covered images on the page
_DONE: Final = {
    "request_release": "Release of {} requested. Another person must lift it.",
    "release": "{} lifted.",
    "refuse_release": "{} stays active.",
    "withdraw": "{} stops pulls too. A job takes the image out of the registry.",
}


@require_safe
def quarantine_list(request: HttpRequest) -> HttpResponse:
    """List the quarantines of images that the reader can see, newest first."""
    user = reader(request)
    state = chosen(request, "state", Quarantine.State.values)
    rows = quarantines_visible_to(user)
    page = keyset_page(rows.filter(state=state) if state else rows, ("-id",), **cursors(request))
    places = locations_of([row.image_id for row in page.rows], repositories_open_to(user))
    context = {
        "page": page,
        "entries": [(row, places.get(row.image_id)) for row in page.rows],
        "state": state,
        "states": Quarantine.State.choices,
    }
    return render(request, "lifecycle/quarantine/quarantines.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_quarantine(request: HttpRequest) -> HttpResponse:
    """Quarantine a digest."""
    if request.method != "POST":
        form = QuarantineForm(initial={"digest": request.GET.get("digest", "")[:135], "descendants": True})
        return render(request, "lifecycle/quarantine/new.html", {"form": form})
    form = QuarantineForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            values = dict(form.cleaned_data)
            made = services.quarantine(values.pop("digest"), actor=reader(request), **values)
            messages.success(request, f"{made} is active.")
            return redirect("lifecycle:quarantine", made.pk)
    return render(request, "lifecycle/quarantine/new.html", {"form": form}, status=422)


@require_safe
def quarantine(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one quarantine: what it covers, and what the reader can do about it."""
    return _page(request, quarantine_for(reader(request), pk))


def _page(request: HttpRequest, row: Quarantine, *, status: int = 200, **forms: Any) -> HttpResponse:
    user = reader(request)
    covered = covered_images(row, user, limit=_SHOWN + 1)
    visible = repositories_open_to(user)
    places = locations_of([row.image_id, *(image.pk for image, _ in covered)], visible)
    context = {
        "quarantine": row,
        "place": places.get(row.image_id),
        "covered": [(image, places.get(image.pk)) for image, _ in covered[:_SHOWN]],
        "has_more": len(covered) > _SHOWN,
        "exemptions": exemptions_of(row, user)[:_SHOWN],
        "withdrawals": withdrawals_of(row, user)[:_SHOWN] if row.withdraw else [],
        "form": ActForm(),
        "exemption_form": ExemptionForm(),
        "why_not_request": services.why_not_request_release(user, row),
        "why_not_release": services.why_not_release(user, row),
        "why_not_refuse": services.why_not_refuse_release(user, row),
        "why_not_withdraw": services.why_not_withdraw(user, row),
    }
    return render(request, "lifecycle/quarantine/quarantine.html", context | forms, status=status)


@require_POST
def act(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Ask for the release of a quarantine, lift it as a second person, refuse that, or let it stop pulls too."""
    acts: dict[str, Callable[..., Quarantine]] = {
        "request_release": services.request_release,
        "release": services.release,
        "refuse_release": services.refuse_release,
        "withdraw": services.withdraw,
    }
    form = ActForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "reason"):
            row = acts[act](pk, actor=reader(request), reason=form.cleaned_data["reason"])
            messages.success(request, _DONE[act].format(row))
            return redirect("lifecycle:quarantine", row.pk)
    return _page(request, quarantine_for(reader(request), pk), status=422, form=form)


@require_POST
def exempt(request: HttpRequest, pk: int) -> HttpResponse:
    """Exempt one image from the quarantine of its base, as a second person."""
    form = ExemptionForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            made = services.exempt(
                pk, form.cleaned_data["digest"].strip(), actor=reader(request), reason=form.cleaned_data["reason"]
            )
            messages.success(request, f"{made.image.short_digest} is exempt.")
            return redirect("lifecycle:quarantine", pk)
    return _page(request, quarantine_for(reader(request), pk), status=422, exemption_form=form)
