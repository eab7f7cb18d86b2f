"""Promotion pages: the inbox, all requests, one request with its actions, a new request, and the environments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import get_conditional_response
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import environments_visible_to, repositories_visible_to
from lifecycle.authority.rights import may, require
from lifecycle.comparison.queries import compare
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, PolicyBlocked
from lifecycle.core.paging import keyset_page
from lifecycle.environments.models import Slot
from lifecycle.pages.comparison.views import panel_context
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.promotion import page_queries
from lifecycle.pages.promotion.forms import DecisionForm, RejectionForm, RequestForm
from lifecycle.pages.promotion.page_queries import Judged, judged
from lifecycle.pages.rebuild.page_queries import counts_of, waves_to_confirm
from lifecycle.pages.requests import chosen as chosen_filter
from lifecycle.pages.requests import cursors, reader, selected_ids
from lifecycle.promotion import services
from lifecycle.promotion.access import promotable_image, promotion_for
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import (
    LIVE_STATES,
    MOVING_STATES,
    decidable_by,
    executable_by,
    promotions_visible_to,
    requirements_now,
    unseen_results_of,
)
from lifecycle.promotion.refusals import why_not_run, why_not_vote, why_not_withdraw
from lifecycle.registry.models import Image

_INBOX_MAX: Final = 50  # requests to review on one page; the rest appears as these are reviewed
_SIDE_MAX: Final = 10  # rows of each other list
State = PromotionRequest.State


@require_safe
def inbox(request: HttpRequest) -> HttpResponse:
    """Show the requests that wait for the reader, with the evidence of one of them (`?request=`)."""
    return _inbox(request)


def _lists(user: User) -> dict[str, Any]:
    """Return the lists of the inbox, and `listed`: the requests that the page can show beside them, in order."""
    to_decide = list(decidable_by(user).order_by("-pk")[: _INBOX_MAX + 1])
    to_execute = list(executable_by(user).order_by("-pk")[:_SIDE_MAX])
    results = list(unseen_results_of(user).order_by("-finished_at", "-pk")[: _SIDE_MAX + 1])
    failed = list(page_queries.failed_of(user).order_by("-pk")[: _SIDE_MAX + 1])
    decided = list(page_queries.decided_lately_by(user).order_by("-pk")[: _SIDE_MAX + 1])
    failed_jobs = list(page_queries.failed_jobs_of(user).order_by("-pk")[: _SIDE_MAX + 1])
    waves = list(waves_to_confirm(user).order_by("-pk")[:_SIDE_MAX])
    images = counts_of([wave.pk for wave in waves], repositories_visible_to(user))
    listed = [*to_decide, *to_execute, *results, *failed, *decided]
    rows = {row.promotion.pk: row for row in judged(set(listed))}
    for row in rows.values():
        row.promotion.who_can_act = row.who_can_act(user)  # type: ignore[attr-defined]  # for the template alone
    context: dict[str, Any] = {
        "to_decide": [rows[item.pk] for item in to_decide[:_INBOX_MAX]],
        "has_more": len(to_decide) > _INBOX_MAX,
        "to_execute": [rows[item.pk] for item in to_execute],
        "results": [rows[item.pk] for item in results[:_SIDE_MAX]],
        "result_count": _capped(len(results)),
        "failed": [rows[item.pk] for item in failed[:_SIDE_MAX]],
        "decided": [rows[item.pk] for item in decided[:_SIDE_MAX]],
        "decided_count": _capped(len(decided)),
        "waves": [(wave, images[wave.pk]) for wave in waves],
        "failed_jobs": failed_jobs[:_SIDE_MAX],
        "failed_count": _capped(max(len(failed), len(failed_jobs), min(len(failed) + len(failed_jobs), _SIDE_MAX))),
        "next_deadline": min((item.approve_by for item in to_decide), default=None),
        "listed": listed,
        "is_empty": not (listed or failed_jobs or waves),
    }
    parts = [
        *((item.pk, item.state, item.judged_at) for item in listed),
        *((wave.pk, wave.state) for wave in waves),
        *(job.pk for job in failed_jobs),
        *(row.states for row in rows.values()),
    ]
    context["etag"] = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    return context


def _capped(count: int) -> str:
    """Return the number of rows of a side list, "10+" when there are more than it shows."""
    return f"{_SIDE_MAX}+" if count > _SIDE_MAX else str(count)


def _inbox(
    request: HttpRequest,
    chosen: PromotionRequest | None = None,
    form: DecisionForm | None = None,
    *,
    note: str = "",
    status: int = 200,
    bulk: dict[str, Any] | None = None,
) -> HttpResponse:
    user = reader(request)
    context = _lists(user)
    if chosen is None:
        chosen_id = request.GET.get("request", "")
        chosen = next((item for item in context["listed"] if str(item.pk) == chosen_id), None)
        first = [*context["to_decide"], *context["to_execute"]]
        chosen = chosen or next((row.promotion for row in first), None)
    context |= {"chosen": chosen} | (bulk or {})
    if chosen is not None:
        context |= _evidence(user, chosen) | {"form": form or DecisionForm(), "note": note, "next": "inbox"}
    return render(request, "lifecycle/promotion/inbox.html", context, status=status)


@require_safe
def inbox_lists(request: HttpRequest) -> HttpResponse:
    """Show the lists of the inbox as a fragment, polled. Nothing is sent while they are unchanged."""
    context = _lists(reader(request))
    unchanged = get_conditional_response(request, etag=f'"{context["etag"]}"')
    if unchanged is not None:
        return unchanged
    if context["is_empty"] or request.GET.get("shown") == "empty":
        return HttpResponseClientRefresh()  # the page has another form when the inbox is empty
    number = request.GET.get("request", "")
    context["chosen"] = next((item for item in context["listed"] if str(item.pk) == number), None)
    response = render(request, "lifecycle/promotion/_lists.html", context | {"is_poll": True})
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def results_seen(request: HttpRequest) -> HttpResponse:
    """Mark all results of the reader's requests as seen."""
    services.mark_results_seen(reader(request))
    return redirect("lifecycle:inbox")


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the evidence of one request as a fragment for the inbox."""
    user = reader(request)
    chosen = promotion_for(user, pk)
    context = _evidence(user, chosen) | {"form": DecisionForm(), "next": "inbox", "chosen": chosen}
    return render(request, "lifecycle/promotion/_detail.html", context)


@require_safe
def promotions(request: HttpRequest) -> HttpResponse:
    """List the requests that the reader can see, newest first."""
    return _promotions(request)


def _promotions(request: HttpRequest, *, status: int = 200, bulk: dict[str, Any] | None = None) -> HttpResponse:
    user, state = reader(request), chosen_filter(request, "state", State.values)
    whose = chosen_filter(request, "by", ("me",))
    rows = promotions_visible_to(user)
    if state:
        rows = rows.filter(state=state)
    if whose:
        rows = rows.filter(requested_by=user)
    page = keyset_page(rows, ("-id",), **cursors(request))
    context = {"page": page, "rows": judged(page.rows), "state": state, "by": whose, "states": State.choices}
    return render(request, "lifecycle/promotion/promotions.html", context | (bulk or {}), status=status)


def _evidence(user: User, promotion: PromotionRequest) -> dict[str, Any]:
    """Return the evidence for a vote: current requirements, changes and votes, and the actions open to `user`."""
    votes = list(promotion.votes.select_related("voter", "evaluation").order_by("-at", "-pk"))
    slot = Slot.objects.filter(repository=promotion.repository, environment=promotion.environment)
    current_slot = slot.select_related("image").first()
    now = Judged(promotion, page_queries.in_order(requirements_now(promotion)), None, None)
    latest = promotion.evaluations.order_by("-pk").first()
    before = current_slot.image if current_slot is not None else None
    if promotion.state == State.SUCCEEDED and latest is not None:  # the image that it replaced
        before = Image.objects.filter(digest=latest.inputs.get("holds") or "").first()
    return {
        "promotion": promotion,
        "now": now,
        "evaluation": latest,
        "votes": votes,
        "approvals": sum(vote.value == "approve" and vote.lapsed_at is None for vote in votes),
        "has_approved": any(vote.voter_id == user.pk and vote.lapsed_at is None for vote in votes),
        "why_no_vote": why_not_vote(user, promotion),
        "why_not_executed": why_not_run(user, promotion),
        "is_live": promotion.state in LIVE_STATES,
        "is_moving": promotion.state in MOVING_STATES,
        "may_withdraw": why_not_withdraw(user, promotion) is None,
        "holds": current_slot if current_slot is not None and current_slot.image_id else None,
        "comparison": compare(before, promotion.image),
        "who_can_act": now.who_can_act(user),
    }


def _page(
    request: HttpRequest,
    promotion: PromotionRequest,
    form: DecisionForm | None = None,
    *,
    note: str = "",
    status: int = 200,
) -> HttpResponse:
    context = _evidence(reader(request), promotion)
    context |= panel_context(request, context["comparison"]) | {
        "form": form or DecisionForm(),
        "note": note,
        "copying": page_queries.copying_of(promotion),
        "timeline": page_queries.timeline_of(promotion),
        "number": str(promotion.pk),
    }
    return render(request, "lifecycle/promotion/promotion.html", context, status=status)


@require_safe
def promotion(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one request with its requirements, changes, votes, timeline and actions. Its requester has then seen it."""
    shown = promotion_for(reader(request), pk)
    if shown.is_final and shown.seen_at is None and shown.requested_by_id == reader(request).pk:
        services.mark_results_seen(reader(request), pk)
    return _page(request, shown)


@require_safe
def progress(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the progress of the copy as a fragment, polled every 2 s. When it finishes, the page reloads."""
    chosen = promotion_for(reader(request), pk)
    if chosen.state not in MOVING_STATES:
        return HttpResponseClientRefresh()
    context = {"promotion": chosen, "copying": page_queries.copying_of(chosen), "is_moving": True}
    return render(request, "lifecycle/promotion/_progress.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Show and handle the form that requests a promotion of one digest (`?repository=<id>&digest=`).

    An unfinished request for the same image and environment is shown instead of creating another one.
    """
    user, key = reader(request), request.GET.get("repository", "")
    visible = repositories_visible_to(user).select_related("team", "registry").filter(source=None)
    repository = visible.filter(pk=int(key)).first() if key.isascii() and key.isdigit() and len(key) < 18 else None
    if repository is None:
        raise NotFound("Image not found, or you don't have access.")
    image = promotable_image(repository, request.GET.get("digest", ""))
    targets = page_queries.targets_for(user, repository, image)
    if not any(
        may(user, Verb.PROMOTION_REQUEST, repository=repository, environment=target.environment) for target in targets
    ):
        require(user, Verb.PROMOTION_REQUEST, repository=repository)
    possible = [target for target in targets if not target.why_not]
    environment_id = request.POST.get("environment") or request.GET.get("environment", "")
    chosen = next((target for target in possible if str(target.environment.pk) == environment_id), None)
    chosen = chosen or next(iter(possible), None)
    form = RequestForm(
        [target.environment for target in possible],
        request.POST if request.method == "POST" else None,
        initial={"tag": request.GET.get("tag", "")},
    )
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            created = services.request_promotion(
                repository,
                image.digest,
                form.cleaned_data["environment"],
                actor=user,
                reason=form.cleaned_data["reason"],
                tag=form.cleaned_data["tag"],
            )
            return redirect("lifecycle:promotion", created.pk)
    context = {
        "form": form,
        "repository": repository,
        "image": image,
        "places": targets,
        "chosen": chosen,
        "can_ask": bool(possible),
    }
    if chosen is not None:
        context |= panel_context(request, compare(chosen.holds, image))
    return render(request, "lifecycle/promotion/new.html", context, status=422 if form.errors else 200)


@require_safe
def environments(request: HttpRequest) -> HttpResponse:
    """Show the current image of each repository in each environment of a team (`?team=`), with waiting requests."""
    user = reader(request)
    visible = list(environments_visible_to(user).order_by("team__slug", "position"))
    teams = list({row.team_id: row.team for row in visible}.values())
    slug = chosen_filter(request, "team", [row.slug for row in teams])
    team = next((row for row in teams if row.slug == slug), teams[0] if teams else None)
    context: dict[str, Any] = {"teams": teams, "team": team, "environments": []}
    if team is not None:
        path = [row for row in visible if row.team_id == team.pk]
        families = repositories_visible_to(user).filter(team=team, source=None).select_related("team")
        page = keyset_page(families, ("name", "id"), **cursors(request))
        context |= {"environments": path, "page": page, "board": page_queries.board_of(page.rows, path)}
    return render(request, "lifecycle/promotion/environments.html", context)


def _decide(
    request: HttpRequest, pk: int, form: DecisionForm, act: Callable[[str], PromotionRequest], done: str
) -> HttpResponse:
    """Run one action of the reader on a request, and return to the page with the form: the inbox or the request.

    On a conflict with another user's action, the page shows the current state with a note.
    """
    back = _inbox if request.POST.get("next") == "inbox" else _page
    if not form.is_valid():
        return back(request, promotion_for(reader(request), pk), form, status=422)
    try:
        changed = act(form.cleaned_data["reason"])
    except Conflict as conflict:
        note = f"{conflict.message} Your change was not saved."
        return back(request, promotion_for(reader(request), pk), note=note, status=conflict.http_status)
    messages.success(request, f"{done} {changed}.")
    return redirect("lifecycle:inbox") if back is _inbox else redirect("lifecycle:promotion", pk)


@require_POST
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve a request, with an optional comment."""
    return _decide(
        request,
        pk,
        DecisionForm(request.POST),
        lambda reason: services.approve(pk, actor=reader(request), reason=reason),
        "You approved",
    )


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
        back = _inbox if is_inbox else _promotions
        return back(request, status=422, bulk=kept)
    done, refused = [], []
    for number in ids:
        try:
            done.append(str(act(number, actor=reader(request), reason=reason)))
        except (NotFound, NotPermitted, Conflict, Malformed, PolicyBlocked) as error:
            refused.append(f"PR-{number}: {error.message}")
    if done:
        messages.success(request, f"You {word} {', '.join(done)}.")
    for line in refused:
        messages.warning(request, line)
    return redirect("lifecycle:inbox" if is_inbox else "lifecycle:promotions")
