"""Who calls the API: a bearer token, or the browser's own session with its CSRF token."""

from __future__ import annotations

from typing import Final

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed, Throttled
from rest_framework.request import Request

from accounts import tokens
from accounts.models import ApiToken, User
from lifecycle.authority import limiter
from lifecycle.core import context

_KNOWN: Final = "_gravingdock_token"  # on Django's request: the token is judged, and a wrong one counted, once


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer gdk_...`; account passwords are never taken."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        http = request._request
        if not hasattr(http, _KNOWN):
            setattr(http, _KNOWN, self._judge(text.strip()))
        found: ApiToken | APIException = getattr(http, _KNOWN)
        if isinstance(found, APIException):
            raise found
        return found.user, found

    def _judge(self, text: str) -> ApiToken | APIException:
        """Return the live token, or the refusal; a guess is counted in the budget that all doors share."""
        address = context.current().address
        token = tokens.find_token(text)
        if token is not None and token.kind != ApiToken.Kind.REFRESH:
            tokens.note_use(token, address)
            context.set_token_lookup(token.lookup)
            return token
        account = tokens.account_guessed(text)
        if account is not None and not limiter.note_failure(account, address):
            return Throttled(limiter.RETRY_AFTER_S, "Too many wrong tokens from here; wait a while.")
        return AuthenticationFailed("The token is not known, has expired, or was revoked. Make a new one.")

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gravingdock"'


class BrowserSessionAuthentication(SessionAuthentication):
    """The signed-in browser; unsafe methods need the CSRF token."""
