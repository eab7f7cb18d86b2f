"""The pages of promotions: what waits for the reader, all requests, one request, and the acts on it."""

from __future__ import annotations

from typing import Any, Final, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.access import may, require
from lifecycle.authority.queries import environments_visible_to, repositories_visible_to
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.promotion import services
from lifecycle.promotion.access import promotion_for
from lifecycle.promotion.forms import DecisionForm, RejectionForm, RequestForm
from lifecycle.promotion.models import PromotionRequest, Slot
from lifecycle.promotion.queries import (
    LIVE_STATES,
    decidable_by,
    executable_by,
    promotions_visible_to,
    requirements_now,
)
from lifecycle.registry.models import Image, RepositoryImage

_INBOX_MAX: Final = 100  # rows of each list; who has more waiting finds the rest under Promotions
State = PromotionRequest.State


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)  # LoginRequiredMiddleware lets nobody else in


@require_safe
def inbox(request: HttpRequest) -> HttpResponse:
    """Show what waits for the reader: requests to decide, and approved ones to carry out."""
    user = _user(request)
    context = {
        "to_decide": decidable_by(user).order_by("-pk")[:_INBOX_MAX],
        "to_execute": executable_by(user).order_by("-pk")[:_INBOX_MAX],
    }
    return render(request, "lifecycle/promotion/inbox.html", context)


@require_safe
def promotions(request: HttpRequest) -> HttpResponse:
    """List the requests that the reader may see, newest first."""
    rows, state = promotions_visible_to(_user(request)), request.GET.get("state", "")
    if state in State.values:
        rows = rows.filter(state=state)
    page = keyset_page(rows, ("-id",), after=request.GET.get("after", ""), before=request.GET.get("before", ""))
    context = {"page": page, "state": state, "states": State.values}
    return render(request, "lifecycle/promotion/promotions.html", context)


def _why_no_vote(user: User, promotion: PromotionRequest) -> str:
    """Return why `user` cannot decide now, "" when nothing stands against it. The service checks again."""
    if promotion.state not in LIVE_STATES:
        return f"It is {promotion.state}."
    if not user.is_person:
        return "Only people vote."
    if promotion.requested_by_id == user.pk:
        return "You requested it: someone else has to decide."
    held = may(user, Verb.PROMOTION_APPROVE, repository=promotion.repository, environment=promotion.environment)
    return "" if held else held.reason


def _why_not_executed(user: User, promotion: PromotionRequest) -> str:
    if promotion.state != State.READY:
        return "It can be carried out when every requirement is met."
    held = may(user, Verb.PROMOTION_EXECUTE, repository=promotion.repository, environment=promotion.environment)
    return "" if held else held.reason


def _page(
    request: HttpRequest, promotion: PromotionRequest, form: DecisionForm | None = None, *, status: int = 200
) -> HttpResponse:
    user = _user(request)
    votes = list(promotion.votes.select_related("voter").order_by("-pk"))
    slot = Slot.objects.filter(repository=promotion.repository, environment=promotion.environment)
    manages = may(user, Verb.ENVIRONMENT_MANAGE, environment=promotion.environment)
    context: dict[str, Any] = {
        "promotion": promotion,
        "requirements": requirements_now(promotion),
        "votes": votes,
        "has_approved": any(vote.voter_id == user.pk for vote in votes),
        "why_no_vote": _why_no_vote(user, promotion),
        "why_not_executed": _why_not_executed(user, promotion),
        "is_live": promotion.state in LIVE_STATES,
        "is_moving": promotion.state in {State.EXECUTING, State.VERIFYING},
        "may_withdraw": promotion.state in LIVE_STATES and (promotion.requested_by_id == user.pk or bool(manages)),
        "holds": slot.select_related("image").first(),
        "form": form or DecisionForm(),
        "events": AuditEvent.objects.filter(
            subject_kind=PromotionRequest._meta.model_name, subject_id=promotion.pk
        ).order_by("-pk")[:50],
    }
    return render(request, "lifecycle/promotion/promotion.html", context, status=status)


@require_safe
def promotion(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one request: what, from, to, its requirements as judged now, votes, and the acts open to the reader."""
    return _page(request, promotion_for(_user(request), pk))


@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Ask to promote one digest of a repository (`?repository=<id>&digest=`); an open request for it is shown."""
    user, key = _user(request), request.GET.get("repository", "")
    visible = repositories_visible_to(user).select_related("team", "registry").filter(source=None)
    repository = visible.filter(pk=int(key)).first() if key.isascii() and key.isdigit() and len(key) < 18 else None
    held = (
        RepositoryImage.objects.filter(repository=repository, image__digest=request.GET.get("digest", ""))
        .exclude(image__kind=Image.Kind.ARTIFACT)
        .select_related("image")
        .first()
        if repository is not None
        else None
    )
    if repository is None or held is None:
        raise NotFound("There is no such image, or you may not see it.")
    environments = [
        row
        for row in environments_visible_to(user).filter(team=repository.team).order_by("position")
        if may(user, Verb.PROMOTION_REQUEST, repository=repository, environment=row)
    ]
    if not environments:
        require(user, Verb.PROMOTION_REQUEST, repository=repository)
    form = RequestForm(environments, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        made = services.request_promotion(
            repository,
            held.image.digest,
            form.cleaned_data["environment"],
            actor=user,
            reason=form.cleaned_data["reason"],
            tag=form.cleaned_data["tag"],
        )
        return redirect("lifecycle:promotion", made.pk)
    context = {"form": form, "repository": repository, "image": held.image, "environments": environments}
    return render(request, "lifecycle/promotion/new.html", context, status=422 if form.errors else 200)


@require_POST
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve, with a comment or without."""
    form = DecisionForm(request.POST)
    if not form.is_valid():
        return _page(request, promotion_for(_user(request), pk), form, status=422)
    done = services.approve(pk, actor=_user(request), reason=form.cleaned_data["reason"])
    messages.success(request, f"You approved {done}.")
    return redirect("lifecycle:promotion", pk)


@require_POST
def reject(request: HttpRequest, pk: int) -> HttpResponse:
    """Reject for good; without a reason the page comes back and says so."""
    form = RejectionForm(request.POST)
    if not form.is_valid():
        return _page(request, promotion_for(_user(request), pk), form, status=422)
    done = services.reject(pk, actor=_user(request), reason=form.cleaned_data["reason"])
    messages.success(request, f"You rejected {done}.")
    return redirect("lifecycle:promotion", pk)


@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a request back."""
    services.withdraw(pk, actor=_user(request))
    return redirect("lifecycle:promotion", pk)


@require_POST
def execute(request: HttpRequest, pk: int) -> HttpResponse:
    """Carry a ready request out; the page then follows the copy."""
    services.execute(pk, actor=_user(request))
    return redirect("lifecycle:promotion", pk)
