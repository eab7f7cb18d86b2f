"""The pages of external checks: list, create, change and delete."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.verbs import Verb
from lifecycle.authority.access import team_for
from lifecycle.authority.queries import teams_where
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.policies.forms import CheckForm, NewCheckForm
from lifecycle.pages.requests import cursors, reader
from lifecycle.policies import checks as services
from lifecycle.policies.access import check_for, why_not_manage
from lifecycle.policies.models import ExternalCheck
from lifecycle.policies.queries import checks_visible_to
from lifecycle.policies.types import Scope


@require_safe
def checks(request: HttpRequest) -> HttpResponse:
    """List the external checks of the site, and of the reader's teams."""
    user = reader(request)
    context = {
        "page": keyset_page(checks_visible_to(user), ("id",), **cursors(request)),
        "may_create": user.is_superuser or teams_where(user, Verb.POLICY_MANAGE).exists(),
    }
    return render(request, "lifecycle/policies/checks.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def new_check(request: HttpRequest) -> HttpResponse:
    """Set up a check, and show its secret once."""
    user = reader(request)
    form = NewCheckForm(user, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            values = form.cleaned_data
            team = team_for(user, values["team"]) if values["team"] else None
            row, secret = services.create_check(team, values["name"], values["address"], actor=user)
            return _secret(request, row, secret)
    context = {"form": form, "check": None}
    return render(request, "lifecycle/policies/check.html", context, status=422 if form.errors else 200)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def check(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a check, and change its address or its secret."""
    user = reader(request)
    row = check_for(user, pk)
    form = CheckForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            text = request.POST.get("revision", "")
            revision = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
            row, secret = services.change_check(pk, actor=user, revision=revision, **form.cleaned_data)
            if secret:
                return _secret(request, row, secret)
            messages.success(request, "Check saved. Its earlier answers do not count any more.")
            return redirect("lifecycle:external-check", pk)
    context = {"form": form, "check": row, "why_not": why_not_manage(user, Scope(row.team))}
    return render(request, "lifecycle/policies/check.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def delete_check(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then delete a check."""
    user = reader(request)
    row = check_for(user, pk)
    refuse_if(why_not_manage(user, Scope(row.team)))
    if request.method == "POST":
        services.delete_check(pk, actor=user)
        messages.success(request, f"{row} deleted.")
        return redirect("lifecycle:external-checks")
    return render(request, "lifecycle/policies/delete_check.html", {"check": row})


def _secret(request: HttpRequest, row: ExternalCheck, secret: str) -> HttpResponse:
    return render(request, "lifecycle/policies/check_secret.html", {"check": row, "secret": secret})
