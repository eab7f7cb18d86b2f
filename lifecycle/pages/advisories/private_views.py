"""The pages of private advisories: the list, one revision, and the form that proposes one."""

from __future__ import annotations

from typing import Any, Final

import orjson
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from lifecycle.advisories import private
from lifecycle.advisories.models import PrivateAdvisory
from lifecycle.core.paging import keyset_page
from lifecycle.pages.advisories.forms import PrivateAdvisoryForm, ReviewForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import chosen, cursors, reader

_EXAMPLE: Final = {
    "schema_version": "1.7.0",
    "id": "ACME-2026-1",
    "summary": "What is wrong, in one line",
    "details": "What an attacker can do, and what to do about it",
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "acme-client"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.4.1"}]}],
        }
    ],
}
_DONE: Final = {
    "approve": "{} approved: packages are matched with it now.",
    "reject": "{} rejected.",
    "cancel": "{} taken back.",
}


@require_safe
def private_advisories(request: HttpRequest) -> HttpResponse:
    """List the private advisories that count, and the proposals that the reader can see, newest first."""
    user = reader(request)
    state = chosen(request, "state", PrivateAdvisory.State.values)
    rows = private.private_advisories_visible_to(user)
    page = keyset_page(rows.filter(state=state) if state else rows, ("-id",), **cursors(request))
    context = {
        "page": page,
        "state": state,
        "states": PrivateAdvisory.State.values,
        "why_not_propose": private.why_not_propose(user),
    }
    return render(request, "lifecycle/advisories/private_advisories.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def propose(request: HttpRequest) -> HttpResponse:
    """Propose a private advisory; `?from=` begins with a revision that is there."""
    user = reader(request)
    former = request.GET.get("from", "")
    document: Any = _EXAMPLE
    if former.isascii() and former.isdigit() and len(former) < 18:
        document = private.private_advisory_for(user, int(former)).document
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    form = PrivateAdvisoryForm(request.POST if request.method == "POST" else None, initial={"document": text})
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "document"):
            values = form.cleaned_data
            row = private.propose(values["document"].encode(), actor=user, reason=values["reason"])
            messages.success(request, f"{row} proposed. Another person, who is an admin, has to approve it.")
            return redirect("lifecycle:private-advisory", row.pk)
    context = {"form": form, "why_not_propose": private.why_not_propose(user)}
    return render(request, "lifecycle/advisories/propose.html", context, status=422 if form.errors else 200)


@require_safe
def private_advisory(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one revision, and what the reader can do about it."""
    return _page(request, private.private_advisory_for(reader(request), pk), ReviewForm())


def _page(request: HttpRequest, row: PrivateAdvisory, form: ReviewForm, *, status: int = 200) -> HttpResponse:
    user = reader(request)
    revisions = private.private_advisories_visible_to(user).filter(osv_id=row.osv_id).exclude(pk=row.pk)
    context = {
        "row": row,
        "text": orjson.dumps(row.document, option=orjson.OPT_INDENT_2).decode(),
        "revisions": revisions.order_by("-pk")[:20],
        "form": form,
        "why_not_review": private.why_not_review(user, row),
        "why_not_cancel": private.why_not_cancel(user, row),
        "why_not_propose": private.why_not_propose(user),
    }
    return render(request, "lifecycle/advisories/private_advisory.html", context, status=status)


@require_POST
def act(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Approve, reject or take back a proposal."""
    user, form = reader(request), ReviewForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "reason"):
            reason = form.cleaned_data["reason"]
            if act == "approve":
                row = private.approve(pk, actor=user, reason=reason)
            elif act == "reject":
                row = private.reject(pk, actor=user, reason=reason)
            else:
                row = private.cancel(pk, actor=user)
            messages.success(request, _DONE[act].format(row))
            return redirect("lifecycle:private-advisory", row.pk)
    return _page(request, private.private_advisory_for(user, pk), form, status=422)
