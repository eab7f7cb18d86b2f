"""Pages for admins: list, create, deactivate and reactivate the accounts of people."""

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
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader

_SEARCH_MAX = 150  # characters, as in a user name


def _require_admin(request: HttpRequest) -> User:
    user = reader(request)
    if not is_above_grants(user):
        raise NotPermitted("Only admins can manage accounts. Ask an admin.")
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


@never_cache  # the response to a new account contains its password
@require_http_methods(["GET", "HEAD", "POST"])
def people(request: HttpRequest) -> HttpResponse:
    """List the accounts of people, or create one. Only this response contains the new password."""
    actor = _require_admin(request)
    form = PersonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "username"):
            user, password = services.create_person(actor=actor, **form.cleaned_data)
            return _page(request, PersonForm(), made=user, secret=password)
    return _page(request, form, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def deactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then deactivate an account."""
    actor = _require_admin(request)
    if request.method == "POST":
        user = services.deactivate(pk, actor=actor)
        messages.success(request, f"{user} deactivated. All sessions and tokens are revoked.")
        return redirect("lifecycle:people")
    person = User.objects.filter(pk=pk, kind=User.Kind.PERSON).first()
    if person is None:
        raise NotFound("Account not found.")
    return render(request, "lifecycle/authority/deactivate.html", {"person": person})


@never_cache  # as above
@require_POST
def reactivate(request: HttpRequest, pk: int) -> HttpResponse:
    """Reactivate an account with a new password. Only this response contains the password."""
    user, password = services.reactivate(pk, actor=_require_admin(request))
    return _page(request, PersonForm(), made=user, secret=password)
