"""`POST /auth/exchange`: an identity token for a short token, by RFC 8693. A plain WSGI callable, as `/auth/token`."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson
import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections

from lifecycle.authority import limiter
from lifecycle.core.address import client_address
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import Malformed
from lifecycle.keyless import services
from lifecycle.keyless.constants import GRANT_TYPE, IDENTITY_MAX, ISSUED_TYPE, SUBJECT_TYPES, TOKEN_LIFE_S
from lifecycle.keyless.issuers import IssuerUnavailable
from lifecycle.keyless.types import RefusedIdentity
from lifecycle.tokens.forms import BadForm, body_of, one, parameters

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = structlog.get_logger(__name__)
PATH: Final = "/auth/exchange"


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one exchange with JSON, also for errors."""
    close_old_connections()
    try:
        status, answer = _answer(environ)
    except (DatabaseError, InterfaceError):
        status, answer = _error(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", "Try again in a moment.")
    finally:
        close_old_connections()
    body = orjson.dumps(answer)
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "POST"))
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        wait_s = limiter.RETRY_AFTER_S if status == HTTPStatus.TOO_MANY_REQUESTS else 5
        headers.append(("Retry-After", str(wait_s)))
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


def _answer(environ: WSGIEnvironment) -> tuple[HTTPStatus, dict[str, object]]:
    if environ.get("REQUEST_METHOD") != "POST":
        return _error(HTTPStatus.METHOD_NOT_ALLOWED, "invalid_request", "Use POST.")
    try:
        form = parameters(body_of(environ))
        wanted = {name: one(form, name) for name in ("grant_type", "subject_token", "subject_token_type", "robot")}
    except BadForm as error:
        return _error(error.status, "invalid_request", str(error))
    text, address = wanted["subject_token"].strip(), client_address(environ)
    problem = ""
    if wanted["grant_type"] != GRANT_TYPE:
        problem = f"grant_type must be {GRANT_TYPE}."
    elif wanted["subject_token_type"] not in SUBJECT_TYPES:
        problem = f"subject_token_type must be one of {', '.join(SUBJECT_TYPES)}."
    elif not text or len(text) > IDENTITY_MAX:
        problem = "subject_token must be the identity token of the job."
    if problem:
        return _error(HTTPStatus.BAD_REQUEST, "invalid_request", problem)
    if limiter.is_exhausted("", address):
        return _error(HTTPStatus.TOO_MANY_REQUESTS, "invalid_request", "Too many wrong credentials. Wait five minutes.")
    return _exchanged(text, wanted["robot"], address)


def _exchanged(text: str, robot: str, address: str | None) -> tuple[HTTPStatus, dict[str, object]]:
    try:
        with request_context(RequestContext(address=address)):
            row, issued, rule = services.exchange(text, robot=robot)
    except IssuerUnavailable as error:
        limiter.note_failure("", address)  # it costs us most: who makes up tokens of a slow issuer is limited too
        log.warning("keyless_issuer_unavailable", error=str(error))
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", str(error))
    except RefusedIdentity as error:
        limiter.note_failure("", address)
        log.info("keyless_refused", address=address, reason=str(error))
        return _error(HTTPStatus.BAD_REQUEST, "invalid_grant", str(error))
    except Malformed as error:
        return _error(HTTPStatus.BAD_REQUEST, "invalid_request", str(error))
    return HTTPStatus.OK, {
        "access_token": issued,
        "issued_token_type": ISSUED_TYPE,
        "token_type": "Bearer",
        "expires_in": TOKEN_LIFE_S,
        "username": row.user.username,  # for the registry: the token is the password of this user name
        "rule": rule.name,
    }


def _error(status: HTTPStatus, code: str, message: str) -> tuple[HTTPStatus, dict[str, object]]:
    return status, {"error": code, "error_description": message}
