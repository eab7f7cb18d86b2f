"""The reader's own profile, and the page where an invitation or a reset link sets a password."""

from __future__ import annotations

from typing import Final

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.models import HeldGrant
from lifecycle.pages.authority.forms import NewPasswordForm, ProfileForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import reader

_EVENTS_MAX: Final = 50  # shown


@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """Show or change the reader's name, mail and time zone."""
    user = reader(request)
    if request.method == "POST":
        form = ProfileForm(request.POST)
        if form.is_valid():
            with errors_shown_on(form):
                services.change_profile(actor=user, **form.cleaned_data)
                messages.success(request, "Profile saved.")
                return redirect("lifecycle:profile")
    else:
        form = ProfileForm(initial={"full_name": user.full_name, "email": user.email, "time_zone": user.time_zone})
    context = {"form": form, "verified": user.email_verified_at}
    return render(request, "lifecycle/authority/profile.html", context, status=422 if form.errors else 200)


@require_safe
def access(request: HttpRequest) -> HttpResponse:
    """Show the reader's own grants with who gave them, and what the reader did last."""
    user = reader(request)
    grants = HeldGrant.objects.filter(user=user).select_related(
        "team", "role", "environment", "granted_by", "group__team", "through__team"
    )
    done = AuditEvent.objects.filter(actor=user).order_by("-pk")
    context = {
        "grants": grants.order_by("team__slug", "role__slug", "pk", "through"),
        "events": list(done[:_EVENTS_MAX]),
    }
    return render(request, "lifecycle/authority/access.html", context)


@login_not_required  # the link is the credential: the person has no password yet
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def link(request: HttpRequest, text: str) -> HttpResponse:
    """Set the password of the account that the link belongs to. A browser that is signed in must sign out first."""
    account = services.link_for(text).user
    is_signed_in = request.user.is_authenticated
    form = NewPasswordForm(account, request.POST if request.method == "POST" and not is_signed_in else None)
    if request.method == "POST" and form.is_valid():
        services.use_link(text, password=form.cleaned_data["new_password1"])
        messages.success(request, f"Password set. Sign in as {account}.")
        return redirect("account_login")
    context = {"form": form, "account": account, "is_signed_in": is_signed_in}
    is_refused = bool(form.errors) or (is_signed_in and request.method == "POST")
    return render(request, "lifecycle/authority/link.html", context, status=422 if is_refused else 200)
