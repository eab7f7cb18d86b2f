"""`/auth/token`, the registry's token endpoint. It is a plain WSGI callable, because every pull and push waits for it.

GET follows the token specification, and POST follows its OAuth2 variant. Clients send POST bodies in chunks without a
length. Django would drop such bodies, so this module reads the body itself, up to a limit.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections

from accounts import tokens as api_tokens
from accounts.models import ApiToken, User
from lifecycle.authority import limiter
from lifecycle.authority.services import create_registry_sign_in
from lifecycle.core.address import client_address
from lifecycle.core.context import RequestContext, request_context
from lifecycle.oci import signing
from lifecycle.oci.scopes import granted, parse_scopes
from lifecycle.tokens.rights import allowed_actions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = structlog.get_logger(__name__)

BODY_MAX_BYTES: Final = 64 * 1024
QUERY_MAX: Final = 64 * 1024  # characters
CREDENTIAL_MAX: Final = 1024  # characters of a user name or a password
_PARAMETERS_MAX: Final = 2000
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
    close_old_connections()
    extra: list[tuple[str, str]] = []
    try:
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
    finally:
        close_old_connections()
    body = json.dumps(answer).encode()
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
    except (DatabaseError, InterfaceError) as error:
        log.warning("token_database_unavailable", error=type(error).__name__)
        raise _Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The database did not respond. Try again in a moment."
        ) from error
    raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "unsupported", "Method not allowed. Use GET or POST.")


def _answer_get(environ: WSGIEnvironment) -> dict[str, object]:
    query = _parameters(environ.get("QUERY_STRING", ""))
    _check_service(query)
    token, address = None, client_address(environ)
    if header := environ.get("HTTP_AUTHORIZATION", ""):
        name, password = _basic(header)
        token = _api_token_of(name, password, address)
    answer = _registry_token(token.user if token is not None else None, query.get("scope", []))
    if token is not None and ("true" in query.get("offline_token", []) or "offline" in query.get("access_type", [])):
        answer["refresh_token"] = _refresh_token(token, _one(query, "client_id"), address)
    return answer


def _answer_post(environ: WSGIEnvironment) -> dict[str, object]:
    form = _parameters(_body(environ))
    _check_service(form)
    grant_type, address = _one(form, "grant_type"), client_address(environ)
    if grant_type == "password":
        token = _api_token_of(_one(form, "username"), _one(form, "password"), address)
    elif grant_type == "refresh_token":
        token = _refreshed(_one(form, "refresh_token"), address)
    else:
        raise _Refusal(
            HTTPStatus.BAD_REQUEST, "unsupported_grant_type", "Unsupported grant type. Use password or refresh_token."
        )
    answer = _registry_token(token.user, form.get("scope", []))
    if grant_type == "refresh_token":
        answer["refresh_token"] = _one(form, "refresh_token")
    elif "offline" in form.get("access_type", []):
        answer["refresh_token"] = _refresh_token(token, _one(form, "client_id"), address)
    return answer


def _registry_token(user: User | None, scope_texts: list[str]) -> dict[str, object]:
    requested = parse_scopes(scope_texts)
    access = granted(requested, allowed_actions(user, requested)) if user is not None and requested else []
    signed = signing.sign(user.username if user is not None else "", access)
    issued_at = datetime.fromtimestamp(signed.issued_at, UTC)
    return {
        "token": signed.text,
        "access_token": signed.text,
        "scope": " ".join(map(str, access)),
        "expires_in": signed.expires_in,
        "issued_at": issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _api_token_of(name: str, password: str, address: str | None) -> ApiToken:
    """Return the token with the text `password` if it is live and belongs to the user `name`.

    Raises _Refusal for other texts. Account passwords are never accepted.
    """
    token = api_tokens.find_token(password) if 0 < len(password) <= CREDENTIAL_MAX else None
    if token is None or token.kind == ApiToken.Kind.REFRESH or token.user.username != name:
        raise _refused_credential(name, password, address)
    api_tokens.note_use(token, address)
    return token


def _refreshed(text: str, address: str | None) -> ApiToken:
    token = api_tokens.find_token(text) if len(text) <= CREDENTIAL_MAX else None
    if token is None or token.kind != ApiToken.Kind.REFRESH or token.service != settings.REGISTRY_SERVICE:
        raise _refused_credential("", text, address)
    api_tokens.note_use(token, address)
    return token


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


def _refresh_token(token: ApiToken, client: str, address: str | None) -> str:
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


def _check_service(parameters: dict[str, list[str]]) -> None:
    # A missing service is accepted, because some clients omit it when they only check a sign-in. Any other service is
    # rejected, because the token is valid only for our registry (docker_auth #170).
    if any(service != settings.REGISTRY_SERVICE for service in parameters.get("service", [])):
        raise _Refusal(
            HTTPStatus.BAD_REQUEST, "invalid_request", "Unknown service. Check the token settings of the registry."
        )


def _parameters(text: str) -> dict[str, list[str]]:
    if len(text) > QUERY_MAX:
        raise _Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "invalid_request", "The request is too long.")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_PARAMETERS_MAX, errors="replace")
    except ValueError:
        raise _Refusal(HTTPStatus.BAD_REQUEST, "invalid_request", "Too many parameters.") from None


def _one(parameters: dict[str, list[str]], name: str) -> str:
    values = parameters.get(name, [""])
    if len(set(values)) > 1:
        raise _Refusal(
            HTTPStatus.BAD_REQUEST, "invalid_request", f"Parameter {name} has two different values. Send it once."
        )
    return values[0]


def _body(environ: WSGIEnvironment) -> str:
    """Return the body as text, chunked or not. Raises _Refusal (413) for a body above the limit."""
    length_text = environ.get("CONTENT_LENGTH") or ""
    stream = environ["wsgi.input"]
    too_long = _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "invalid_request", "The body is too long.")
    if length_text:
        if not length_text.isascii() or not length_text.isdigit():
            raise _Refusal(HTTPStatus.BAD_REQUEST, "invalid_request", "Content-Length is not a number.")
        if int(length_text) > BODY_MAX_BYTES:
            raise too_long
        body = stream.read(int(length_text))
    elif environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        pieces, size = [], 0
        while piece := stream.read(BODY_MAX_BYTES + 1 - size):
            pieces.append(piece)
            size += len(piece)
            if size > BODY_MAX_BYTES:
                raise too_long
        body = b"".join(pieces)
    else:
        body = b""
    return str(body, "utf-8", "replace")
