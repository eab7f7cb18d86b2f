"""The pages of retention: rules, plans, and one plan with what it keeps and deletes."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.verbs import Verb
from lifecycle.authority.queries import teams_where
from lifecycle.core.errors import Conflict
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import chosen, cursors, reader
from lifecycle.pages.retention.forms import PlanForm, RulesForm
from lifecycle.retention import services
from lifecycle.retention.access import place_for, plan_for, why_not_retain
from lifecycle.retention.constants import COLLECT
from lifecycle.retention.models import RetentionEntry
from lifecycle.retention.queries import entries_of, plans_visible_to, rules_of


@require_safe
def plan_list(request: HttpRequest) -> HttpResponse:
    """List the plans that the reader can see, newest first, and the teams whose rules they can set."""
    user = reader(request)
    context = {
        "page": keyset_page(plans_visible_to(user), ("-id",), **cursors(request)),
        "teams": teams_where(user, Verb.IMAGE_DELETE).order_by("slug")[:100],
    }
    return render(request, "lifecycle/retention/plans.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def rules(request: HttpRequest, **where: Any) -> HttpResponse:
    """Show the rules of a team or repository, and change them."""
    user = reader(request)
    owner, repository = place_for(user, **where)
    row = rules_of(team=owner) if repository is None else rules_of(repository=repository)
    why_not = why_not_retain(user, owner, repository)
    if request.method == "POST":
        refuse_if(why_not)
        form = RulesForm(request.POST)
        if form.is_valid():
            with errors_shown_on(form):
                services.save_rules(actor=user, **where, **form.rules())
                messages.success(request, "Rules saved. Make a plan to see what they would delete.")
                return redirect(request.path)
    else:
        shown: dict[str, Any] = {"revision": 0}
        if row is not None:
            shown = {name: getattr(row, name) for name in services.FIELDS}
            shown |= {"tags": " ".join(row.tags), "revision": row.revision}
        form = RulesForm(initial=shown)
    context = {
        "team": owner,
        "repository": repository,
        "rules": row,
        "team_rules": rules_of(team=owner) if repository is not None and row is None else None,
        "form": form,
        "plan_form": PlanForm(),
        "why_not": why_not,
    }
    return render(request, "lifecycle/retention/rules.html", context, status=422 if form.errors else 200)


@require_POST
def new_plan(request: HttpRequest, **where: Any) -> HttpResponse:
    """Make a plan of a team or repository."""
    accept = bool(request.POST.get("accept_unknown_runtime"))
    made = services.make_plan(actor=reader(request), accept_unknown_runtime=accept, **where)
    return redirect("lifecycle:retention-plan", made.pk)


@require_safe
def plan(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what a plan deletes and keeps, and why."""
    user = reader(request)
    row = plan_for(user, pk)
    state = chosen(request, "state", RetentionEntry.State.values)
    entries = entries_of(row, user)
    context = {
        "plan": row,
        "page": keyset_page(entries.filter(state=state) if state else entries, ("id",), **cursors(request)),
        "state": state,
        "states": RetentionEntry.State.choices,
        "hint": COLLECT,
        "why_not_confirm": services.why_not_confirm(user, row),
        "why_not_restore": services.why_not_restore(user, row),
    }
    return render(request, "lifecycle/retention/plan.html", context)


@require_POST
def confirm(request: HttpRequest, pk: int) -> HttpResponse:
    """Confirm a plan; show the new one if it had to be planned anew."""
    try:
        services.confirm(pk, actor=reader(request))
    except Conflict as error:
        if "plan" not in error.details:
            raise
        messages.warning(request, error.message)
        return redirect("lifecycle:retention-plan", error.details["plan"])
    messages.success(request, "Confirmed. A job deletes the images.")
    return redirect("lifecycle:retention-plan", pk)


@require_POST
def restore(request: HttpRequest, pk: int) -> HttpResponse:
    """Put back what a plan deleted, or one digest of it."""
    digest = request.POST.get("digest", "")
    services.restore(pk, actor=reader(request), digests=[digest] if digest else [])
    messages.success(request, "A job puts the images back.")
    return redirect("lifecycle:retention-plan", pk)
