"""Promotion pages: the inbox, all requests, one request, new requests of each kind, and the environments."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import get_conditional_response
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.advisories.private import advisories_in_inbox
from lifecycle.authority.confirming import why_not_without_password
from lifecycle.authority.queries import access_requests_in_inbox, environments_visible_to, repositories_visible_to
from lifecycle.authority.rights import may, require
from lifecycle.comparison.queries import compare
from lifecycle.core.counting import counts_of as number_of
from lifecycle.core.errors import NotFound, StepUpRequired
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.environments.models import Slot
from lifecycle.pages.comparison.views import panel_context
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.promotion import page_queries
from lifecycle.pages.promotion.forms import (
    BreakGlassForm,
    CommentForm,
    DecisionForm,
    RequestForm,
    RollbackForm,
)
from lifecycle.pages.promotion.page_queries import Judged, judged
from lifecycle.pages.promotion.signing import kept_input, lead_to_confirm, lead_to_proof
from lifecycle.pages.rebuild.page_queries import counts_of, waves_to_confirm
from lifecycle.pages.requests import chosen as chosen_filter
from lifecycle.pages.requests import cursors, reader, sort_of
from lifecycle.policies.queries import waivers_in_inbox
from lifecycle.promotion import marking, services, threads
from lifecycle.promotion.access import promotable_image, promotion_for
from lifecycle.promotion.automatic import why_not_automatic
from lifecycle.promotion.breakglass import break_glass, why_not_break_glass, why_not_settle
from lifecycle.promotion.holds import holds_on
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.opening import closed_words, opening_for
from lifecycle.promotion.queries import (
    LIVE_STATES,
    MOVING_STATES,
    debts_to_settle,
    debts_visible_to,
    decidable_by,
    executable_by,
    promotions_visible_to,
    requirements_now,
    threads_of,
    unseen_results_of,
)
from lifecycle.promotion.refusals import why_not_overrule, why_not_run, why_not_vote, why_not_withdraw
from lifecycle.promotion.release_queries import sets_for_inbox
from lifecycle.promotion.release_sets import mark_sets_seen
from lifecycle.promotion.rollback import earlier_images, request_rollback, why_not_roll_back
from lifecycle.promotion.verification import why_not_confirm
from lifecycle.registry.models import Image
from lifecycle.vex.queries import decisions_in_inbox

_INBOX_MAX: Final = 50  # requests to vote on, on one page; the rest appears as these are decided
_SIDE_MAX: Final = 10  # rows of each other list
State = PromotionRequest.State


@require_safe
def inbox(request: HttpRequest) -> HttpResponse:
    """Show the requests that wait for the reader, with the evidence of one of them (`?request=`)."""
    return inbox_page(request)


def _lists(user: User) -> dict[str, Any]:
    """Return the lists of the inbox, and `listed`: the requests that the page can show beside them, in order."""
    to_decide, to_execute, results, failed, decided = page_queries.loaded(
        decidable_by(user).order_by("-pk")[: _INBOX_MAX + 1],
        executable_by(user).order_by("-pk")[:_SIDE_MAX],
        unseen_results_of(user).order_by("-finished_at", "-pk")[: _SIDE_MAX + 1],
        page_queries.failed_of(user).order_by("-pk")[: _SIDE_MAX + 1],
        page_queries.decided_lately_by(user).order_by("-pk")[: _SIDE_MAX + 1],
    )
    failed_jobs, waves, debts, sets, waivers, decisions, advisories, asked = _rarely_filled(
        (page_queries.failed_jobs_of(user).order_by("-pk"), _SIDE_MAX + 1),
        (waves_to_confirm(user).order_by("-pk"), _SIDE_MAX),
        (debts_to_settle(user), _SIDE_MAX),
        (sets_for_inbox(user).order_by("-pk"), _SIDE_MAX),
        (waivers_in_inbox(user).order_by("until", "pk"), _SIDE_MAX),
        (decisions_in_inbox(user).order_by("pk"), _SIDE_MAX),
        (advisories_in_inbox(user).order_by("pk"), _SIDE_MAX),
        (access_requests_in_inbox(user).order_by("pk"), _SIDE_MAX),
    )
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
        "waivers": waivers,
        "decisions": decisions,
        "advisories": advisories,
        "asked": asked,
        "debts": debts,
        "sets": sets,
        "failed_jobs": failed_jobs[:_SIDE_MAX],
        "failed_count": _capped(max(len(failed), len(failed_jobs), min(len(failed) + len(failed_jobs), _SIDE_MAX))),
        "next_deadline": min((item.approve_by for item in to_decide), default=None),
        "listed": listed,
        "is_empty": not (
            listed or failed_jobs or waves or waivers or decisions or advisories or asked or debts or sets
        ),
    }
    parts = [
        *((item.pk, item.state, item.judged_at) for item in listed),
        *((wave.pk, wave.state) for wave in waves),
        *(job.pk for job in failed_jobs),
        *((waiver.pk, waiver.state) for waiver in waivers),
        *(row.pk for row in decisions),
        *(("advisory", row.pk) for row in advisories),
        *(("access", row.pk) for row in asked),
        *(item.pk for item in debts),
        *((item.pk, item.state) for item in sets),
        *(row.states for row in rows.values()),
    ]
    context["etag"] = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    return context


def _rarely_filled(*lists: tuple[QuerySet[Any], int]) -> list[list[Any]]:
    """Return the first rows of each list, in order.

    They are counted first, together: most are empty, and PostgreSQL takes longer to plan their joins than to run them.
    """
    counts = number_of(*(rows for rows, _ in lists))
    return [list(rows[:limit]) if count else [] for (rows, limit), count in zip(lists, counts, strict=True)]


def _capped(count: int) -> str:
    """Return the number of rows of a side list, "10+" when there are more than it shows."""
    return f"{_SIDE_MAX}+" if count > _SIDE_MAX else str(count)


def inbox_page(
    request: HttpRequest,
    chosen: PromotionRequest | None = None,
    form: DecisionForm | None = None,
    *,
    note: str = "",
    status: int = 200,
    bulk: dict[str, Any] | None = None,
) -> HttpResponse:
    """Return the inbox with one chosen request, and with a refused form or note where an action on it failed."""
    user = reader(request)
    context = _lists(user)
    if chosen is None:
        chosen_id = request.GET.get("request", "")
        chosen = next((item for item in context["listed"] if str(item.pk) == chosen_id), None)
        first = [*context["to_decide"], *context["to_execute"]]
        chosen = chosen or next((row.promotion for row in first), None)
    context |= {"chosen": chosen, "unsatisfiable": page_queries.unsatisfiable_for(user)} | (bulk or {})
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
    marking.mark_results_seen(reader(request))
    mark_sets_seen(reader(request))
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
    return promotions_page(request)


def promotions_page(request: HttpRequest, *, status: int = 200, bulk: dict[str, Any] | None = None) -> HttpResponse:
    """Return the list of all requests, and with a refused action on several of them (`bulk`) as it was sent."""
    user, state = reader(request), chosen_filter(request, "state", State.values)
    whose = chosen_filter(request, "by", ("me",))
    rows = promotions_visible_to(user)
    if state:
        rows = rows.filter(state=state)
    if whose:
        rows = rows.filter(requested_by=user)
    sort, order = sort_of(request, {"requested": ("-id",)})
    page = keyset_page(rows, order, **cursors(request))
    context = {"page": page, "rows": judged(page.rows), "state": state, "by": whose, "states": State.choices}
    context["sort"] = sort
    return render(request, "lifecycle/promotion/promotions.html", context | (bulk or {}), status=status)


def _evidence(user: User, promotion: PromotionRequest) -> dict[str, Any]:
    """Return the evidence for a vote: current requirements, changes and votes, and the actions open to `user`."""
    votes = list(promotion.votes.select_related("voter", "evaluation", "overruled_by").order_by("-at", "-pk"))
    slot = Slot.objects.filter(repository=promotion.repository, environment=promotion.environment)
    current_slot = slot.select_related("image").first()
    now = Judged(promotion, page_queries.in_order(requirements_now(promotion)), None, None)
    latest = promotion.evaluations.order_by("-pk").first()
    before = current_slot.image if current_slot is not None else None
    debt = getattr(promotion, "debt", None)
    if promotion.state == State.SUCCEEDED and latest is not None:  # the image that it replaced
        before = Image.objects.filter(digest=latest.inputs.get("holds") or "").first()
    return {
        "promotion": promotion,
        "now": now,
        "evaluation": latest,
        "votes": votes,
        "approvals": sum(vote.value == "approve" and vote.lapsed_at is None for vote in votes),
        "own_vote": next((vote for vote in votes if vote.voter_id == user.pk and vote.is_standing), None),
        "objections": [vote for vote in votes if vote.value == "object" and vote.overruled_at is None],
        "may_overrule": promotion.state in LIVE_STATES and why_not_overrule(user, promotion) is None,
        "why_no_vote": why_not_vote(user, promotion),
        "why_not_executed": why_not_run(user, promotion),
        "is_live": promotion.state in LIVE_STATES,
        "is_moving": promotion.state in MOVING_STATES,
        "on_hold": list(holds_on(promotion.environment, promotion.repository))
        if promotion.state in LIVE_STATES
        else [],
        "closed": closed_words(opening_for(promotion)) if promotion.state == State.READY else "",
        "not_automatic": why_not_automatic(promotion)
        if promotion.state == State.READY and promotion.environment.auto_execute
        else "",
        "debt": debt,
        "may_verify": promotion.state == State.VERIFYING and why_not_confirm(user, promotion) is None,
        "why_not_settled": why_not_settle(user, promotion) if debt is not None and debt.settled_at is None else None,
        "may_withdraw": why_not_withdraw(user, promotion) is None,
        "holds": current_slot if current_slot is not None and current_slot.image_id else None,
        "comparison": compare(before, promotion.image),
        "who_can_act": now.who_can_act(user),
    }


def request_page(
    request: HttpRequest,
    promotion: PromotionRequest,
    form: DecisionForm | None = None,
    *,
    comment_form: CommentForm | None = None,
    note: str = "",
    status: int = 200,
) -> HttpResponse:
    """Return the page of one request, and with a refused form or note where an action on it failed."""
    user = reader(request)
    context = _evidence(user, promotion)
    said = threads_of(promotion)
    context |= panel_context(request, context["comparison"]) | {
        "form": form or DecisionForm(initial=kept_input(request)),
        "note": note,
        "copying": page_queries.copying_of(promotion),
        "timeline": page_queries.timeline_of(promotion),
        "number": str(promotion.pk),
        "threads": [(row, threads.why_not_resolve(user, promotion, row) is None) for row in said],
        "comment_form": comment_form or CommentForm(),
        "may_block": threads.why_not_block(user, promotion) is None,
    }
    return render(request, "lifecycle/promotion/promotion.html", context, status=status)


@require_safe
def promotion(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one request with its requirements, changes, votes, timeline and actions. Its requester has then seen it."""
    shown = promotion_for(reader(request), pk)
    if shown.is_final and shown.seen_at is None and shown.requested_by_id == reader(request).pk:
        marking.mark_results_seen(reader(request), pk)
    return request_page(request, shown)


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


@require_http_methods(["GET", "HEAD", "POST"])
def roll_back(request: HttpRequest) -> HttpResponse:
    """Show and handle the form that rolls an environment back (`?repository=<id>&environment=<id>`)."""
    user = reader(request)
    numbers = [request.GET.get(name, "") for name in ("repository", "environment")]
    repository_id, environment_id = (
        int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0 for text in numbers
    )
    visible = repositories_visible_to(user).select_related("team", "registry").filter(source=None)
    repository = visible.filter(pk=repository_id).first()
    environment = environments_visible_to(user).filter(pk=environment_id).first()
    if repository is None or environment is None or repository.team_id != environment.team_id:
        raise NotFound("Environment not found, or you don't have access.")
    refuse_if(why_not_roll_back(user, repository, environment))
    earlier = earlier_images(repository, environment)
    form = RollbackForm(earlier, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            made = request_rollback(
                repository, environment, actor=user, reason=form.cleaned_data["reason"],
                digest=form.cleaned_data["digest"],
            )  # fmt: skip
            return redirect("lifecycle:promotion", made.pk)
    slot = Slot.objects.filter(repository=repository, environment=environment).select_related("image").first()
    context = {"form": form, "repository": repository, "environment": environment, "earlier": earlier, "slot": slot}
    status = 422 if form.errors else 200
    return render(request, "lifecycle/promotion/rollback.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def break_the_glass(request: HttpRequest) -> HttpResponse:
    """Show and handle the form that promotes a digest past what is not met (`?repository=<id>&digest=`)."""
    user, key = reader(request), request.GET.get("repository", "")
    visible = repositories_visible_to(user).select_related("team", "registry").filter(source=None)
    repository = visible.filter(pk=int(key)).first() if key.isascii() and key.isdigit() and len(key) < 18 else None
    if repository is None:
        raise NotFound("Image not found, or you don't have access.")
    image = promotable_image(repository, request.GET.get("digest", ""))
    path = list(environments_visible_to(user).filter(team=repository.team_id).order_by("position"))
    possible = [row for row in path if why_not_break_glass(user, repository, row) is None]
    if not possible:
        require(user, Verb.PROMOTION_BREAKGLASS, repository=repository)
        refuse_if(why_not_break_glass(user, repository, path[0]) if path else None)
        raise NotFound("The team has no environments yet.")
    why_not = why_not_without_password(user)
    if why_not is not None:
        return lead_to_confirm(request, request.get_full_path(), why_not.text)
    form = BreakGlassForm(
        possible, request.POST if request.method == "POST" else None,
        initial={"environment": request.GET.get("environment", ""), **kept_input(request)},
        asks_password=user.has_usable_password(),
    )  # fmt: skip
    if request.method == "POST" and form.is_valid():
        try:
            with errors_shown_on(form):
                values = form.cleaned_data
                made = break_glass(
                    repository, image.digest, values["environment"], actor=user, reason=values["reason"],
                    incident=values["incident"], password=values.get("password", ""),
                )  # fmt: skip
                return redirect("lifecycle:promotion", made.pk)
        except StepUpRequired as error:
            return lead_to_proof(request, request.get_full_path(), error)
    context = {"form": form, "repository": repository, "image": image}
    return render(request, "lifecycle/promotion/break_glass.html", context, status=422 if form.errors else 200)


@require_safe
def environments(request: HttpRequest) -> HttpResponse:
    """Show the current image of each repository in each environment of a team (`?team=`), with waiting requests."""
    user = reader(request)
    visible = list(environments_visible_to(user).order_by("team__slug", "position"))
    teams = list({row.team_id: row.team for row in visible}.values())
    slug = chosen_filter(request, "team", [row.slug for row in teams])
    team = next((row for row in teams if row.slug == slug), None) or _first_with_images(user, teams)
    context: dict[str, Any] = {"teams": teams, "team": team, "environments": []}
    if team is not None:
        path = [row for row in visible if row.team_id == team.pk]
        families = repositories_visible_to(user).filter(team=team, source=None).select_related("team")
        page = keyset_page(families, ("name", "id"), **cursors(request))
        gates = page_queries.gates_of(team, path)
        context |= {"page": page, "board": page_queries.board_of(page.rows, path, gates, user)}
        context |= {"environments": [gates[row.pk] for row in path]}
        context |= {"holds": page_queries.holds_over(team, path)}
        context |= {"debts": list(debts_visible_to(user).filter(environment__in=path)[:_SIDE_MAX])}
    return render(request, "lifecycle/promotion/environments.html", context)


def _first_with_images(user: User, teams: list[Team]) -> Team | None:
    """Return the first team with a repository that the user can see, else the first team: an admin sees them all."""
    if len(teams) < 2:
        return teams[0] if teams else None
    rows = repositories_visible_to(user).filter(source=None, team__in=teams)
    filled = set(rows.values_list("team", flat=True).distinct())
    return next((team for team in teams if team.pk in filled), teams[0])
