"""`/release-sets/`: ask for several images as one, see what waits for what, decide, run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import environments_visible_to
from lifecycle.authority.rights import may, require
from lifecycle.core.errors import Conflict, NotFound, StepUpRequired
from lifecycle.core.paging import keyset_page
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.promotion import page_queries
from lifecycle.pages.promotion.forms import DecisionForm, RejectionForm, ReleaseSetForm
from lifecycle.pages.promotion.page_queries import Judged, judged
from lifecycle.pages.promotion.signing import is_to_sign, kept_input, lead_to_proof, sign_page, signature_in
from lifecycle.pages.requests import chosen as chosen_filter
from lifecycle.pages.requests import cursors, reader
from lifecycle.promotion import release_sets
from lifecycle.promotion.exclusions import read_ahead
from lifecycle.promotion.models import ReleaseSet
from lifecycle.promotion.release_queries import (
    LIVE,
    MOVING,
    members_of,
    set_for,
    sets_visible_to,
    votes_of,
    why_not_in_set,
    why_not_overrule_set,
    why_not_run_set,
    why_not_withdraw_set,
    why_set_waits,
)

State = ReleaseSet.State


@require_safe
def release_sets_list(request: HttpRequest) -> HttpResponse:
    """List the sets that the reader can see, newest first."""
    user, state = reader(request), chosen_filter(request, "state", State.values)
    rows = sets_visible_to(user)
    if state:
        rows = rows.filter(state=state)
    page = keyset_page(rows, ("-id",), **cursors(request))
    context = {"page": page, "state": state, "states": State.choices}
    return render(request, "lifecycle/promotion/release_sets.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_set(request: HttpRequest) -> HttpResponse:
    """Show and handle the form that asks for several images as one (`?image=shop/api:1.0`, also several times)."""
    user = reader(request)
    places = [
        row
        for row in environments_visible_to(user).select_related("team").order_by("team__slug", "position")
        if may(user, Verb.PROMOTION_REQUEST, environment=row)
    ]
    if not places:
        _refuse(user)
    lines = "\n".join(text[:400] for text in request.GET.getlist("image")[: release_sets.MEMBERS_MAX])
    initial = {"images": lines, "environment": request.GET.get("environment", "")}
    form = ReleaseSetForm(user, places, request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "images"):
            values = form.cleaned_data
            made = release_sets.request_set(
                values["images"], values["environment"], actor=user, reason=values["reason"]
            )
            return redirect("lifecycle:release-set", made.pk)
    context = {"form": form}
    return render(request, "lifecycle/promotion/new_release_set.html", context, status=422 if form.errors else 200)


def _refuse(user: User) -> None:
    """Raise why the reader can request nothing anywhere: the missing right in a place, or that there is none."""
    place = environments_visible_to(user).first()
    if place is None:
        raise NotFound("You see no environments. An owner of a team can give you access.")
    require(user, Verb.PROMOTION_REQUEST, environment=place)


@require_safe
def release_set(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one set with its members, requirements, votes, timeline and actions. Its requester has then seen it."""
    user = reader(request)
    shown = set_for(user, pk)
    if shown.is_final and shown.seen_at is None and shown.requested_by_id == user.pk:
        release_sets.mark_sets_seen(user, pk)
    return set_page(request, shown)


def set_page(
    request: HttpRequest, shown: ReleaseSet, form: DecisionForm | None = None, *, note: str = "", status: int = 200
) -> HttpResponse:
    """Return the page of one set, and with a refused form or note where an action on it failed."""
    user = reader(request)
    members = members_of(shown)
    read_ahead(members)
    votes = votes_of(members)
    rows: list[Judged] = judged(members)
    standing = [vote for vote in votes if vote.voter_id == user.pk and vote.is_standing]
    context: dict[str, Any] = {
        "release_set": shown,
        "rows": rows,
        "votes": votes,
        "own_vote": standing[0] if standing else None,
        "objections": [vote for vote in votes if vote.value == "object" and vote.overruled_at is None],
        "is_live": shown.state in LIVE,
        "is_moving": shown.state in MOVING,
        "why_no_vote": why_not_in_set(user, members),
        "may_overrule": shown.state in LIVE and why_not_overrule_set(user, members) is None,
        "why_not_executed": why_not_run_set(user, shown, members),
        "may_withdraw": why_not_withdraw_set(user, shown) is None,
        "not_automatic": why_set_waits(shown) if shown.state == State.READY and shown.environment.auto_execute else "",
        "copying": page_queries.copying_of(shown),
        "timeline": page_queries.timeline_of(shown),
        "form": form or DecisionForm(initial=kept_input(request)),
        "note": note,
        "number": str(shown.pk),
    }
    return render(request, "lifecycle/promotion/release_set.html", context, status=status)


@require_safe
def set_progress(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the progress of the job as a fragment, polled every 2 s. When it finishes, the page reloads."""
    shown = set_for(reader(request), pk)
    if shown.state not in MOVING:
        return HttpResponseClientRefresh()
    context = {"release_set": shown, "copying": page_queries.copying_of(shown), "is_moving": True}
    return render(request, "lifecycle/promotion/_release_progress.html", context)


# Actions on a set: what the address ends with -> (service, form, words).
ACTS: dict[str, tuple[Callable[..., ReleaseSet], type[DecisionForm], str]] = {
    "approve": (release_sets.approve, DecisionForm, "You approved"),
    "reject": (release_sets.reject, RejectionForm, "You rejected"),
    "object": (release_sets.object_to, RejectionForm, "You objected to"),
    "withdraw-vote": (release_sets.withdraw_vote, DecisionForm, "You withdrew your vote on"),
    "withdraw": (release_sets.withdraw, DecisionForm, "You withdrew"),
}


def _act(
    request: HttpRequest, pk: int, form: DecisionForm, act: Callable[[str], ReleaseSet], done: str
) -> HttpResponse:
    """Run one action of the reader on a set. On a conflict, the page shows the current state with a note."""
    if not form.is_valid():
        return set_page(request, set_for(reader(request), pk), form, status=422)
    try:
        changed = act(form.cleaned_data["reason"])
    except Conflict as conflict:
        note = f"{conflict.message} Your change was not saved."
        return set_page(request, set_for(reader(request), pk), note=note, status=conflict.http_status)
    except StepUpRequired as error:
        return lead_to_proof(request, reverse("lifecycle:release-set", args=[pk]), error)
    messages.success(request, f"{done} {changed}.")
    return redirect("lifecycle:release-set", pk)


@require_POST
def decide(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Vote on a set, take a vote back, or withdraw the set. Without a needed reason, the form is shown again.

    Who approves and has a passkey is asked to sign first: one signature covers all members.
    """
    if act == "approve":
        return _approve(request, pk)
    service, form, done = ACTS[act]
    return _act(request, pk, form(request.POST), lambda reason: service(pk, actor=reader(request), reason=reason), done)


def _approve(request: HttpRequest, pk: int) -> HttpResponse:
    user, form, signature = reader(request), DecisionForm(request.POST), None

    def act(reason: str) -> ReleaseSet:
        return release_sets.approve(pk, actor=user, reason=reason, signature=signature)

    if form.is_valid() and is_to_sign(request, user):
        shown = set_for(user, pk)
        try:
            statement = release_sets.prepare_signature(pk, actor=user)
        except Conflict as conflict:
            return set_page(request, shown, note=conflict.message, status=conflict.http_status)
        must = shown.environment.requires_signed_votes
        return sign_page(request, user, statement, back=reverse("lifecycle:release-set", args=[pk]), must_sign=must)
    signature = signature_in(request)
    return _act(request, pk, form, act, "You approved")


@require_POST
def overrule_set(request: HttpRequest, pk: int) -> HttpResponse:
    """Overrule the objection of a person (`voter`)."""
    voter = request.POST.get("voter", "")[:150]
    return _act(
        request,
        pk,
        RejectionForm(request.POST),
        lambda reason: release_sets.overrule(pk, voter, actor=reader(request), reason=reason),
        "You overruled an objection to",
    )


@require_POST
def execute_set(request: HttpRequest, pk: int) -> HttpResponse:
    """Run a ready set. The page then shows the progress."""
    return _act(
        request,
        pk,
        DecisionForm(request.POST),
        lambda _: release_sets.execute(pk, actor=reader(request)),
        "You started",
    )
