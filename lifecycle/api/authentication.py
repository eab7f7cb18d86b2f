"""Authentication for the API: a bearer token, or a browser session with its CSRF token."""

from __future__ import annotations

from typing import Final

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed, Throttled
from rest_framework.request import Request

from accounts import tokens
from accounts.models import ApiToken, User
from lifecycle.authority import limiter
from lifecycle.authority.covers import HELD_BY_TOKEN, remember_rights
from lifecycle.core import context

_KNOWN: Final = "_gravingdock_token"  # on Django's request: check a token, and count a wrong one, once


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer gdk_...`. Account passwords are not accepted."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        http = request._request
        if not hasattr(http, _KNOWN):
            setattr(http, _KNOWN, self._check_token(text.strip()))
        token_or_error: ApiToken | APIException = getattr(http, _KNOWN)
        if isinstance(token_or_error, APIException):
            raise token_or_error
        return token_or_error.user, token_or_error

    def _check_token(self, text: str) -> ApiToken | APIException:
        """Return the active token, or the error. A wrong token counts in the limit that all sign-in paths share."""
        address = context.current().address
        token = tokens.find_token(text, beside={"held_by_token": HELD_BY_TOKEN})
        if token is not None and token.kind != ApiToken.Kind.REFRESH:
            remember_rights(token)
            tokens.note_use(token, address)
            context.set_token_lookup(token.lookup)
            return token
        if token is None and (why := tokens.why_refused(text)):
            return AuthenticationFailed(why)
        account = tokens.account_guessed(text)
        if account is not None and not limiter.note_failure(account, address):
            error = Throttled(
                detail="Too many wrong tokens for this account or address. Wait five minutes, then try again."
            )
            # As an argument, DRF would also append it to the detail.
            error.wait = limiter.RETRY_AFTER_S  # type: ignore[attr-defined]  # the stubs leave it out
            return error
        return AuthenticationFailed("The token is unknown, expired or revoked. Create a new one.")

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gravingdock"'


class BrowserSessionAuthentication(SessionAuthentication):
    """The session of the signed-in browser. Unsafe methods need the CSRF token."""
