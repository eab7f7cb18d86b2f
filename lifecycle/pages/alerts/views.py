"""The pages of alerts: the list, and one alert with its images and what the reader can do about it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from lifecycle.alerts import services
from lifecycle.alerts.access import alert_for
from lifecycle.alerts.models import Alert
from lifecycle.alerts.queries import LIVE, alerts_visible_to, filtered, images_of, repositories_of
from lifecycle.alerts.sight import shown
from lifecycle.alerts.types import all_kinds, label_of
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core import clock
from lifecycle.core.paging import keyset_page
from lifecycle.core.severities import READING_ORDER
from lifecycle.pages.alerts.forms import ActForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import chosen, cursors, reader

_ALL: Final = "all"
_DONE: Final = {
    "acknowledge": "{} acknowledged.",
    "snooze": "{} snoozed.",
    "resolve": "{} resolved.",
}


@require_safe
def alerts(request: HttpRequest) -> HttpResponse:
    """List the alerts that the reader can see, newest first; the live ones by default."""
    user = reader(request)
    teams = list(teams_visible_to(user).order_by("slug").values_list("slug", flat=True))
    state = chosen(request, "state", (LIVE, _ALL, *Alert.State.values)) or LIVE
    kinds = [(kind.name, kind.label) for kind in all_kinds()]
    choice = {
        "kind": chosen(request, "kind", [name for name, _ in kinds]),
        "team": chosen(request, "team", teams),
        "severity": chosen(request, "severity", READING_ORDER),
        "name": request.GET.get("vulnerability", "")[:200],
        "cluster": request.GET.get("cluster", "")[:60],
    }
    rows = filtered(alerts_visible_to(user), state="" if state == _ALL else state, **choice)
    page = keyset_page(rows, ("-id",), **cursors(request))
    context = {
        "page": page,
        "entries": [(row, shown(row), label_of(row.kind)) for row in page.rows],
        "state": state,
        "states": [(LIVE, "Not resolved"), *Alert.State.choices, (_ALL, "All states")],
        "choice": choice,
        "kinds": kinds,
        "teams": teams,
        "severities": READING_ORDER,
        "is_filtered": any(choice.values()),
    }
    return render(request, "lifecycle/alerts/alerts.html", context)


@require_safe
def alert(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one alert: why, where, and what the reader can do about it."""
    return _page(request, alert_for(reader(request), pk), ActForm())


def _page(request: HttpRequest, row: Alert, form: ActForm, *, status: int = 200) -> HttpResponse:
    user = reader(request)
    context: dict[str, Any] = {
        "alert": row,
        "seen": shown(row),
        "label": label_of(row.kind),
        "repositories": repositories_of(row, user),
        "affected": images_of(row, user),
        "waiting": images_of(row, user, waiting=True),
        "former": alerts_visible_to(user).filter(pk=row.former_id).first() if row.former_id is not None else None,
        "form": form,
        "why_not_acknowledge": services.why_not_acknowledge(user, row),
        "why_not_snooze": services.why_not_snooze(user, row),
        "why_not_resolve": services.why_not_resolve(user, row),
    }
    return render(request, "lifecycle/alerts/alert.html", context, status=status)


@require_POST
def act(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Acknowledge, snooze or resolve an alert."""
    form = ActForm(request.POST)
    user = reader(request)
    if form.is_valid():
        with errors_shown_on(form, "reason"):
            reason = form.cleaned_data["reason"]
            if act == "acknowledge":
                row = services.acknowledge(pk, actor=user, reason=reason)
            elif act == "snooze":
                until = clock.now() + timedelta(days=form.cleaned_data["days"] or 1)
                row = services.snooze(pk, actor=user, until=until, reason=reason)
            else:
                row = services.resolve(pk, actor=user, reason=reason)
            messages.success(request, _DONE[act].format(row))
            return redirect("lifecycle:alert", row.pk)
    return _page(request, alert_for(user, pk), form, status=422)
