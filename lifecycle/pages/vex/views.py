"""Pages of VEX: the decisions, one decision, the form, and the documents."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from lifecycle.authority.access import repository_named, team_for
from lifecycle.authority.queries import repositories_visible_to, teams_visible_to
from lifecycle.core.paging import keyset_page
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import chosen, cursors, reader
from lifecycle.pages.vex.forms import VexDecisionForm, VexDocumentForm, VexReasonForm
from lifecycle.vex import documents, services
from lifecycle.vex.access import decision_for, document_for
from lifecycle.vex.models import VexDocument, VexStatement
from lifecycle.vex.queries import decisions_visible_to, documents_visible_to

_OFFERED_MAX: Final = 200  # names of one kind
_STATEMENTS_SHOWN: Final = 200  # of a document


@require_safe
def decision_list(request: HttpRequest) -> HttpResponse:
    """List the decisions that the reader can see, newest first."""
    state = chosen(request, "state", VexStatement.State.values)
    rows = decisions_visible_to(reader(request))
    page = keyset_page(rows.filter(state=state) if state else rows, ("-id",), **cursors(request))
    states = [name for name in VexStatement.State.values if name != VexStatement.State.ADVICE]
    return render(request, "lifecycle/vex/decisions.html", {"page": page, "state": state, "states": states})


@require_http_methods(["GET", "HEAD", "POST"])
def new_decision(request: HttpRequest) -> HttpResponse:
    """Show the form of a decision, filled from the URL, or make it."""
    if request.method != "POST":
        first = {"scope": VexStatement.Scope.REPOSITORY.value} | request.GET.dict()
        return _decision_form(request, VexDecisionForm(initial=first))
    form = VexDecisionForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            made = _decided(request, **form.cleaned_data)
            waits = made.state == VexStatement.State.REQUESTED
            messages.success(request, f"{made} {'waits for a second person' if waits else 'counts now'}.")
            return redirect("lifecycle:vex-decision", made.pk)
    return _decision_form(request, form, status=422)


def _decision_form(request: HttpRequest, form: VexDecisionForm, *, status: int = 200) -> HttpResponse:
    sources = repositories_visible_to(reader(request)).filter(source=None)
    context = {
        "form": form,
        "needs_second": settings.VEX_SECOND_PERSON,
        "offered": {
            "repository": sources.order_by("name").values_list("name", flat=True)[:_OFFERED_MAX],
            "team": _teams(request),
        }.items(),
    }
    return render(request, "lifecycle/vex/new_decision.html", context, status=status)


def _teams(request: HttpRequest) -> Any:
    return teams_visible_to(reader(request)).order_by("slug").values_list("slug", flat=True)[:_OFFERED_MAX]


def _decided(request: HttpRequest, **values: Any) -> VexStatement:
    user, repository, team, until = reader(request), values.pop("repository"), values.pop("team"), values.pop("until")
    return services.decide(
        values.pop("vulnerability"),
        values.pop("status"),
        actor=user,
        repository=repository_named(user, repository) if repository else None,
        team=team_for(user, team) if team else None,
        until=datetime.combine(until, time(), tzinfo=UTC) if until else None,
        **values,
    )


@require_safe
def decision(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one decision, with what the reader can do about it."""
    return _decision_page(request, decision_for(reader(request), pk), VexReasonForm())


def _decision_page(request: HttpRequest, row: VexStatement, form: VexReasonForm, *, status: int = 200) -> HttpResponse:
    context = {
        "row": row,
        "form": form,
        "why_not_approve": services.why_not_approve(reader(request), row),
        "why_not_withdraw": services.why_not_withdraw(reader(request), row),
    }
    return render(request, "lifecycle/vex/decision.html", context, status=status)


@require_POST
def act_on_decision(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Approve, reject or withdraw a decision."""
    acts: dict[str, Callable[..., VexStatement]] = {
        "approve": services.approve,
        "reject": services.reject,
        "withdraw": services.withdraw,
    }
    form = VexReasonForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "reason"):
            row = acts[act](pk, actor=reader(request), reason=form.cleaned_data["reason"])
            messages.success(request, f"{row} is {row.state} now.")
            return redirect("lifecycle:vex-decision", row.pk)
    return _decision_page(request, decision_for(reader(request), pk), form, status=422)


@require_http_methods(["GET", "HEAD", "POST"])
def document_list(request: HttpRequest) -> HttpResponse:
    """List the documents that the reader can see, newest first, with a form to bring one."""
    form = VexDocumentForm(request.POST or None, request.FILES or None)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            with errors_shown_on(form):
                user, team = reader(request), form.cleaned_data["team"]
                made = documents.import_document(
                    form.cleaned_data["content"], actor=user, team=team_for(user, team) if team else None
                )
                messages.success(request, f"{made} is here. It counts once a second person accepts it.")
                return redirect("lifecycle:vex-document", made.pk)
    page = keyset_page(documents_visible_to(reader(request)), ("-id",), **cursors(request))
    context = {"page": page, "form": form, "offered": {"team": _teams(request)}.items()}
    return render(request, "lifecycle/vex/documents.html", context, status=status)


@require_safe
def document(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one document with its first statements, and what the reader can do about it."""
    return _document_page(request, document_for(reader(request), pk), VexReasonForm())


def _document_page(request: HttpRequest, row: VexDocument, form: VexReasonForm, *, status: int = 200) -> HttpResponse:
    context = {
        "row": row,
        "form": form,
        "statements": row.statements.order_by("pk")[:_STATEMENTS_SHOWN],
        "shown": min(row.statement_count, _STATEMENTS_SHOWN),
        "why_not_accept": documents.why_not_accept(reader(request), row),
        "why_not_withdraw": documents.why_not_withdraw(reader(request), row),
    }
    return render(request, "lifecycle/vex/document.html", context, status=status)


@require_POST
def act_on_document(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Accept or withdraw a document."""
    acts: dict[str, Callable[..., VexDocument]] = {"accept": documents.accept, "withdraw": documents.withdraw_document}
    form = VexReasonForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "reason"):
            row = acts[act](pk, actor=reader(request), reason=form.cleaned_data["reason"])
            messages.success(request, f"{row} is {row.state} now.")
            return redirect("lifecycle:vex-document", row.pk)
    return _document_page(request, document_for(reader(request), pk), form, status=422)
