"""`/auth/token`, the registry's token endpoint. It is a plain WSGI callable, because every pull and push waits for it.

GET follows the token specification, and POST follows its OAuth2 variant. `forms.py` reads the body.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson
import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from accounts import tokens as api_tokens
from accounts.models import ApiToken
from lifecycle.authority import limiter
from lifecycle.authority.services import create_registry_sign_in
from lifecycle.core.address import client_address
from lifecycle.core.context import RequestContext, request_context
from lifecycle.oci import signing
from lifecycle.oci.scopes import Scope, granted, parse_scopes
from lifecycle.tokens.forms import BadForm, body_of, one, parameters
from lifecycle.tokens.holders import Holder, holder_of
from lifecycle.tokens.memory import Memory, View
from lifecycle.tokens.rights import decide, visitors_actions
from lifecycle.tokens.uses import Uses

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = structlog.get_logger(__name__)

CREDENTIAL_MAX: Final = 1024  # characters of a user name or a password
_MEMORY: Final = Memory()
_USES: Final = Uses()
_USE_A_TOKEN: Final = (
    "Use an access token as the password, not your account password:"
    f" docker login -u USER {settings.REGISTRY_PUBLIC_URL.partition('://')[2]}, token from"
    f" {settings.PUBLIC_URL}/account/tokens/."
)


class _Refusal(Exception):
    """An error response. `code` is the OAuth2 error code where the specification has one, else Distribution's code."""

    def __init__(self, status: HTTPStatus, code: str, message: str, *, challenge: bool = False) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.challenge = challenge


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request for a registry token with JSON, also for errors."""
    extra: list[tuple[str, str]] = []
    try:
        status, answer = HTTPStatus.OK, _answer(environ)
    except _Refusal as refusal:
        status = refusal.status
        answer = {
            "error": refusal.code,
            "error_description": refusal.message,
            "errors": [{"code": refusal.code.upper(), "message": refusal.message}],
        }
        if refusal.challenge:
            extra.append(("WWW-Authenticate", 'Basic realm="gravingdock", charset="UTF-8"'))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            extra.append(("Allow", "GET, POST"))
        if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            wait_s = limiter.RETRY_AFTER_S if status == HTTPStatus.TOO_MANY_REQUESTS else 2
            extra.append(("Retry-After", str(wait_s)))
    body = orjson.dumps(answer)
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    start_response(f"{status.value} {status.phrase}", headers + extra)
    return [body]


def _answer(environ: WSGIEnvironment) -> dict[str, object]:
    method = environ.get("REQUEST_METHOD", "")
    try:
        if method == "GET":
            return _answer_get(environ)
        if method == "POST":
            return _answer_post(environ)
    except BadForm as error:
        raise _Refusal(error.status, "invalid_request", str(error)) from None
    except (DatabaseError, InterfaceError) as error:
        log.warning("token_database_unavailable", error=type(error).__name__)
        raise _Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The database did not respond. Try again in a moment."
        ) from error
    raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "unsupported", "Method not allowed. Use GET or POST.")


def _answer_get(environ: WSGIEnvironment) -> dict[str, object]:
    query = parameters(environ.get("QUERY_STRING", ""))
    _check_service(query)
    header, address = environ.get("HTTP_AUTHORIZATION", ""), client_address(environ)
    if not header:
        is_asking = settings.ANONYMOUS_ACCESS and "scope" in query
        return _registry_token(None, query.get("scope", []), _MEMORY.view() if is_asking else None)
    name, password = _basic(header)
    view = _MEMORY.view()
    holder = _holder_named(name, password, address, view)
    answer = _registry_token(holder, query.get("scope", []), view)
    if "true" in query.get("offline_token", []) or "offline" in query.get("access_type", []):
        answer["refresh_token"] = _refresh_token(name, password, one(query, "client_id"), address)
    return answer


def _answer_post(environ: WSGIEnvironment) -> dict[str, object]:
    form = parameters(body_of(environ))
    _check_service(form)
    grant_type, address = one(form, "grant_type"), client_address(environ)
    if grant_type not in {"password", "refresh_token"}:
        raise _Refusal(
            HTTPStatus.BAD_REQUEST, "unsupported_grant_type", "Unsupported grant type. Use password or refresh_token."
        )
    name, password = one(form, "username"), one(form, "password")
    refresh_token = one(form, "refresh_token")
    view = _MEMORY.view()
    if grant_type == "password":
        holder = _holder_named(name, password, address, view)
    else:
        holder = _refreshed(refresh_token, address, view)
    answer = _registry_token(holder, form.get("scope", []), view)
    if grant_type == "refresh_token":
        answer["refresh_token"] = refresh_token
    elif "offline" in form.get("access_type", []):
        answer["refresh_token"] = _refresh_token(name, password, one(form, "client_id"), address)
    return answer


def _registry_token(holder: Holder | None, scope_texts: list[str], view: View | None) -> dict[str, object]:
    requested = parse_scopes(scope_texts)
    access: list[Scope] = []
    if view is not None and requested:
        access = _granted(holder, requested, view)
        if not view.is_fresh and access != requested:  # a right may be new
            access = _granted(holder, requested, view.again())
    signed = signing.sign(holder.username if holder is not None else "", access)
    return {
        "token": signed.text,
        "access_token": signed.text,
        "scope": " ".join(map(str, access)),
        "expires_in": signed.expires_in,
        "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(signed.issued_at)),
    }


def _granted(holder: Holder | None, requested: list[Scope], view: View) -> list[Scope]:
    if holder is None:
        return granted(requested, visitors_actions(requested, view))
    return granted(requested, decide(holder.principal, requested, view))


def _holder_named(name: str, password: str, address: str | None, view: View) -> Holder:
    """Return the holder of the token with the text `password` if it is live and belongs to the user `name`.

    Raises _Refusal for other texts. Account passwords are never accepted.
    """
    holder = holder_of(password, view) if 0 < len(password) <= CREDENTIAL_MAX else None
    if holder is None or holder.kind == ApiToken.Kind.REFRESH or holder.username != name:
        raise _refused_credential(name, password, address)
    _USES.note(holder, address, view.now)
    return holder


def _refreshed(text: str, address: str | None, view: View) -> Holder:
    holder = holder_of(text, view) if len(text) <= CREDENTIAL_MAX else None
    if holder is None or holder.kind != ApiToken.Kind.REFRESH or holder.service != settings.REGISTRY_SERVICE:
        raise _refused_credential("", text, address)
    _USES.note(holder, address, view.now)
    return holder


def _refused_credential(name: str, text: str, address: str | None) -> _Refusal:
    """Count the rejected credential and return the response, which says what to use instead.

    Its text does not show whether the account exists. Only a client that has the whole text of a stored token learns
    why that token no longer works; it guessed nothing, so it is not counted.
    """
    if len(text) <= CREDENTIAL_MAX and (why := api_tokens.why_refused(text)):
        return _unauthorized(f"{why} {_USE_A_TOKEN}")
    if not limiter.note_failure(name[:CREDENTIAL_MAX], address):
        return _Refusal(
            HTTPStatus.TOO_MANY_REQUESTS,
            "toomanyrequests",
            f"Too many wrong credentials. Wait five minutes, then try again. {_USE_A_TOKEN}",
        )
    log.info("registry_credential_refused", address=address)
    return _unauthorized(f"Wrong user name or token. {_USE_A_TOKEN}")


def _unauthorized(message: str) -> _Refusal:
    return _Refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", message, challenge=True)


def _refresh_token(name: str, password: str, client: str, address: str | None) -> str:
    token = api_tokens.find_token(password)  # again, because it becomes the parent of a new row
    if token is None:
        raise _refused_credential(name, password, address)
    with request_context(RequestContext(address=address, token_lookup=token.lookup)):
        return create_registry_sign_in(token, client=client)


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        if scheme.lower() != "basic" or len(encoded) > 8 * CREDENTIAL_MAX:
            raise ValueError
        name, separator, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        if not separator:
            raise ValueError
    except (ValueError, binascii.Error):
        raise _unauthorized(
            f"The Authorization header is malformed. Use Basic authentication. {_USE_A_TOKEN}"
        ) from None
    return name, password


def _check_service(form: dict[str, list[str]]) -> None:
    # A missing service is accepted, because some clients omit it when they only check a sign-in. Any other service is
    # rejected, because the token is valid only for our registry (docker_auth #170).
    if any(service != settings.REGISTRY_SERVICE for service in form.get("service", [])):
        raise _Refusal(
            HTTPStatus.BAD_REQUEST, "invalid_request", "Unknown service. Check the token settings of the registry."
        )
