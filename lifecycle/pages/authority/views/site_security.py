"""The page where admins decide what sign-ins and approvals need."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from accounts.models import Role
from accounts.verbs import ROLES_OF_MACHINES
from lifecycle.authority import services
from lifecycle.authority.access import people_for
from lifecycle.authority.second_factors import has_factor
from lifecycle.authority.services.security import roles_with_factor
from lifecycle.core.errors import StepUpRequired
from lifecycle.pages.authority.forms import SecurityForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import reader


@require_http_methods(["GET", "HEAD", "POST"])
def security(request: HttpRequest) -> HttpResponse:
    """Show or change who needs a second factor, and whether approvals into production need a fresh one."""
    user = reader(request)
    people_for(user)
    row = services.security_now()
    roles = list(Role.objects.exclude(slug__in=ROLES_OF_MACHINES).values_list("slug", flat=True))
    if request.method == "POST":
        form = SecurityForm(roles, request.POST)
        if form.is_valid():
            try:
                with errors_shown_on(form):
                    services.change_security(actor=user, **form.cleaned_data)
                    messages.success(request, "Saved. It takes effect with the next request of everybody.")
                    return redirect("lifecycle:site-security")
            except StepUpRequired as error:
                messages.info(request, error.message)
                if not has_factor(user):
                    return redirect("lifecycle:security")
                return redirect(f"{reverse('lifecycle:confirm')}?{urlencode({'next': request.path})}")
    else:
        values = {name: getattr(row, name) for name in ("second_factor_for_admins", "step_up_is_on", "revision")}
        form = SecurityForm(roles, initial={**values, "second_factor_for_roles": roles_with_factor()})
    return render(request, "lifecycle/authority/site_security.html", {"form": form}, status=422 if form.errors else 200)
