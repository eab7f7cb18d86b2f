"""Who calls the API: a bearer token, or the browser's own session with its CSRF token."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts import tokens
from accounts.models import ApiToken, User
from lifecycle.core import context


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer gdk_...`; account passwords are never taken."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = tokens.find_token(text.strip())
        if token is None or token.kind == ApiToken.Kind.REFRESH:
            raise AuthenticationFailed("The token is not known, has expired, or was revoked. Make a new one.")
        tokens.note_use(token, request.META.get("REMOTE_ADDR") or None)
        context.set_token_lookup(token.lookup)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gravingdock"'


class BrowserSessionAuthentication(SessionAuthentication):
    """The signed-in browser; unsafe methods need the CSRF token."""
