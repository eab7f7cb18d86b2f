"""The user's preferences for the pages."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

_THEMES: Final = ("system", "light", "dark")
_COOKIE_AGE_S: Final = 365 * 24 * 3600


@login_not_required  # the sign-in page has the switch too; it changes only the look of pages
@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Store the theme in a cookie and in the account of a signed-in user, then redirect back to the page."""
    chosen = request.POST.get("theme", "")
    if chosen not in _THEMES:
        chosen = "system"
    back = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        back = "/"
    if request.user.is_authenticated and request.user.theme != chosen:
        request.user.theme = chosen
        request.user.save(update_fields=["theme"])
    response = HttpResponseRedirect(back)
    response.set_cookie(
        "gd_theme", chosen, max_age=_COOKIE_AGE_S, samesite="Lax", secure=request.is_secure(), httponly=True
    )
    return response
