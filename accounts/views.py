"""The one view of our own around those of allauth."""

from __future__ import annotations

from allauth.account.views import password_change
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect


def change_password(request: HttpRequest) -> HttpResponse:
    """Change the reader's password. Who has none is told so: allauth would lead to a page that is not routed."""
    if request.user.is_authenticated and not request.user.has_usable_password():
        messages.info(request, "Your account has no password. Ask an admin for a link to set one.")
        return redirect("lifecycle:security")
    answer: HttpResponse = password_change(request)
    return answer
