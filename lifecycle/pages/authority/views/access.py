"""Pages of access requests, of what an account has and where it comes from, and of access files."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.queries import roles_for_people
from lifecycle.authority import services
from lifecycle.authority.access import access_request_for
from lifecycle.authority.effective import effective_rights, principal_for
from lifecycle.authority.models import AccessRequest
from lifecycle.authority.queries import access_requests_visible_to, teams_askable_by
from lifecycle.authority.services import asking
from lifecycle.core.errors import NotFound, StaleVersion
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.declared import services as declared
from lifecycle.declared.document import as_yaml, read_text
from lifecycle.declared.state import export
from lifecycle.pages.authority.access_forms import AccessFileForm, AskForm, DecideForm, WhoForm, mark_of
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import chosen, cursors, reader

_OFFERED_MAX: Final = 200


@require_safe
def access_requests(request: HttpRequest) -> HttpResponse:
    """List the access requests that the reader made or decides about, newest first."""
    state = chosen(request, "state", AccessRequest.State.values)
    rows = access_requests_visible_to(reader(request))
    page = keyset_page(rows.filter(state=state) if state else rows, ("-id",), **cursors(request))
    context = {"page": page, "state": state, "states": AccessRequest.State.values}
    return render(request, "lifecycle/authority/access_requests.html", context)


def _roles_with(verb: str) -> list[tuple[str, str]]:
    """Return the roles that include `verb` (all without one), those with the fewest verbs first."""
    rows = roles_for_people()
    if verb:
        rows = rows.filter(verbs__contains=[verb])
    found = sorted(rows, key=lambda role: (len(role.verbs), role.slug))
    return [(role.slug, f"{role.slug}: {', '.join(sorted(role.verbs))}"[:200]) for role in found]


@require_http_methods(["GET", "HEAD", "POST"])
def new_access_request(request: HttpRequest) -> HttpResponse:
    """Show the form of an access request, filled from a refusal, or make the request."""
    user = reader(request)
    refuse_if(asking.why_not_ask(user))
    if request.method != "POST":
        first = request.GET.dict()
        if first.get("repository"):
            first["repository_pattern"] = first["repository"]
        return _ask_page(request, AskForm(_roles_with(first.get("verb", "")), initial=first))
    form = AskForm(_roles_with(request.POST.get("verb", "")), request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            values = dict(form.cleaned_data)
            row = services.ask_for_access(values.pop("team"), actor=user, **values)
            messages.success(request, f"{row} sent to {', '.join(asking.owners_of(row.team)) or 'the admins'}.")
            return redirect("lifecycle:access-request", row.pk)
    return _ask_page(request, form, status=422)


def _ask_page(request: HttpRequest, form: AskForm, *, status: int = 200) -> HttpResponse:
    teams = teams_askable_by(reader(request)).order_by("slug").values_list("slug", flat=True)[:_OFFERED_MAX]
    context = {"form": form, "verb": form["verb"].value() or "", "teams": teams}
    return render(request, "lifecycle/authority/new_access_request.html", context, status=status)


@require_safe
def access_request(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one access request, with what the reader can do about it."""
    row = access_request_for(reader(request), pk)
    return _page(request, row, DecideForm(initial={"days": row.days}))


def _page(request: HttpRequest, row: AccessRequest, form: DecideForm, *, status: int = 200) -> HttpResponse:
    user = reader(request)
    context: dict[str, Any] = {
        "row": row,
        "form": form,
        "why_not_decide": asking.why_not_decide(user, row),
        "why_not_withdraw": asking.why_not_withdraw(user, row),
        "is_own": row.requester_id == user.pk,
        "owners": asking.owners_of(row.team),
    }
    return render(request, "lifecycle/authority/access_request.html", context, status=status)


@require_POST
def act_on_access_request(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Grant, decline or take back an access request."""
    user, form = reader(request), DecideForm(request.POST)
    if form.is_valid():
        days, comment = form.cleaned_data["days"], form.cleaned_data["comment"]
        with errors_shown_on(form, "comment" if act == "decline" else "days"):
            if act == "grant":
                row = services.grant_access(pk, actor=user, days=days, comment=comment)
            elif act == "decline":
                row = services.decline_access(pk, actor=user, comment=comment)
            else:
                row = services.withdraw_access_request(pk, actor=user)
            messages.success(request, f"{row} is {row.state} now.")
            return redirect("lifecycle:access-request", pk)
    return _page(request, access_request_for(user, pk), form, status=422)


@require_safe
def effective(request: HttpRequest) -> HttpResponse:
    """Show what an account (`?who=`, by default the reader) has now, with the origin of each."""
    user, form = reader(request), WhoForm(request.GET or None)
    shown, status = None, 200
    try:
        shown = effective_rights(principal_for(user, request.GET.get("who", "").strip() or user.username), reader=user)
    except NotFound as error:
        form.is_valid()
        form.add_error("who", error.message)
        status = 404
    return render(request, "lifecycle/authority/effective.html", {"form": form, "effective": shown}, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def access_file(request: HttpRequest) -> HttpResponse:
    """Show who can do what as a file; compare a file with what is there, and apply just what was shown."""
    user = reader(request)
    if request.method != "POST":
        return _file_page(request, AccessFileForm(initial={"text": as_yaml(export(user))}))
    form = AccessFileForm(request.POST, request.FILES)
    if form.is_valid():
        text, etag, remove = (form.cleaned_data[name] for name in ("text", "etag", "remove"))
        try:
            with errors_shown_on(form, "text"):
                if request.POST.get("act") == "apply" and etag:
                    if form.cleaned_data["compared"] != mark_of(text):
                        raise StaleVersion("The text changed since it was compared. Compare it again.")
                    done = declared.apply(read_text(text), actor=user, etag=etag, with_removals=remove)
                    kept = f" Kept, although not in the file: {len(done.kept)}." if done.kept else ""
                    messages.success(request, f"Changed: {len(done.done)}.{kept}")
                    return redirect("lifecycle:access-file")
                plan = declared.compare(read_text(text), actor=user)
                first = {"text": text, "etag": plan.etag, "compared": mark_of(text), "remove": remove}
                return _file_page(request, AccessFileForm(initial=first), plan=plan)
        except NotFound as error:  # a name in the file, which the reader can mend
            form.add_error("text", error.message)
    return _file_page(request, form, status=422)


def _lines(value: Any) -> str:
    """Return one side of a difference as the file would have it; "" for what is not there."""
    return "" if value is None else as_yaml(value).strip()


def _file_page(
    request: HttpRequest, form: AccessFileForm, *, plan: declared.Plan | None = None, status: int = 200
) -> HttpResponse:
    changes = [(change, _lines(change.before), _lines(change.after)) for change in plan.changes] if plan else []
    context = {"form": form, "plan": plan, "changes": changes}
    return render(request, "lifecycle/authority/access_file.html", context, status=status)
