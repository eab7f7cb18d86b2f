"""Accounts of people, for admins: made, ended, let in again."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accounts.models import User
from lifecycle.authority import services
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.core.paging import keyset_page
from lifecycle.pages.authority.forms import PersonForm
from lifecycle.pages.requests import cursors, reader

_SEARCH_MAX = 150  # characters, as a user name


def _require_admin(request: HttpRequest) -> User:
    user = reader(request)
    if not is_above_grants(user):
        raise NotPermitted("Only an admin looks after accounts; ask one.")
    return user


def _page(
    request: HttpRequest, form: PersonForm, *, made: User | None = None, secret: str = "", status: int = 200
) -> HttpResponse:
    rows, text = User.objects.filter(kind=User.Kind.PERSON), request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        rows = rows.filter(username__icontains=text)
    context = {
        "page": keyset_page(rows, ("username", "id"), **cursors(request)),
        "q": text,
        "form": form,
        "made": made,
        "secret": secret,
    }
    return render(request, "lifecycle/authority/people.html", context, status=status)


@never_cache  # the answer to a new account holds its password
@require_http_methods(["GET", "HEAD", "POST"])
def people(request: HttpRequest) -> HttpResponse:
    """List the accounts of people; a new one's password is in the answer and nowhere else."""
    actor = _require_admin(request)
    form = PersonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        made, password = services.create_person(actor=actor, **form.cleaned_data)
        return _page(request, PersonForm(), made=made, secret=password)
    return _page(request, form, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def deactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask whether to end an account, and do it."""
    actor = _require_admin(request)
    if request.method == "POST":
        user = services.deactivate(pk, actor=actor)
        messages.success(request, f"{user} is signed out everywhere, and holds no token any more.")
        return redirect("lifecycle:people")
    person = User.objects.filter(pk=pk, kind=User.Kind.PERSON).first()
    if person is None:
        raise NotFound("There is no such account.")
    return render(request, "lifecycle/authority/deactivate.html", {"person": person})


@never_cache  # as above
@require_POST
def reactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Let somebody in again, with a new password that this answer alone holds."""
    user, password = services.reactivate(pk, actor=_require_admin(request))
    return _page(request, PersonForm(), made=user, secret=password)
