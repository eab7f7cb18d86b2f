"""The reader's own tokens: list, create and revoke."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from lifecycle.authority import services
from lifecycle.authority.queries import live_tokens
from lifecycle.core.paging import keyset_page
from lifecycle.pages.authority.forms import TokenForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader


@never_cache  # the response to a new token contains its text
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """List the reader's tokens, or create one. Only this response contains the text of the new token."""
    user, secret = reader(request), ""
    form = TokenForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            secret = services.create_api_token(user, actor=user, **form.cleaned_data)
            form = TokenForm()
    rows = live_tokens().filter(user=user)
    context = {"page": keyset_page(rows, ("-id",), **cursors(request)), "form": form, "secret": secret}
    return render(request, "lifecycle/authority/tokens.html", context, status=422 if form.errors else 200)


@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Revoke one of the reader's tokens."""
    services.revoke_api_token(pk, actor=reader(request))
    messages.success(request, "Token revoked.")
    return redirect("lifecycle:tokens")
