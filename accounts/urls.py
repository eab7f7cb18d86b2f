"""Sign-in, sign-out and password change. No other views of allauth are routed."""

from __future__ import annotations

from allauth.account.views import login, logout
from django.contrib.auth.decorators import login_not_required
from django.urls import path

from accounts.views import change_password

urlpatterns = [
    path("sign-in/", login_not_required(login), name="account_login"),  # open to visitors, to sign in
    path("sign-out/", logout, name="account_logout"),
    path("password/change/", change_password, name="account_change_password"),
]
