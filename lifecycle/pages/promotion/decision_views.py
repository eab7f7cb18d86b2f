"""What the reader does with one request, or with several at once: vote, discuss, run, verify, review."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, PolicyBlocked, StepUpRequired
from lifecycle.pages.promotion.forms import (
    CommentForm,
    DecisionForm,
    RejectionForm,
    ReviewForm,
)
from lifecycle.pages.promotion.signing import is_to_sign, lead_to_proof, sign_page, signature_in
from lifecycle.pages.promotion.views import inbox_page, promotions_page, request_page
from lifecycle.pages.requests import reader, selected_ids
from lifecycle.promotion import services, threads
from lifecycle.promotion.access import promotion_for
from lifecycle.promotion.breakglass import settle
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.signed_votes import prepare
from lifecycle.promotion.verification import confirm


def _decide(
    request: HttpRequest, pk: int, form: DecisionForm, act: Callable[[str], PromotionRequest], done: str
) -> HttpResponse:
    """Run one action of the reader on a request, and return to the page with the form: the inbox or the request.

    On a conflict with another user's action, the page shows the current state with a note.
    """
    back = inbox_page if request.POST.get("next") == "inbox" else request_page
    if not form.is_valid():
        return back(request, promotion_for(reader(request), pk), form, status=422)
    try:
        changed = act(form.cleaned_data["reason"])
    except Conflict as conflict:
        note = f"{conflict.message} Your change was not saved."
        return back(request, promotion_for(reader(request), pk), note=note, status=conflict.http_status)
    except StepUpRequired as error:
        return lead_to_proof(request, reverse("lifecycle:promotion", args=[pk]), error)
    messages.success(request, f"{done} {changed}.")
    return redirect("lifecycle:inbox") if back is inbox_page else redirect("lifecycle:promotion", pk)


@require_POST
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve a request, with an optional comment. Who has a passkey is asked to sign first."""
    user, form, signature = reader(request), DecisionForm(request.POST), None

    def act(reason: str) -> PromotionRequest:
        return services.approve(pk, actor=user, reason=reason, signature=signature)

    if form.is_valid() and is_to_sign(request, user):
        shown = promotion_for(user, pk)
        try:
            statement = prepare(pk, actor=user)
        except Conflict as conflict:
            return request_page(request, shown, note=conflict.message, status=conflict.http_status)
        must = shown.environment.requires_signed_votes
        return sign_page(request, user, statement, back=reverse("lifecycle:promotion", args=[pk]), must_sign=must)
    signature = signature_in(request)
    return _decide(request, pk, form, act, "You approved")


@require_POST
def reject(request: HttpRequest, pk: int) -> HttpResponse:
    """Reject a request permanently. Without a reason, the form is shown again with an error."""
    return _decide(
        request,
        pk,
        RejectionForm(request.POST),
        lambda reason: services.reject(pk, actor=reader(request), reason=reason),
        "You rejected",
    )


@require_POST
def object_to(request: HttpRequest, pk: int) -> HttpResponse:
    """Object to a request. Without a reason, the form is shown again with an error."""
    return _decide(
        request,
        pk,
        RejectionForm(request.POST),
        lambda reason: services.object_to(pk, actor=reader(request), reason=reason),
        "You objected to",
    )


@require_POST
def withdraw_vote(request: HttpRequest, pk: int) -> HttpResponse:
    """Take back the reader's own vote."""
    return _decide(
        request,
        pk,
        DecisionForm(request.POST),
        lambda reason: services.withdraw_vote(pk, actor=reader(request), reason=reason),
        "You withdrew your vote on",
    )


@require_POST
def overrule(request: HttpRequest, pk: int) -> HttpResponse:
    """Overrule the objection of a person (`voter`). Without a reason, the form is shown again with an error."""
    voter = request.POST.get("voter", "")[:150]
    return _decide(
        request,
        pk,
        RejectionForm(request.POST),
        lambda reason: services.overrule(pk, voter, actor=reader(request), reason=reason),
        "You overruled an objection to",
    )


@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Withdraw a request."""
    return _decide(
        request,
        pk,
        DecisionForm(request.POST),
        lambda reason: services.withdraw(pk, actor=reader(request), reason=reason),
        "You withdrew",
    )


@require_POST
def execute(request: HttpRequest, pk: int) -> HttpResponse:
    """Run a ready promotion. The page then shows the progress of the copy."""
    return _decide(
        request,
        pk,
        DecisionForm(request.POST),
        lambda _: services.execute(pk, actor=reader(request)),
        "You started",
    )


# Actions on several requests at once: what a button sends -> (service, whether it needs a reason, words).
_BULK: Final[dict[str, tuple[Callable[..., PromotionRequest], bool, str]]] = {
    "approve": (services.approve, False, "approved"),
    "reject": (services.reject, True, "rejected"),
    "withdraw": (services.withdraw, False, "withdrew"),
}


@require_POST
def bulk(request: HttpRequest) -> HttpResponse:
    """Approve, reject or withdraw each selected request. One refusal does not stop the others, and each is named."""
    is_inbox = request.POST.get("next") == "inbox"
    ids, reason = selected_ids(request), request.POST.get("reason", "").strip()[:2000]
    if request.POST.get("act") not in _BULK:
        raise Malformed("Unknown action. Choose approve, reject or withdraw.")
    act, needs_reason, word = _BULK[request.POST["act"]]
    problem = ""
    if not ids:
        problem = "Select at least one request."
    elif needs_reason and not reason:
        problem = "Enter a reason: the requesters need to know what to change."
    if problem:
        kept = {"selected": ids, "bulk_reason": reason, "bulk_problem": problem}
        back = inbox_page if is_inbox else promotions_page
        return back(request, status=422, bulk=kept)
    done, refused = [], []
    for number in ids:
        try:
            done.append(str(act(number, actor=reader(request), reason=reason)))
        except StepUpRequired as error:
            return lead_to_proof(request, reverse("lifecycle:inbox" if is_inbox else "lifecycle:promotions"), error)
        except (NotFound, NotPermitted, Conflict, Malformed, PolicyBlocked) as error:
            refused.append(f"PR-{number}: {error.message}")
    if done:
        messages.success(request, f"You {word} {', '.join(done)}.")
    for line in refused:
        messages.warning(request, line)
    return redirect("lifecycle:inbox" if is_inbox else "lifecycle:promotions")


@require_POST
def verify(request: HttpRequest, pk: int) -> HttpResponse:
    """Say whether a promoted image works (`passed`: yes or no), with what was checked."""
    is_good = request.POST.get("passed") == "yes"
    return _decide(
        request,
        pk,
        RejectionForm(request.POST),
        lambda reason: confirm(pk, actor=reader(request), is_good=is_good, comment=reason),
        "You verified" if is_good else "You reported a failure of",
    )


@require_POST
def comment(request: HttpRequest, pk: int) -> HttpResponse:
    """Comment on a request, or answer in one of its threads."""
    form = CommentForm(request.POST)
    if not form.is_valid():
        return request_page(request, promotion_for(reader(request), pk), comment_form=form, status=422)
    values = form.cleaned_data
    made = threads.comment(
        pk, actor=reader(request), text=values["text"], reply_to=values["reply_to"], is_blocking=values["is_blocking"]
    )
    return redirect(f"{reverse('lifecycle:promotion', args=[pk])}#comment-{made.pk}")


@require_POST
def resolve(request: HttpRequest, pk: int, thread: int) -> HttpResponse:
    """Resolve a thread of a request."""
    try:
        threads.resolve(pk, thread, actor=reader(request))
    except Conflict as conflict:
        shown = promotion_for(reader(request), pk)
        return request_page(request, shown, note=conflict.message, status=conflict.http_status)
    return redirect(f"{reverse('lifecycle:promotion', args=[pk])}#comment-{thread}")


@require_POST
def review(request: HttpRequest, pk: int) -> HttpResponse:
    """Review a use of break-glass."""
    form = ReviewForm(request.POST)
    if not form.is_valid():
        note = "Choose justified or unjustified, and enter what you found (at most 2,000 characters)."
        return request_page(
            request, promotion_for(reader(request), pk), DecisionForm(request.POST), note=note, status=422
        )
    return _decide(
        request,
        pk,
        RejectionForm(request.POST),
        lambda comment: settle(pk, actor=reader(request), outcome=form.cleaned_data["outcome"], comment=comment),
        "You reviewed",
    )
