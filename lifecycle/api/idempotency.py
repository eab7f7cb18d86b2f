"""`Idempotency-Key` on every POST of the API (draft-ietf-httpapi-idempotency-key-header-08).

The first request with a key runs, and its response is stored for a day in the same transaction as the changes. So after
a crash either both exist or neither. The same request again gets the stored response and changes nothing, if the caller
may still do it (`replaying.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from django.db import connection, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from accounts.models import User
from accounts.tokens import TOKEN
from lifecycle.api.authentication import BrowserSessionAuthentication, TokenAuthentication
from lifecycle.api.models import IdempotencyKey
from lifecycle.api.replaying import check_again
from lifecycle.api.secrets import SecretResponse
from lifecycle.audit.services import record_refusal
from lifecycle.core.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    LifecycleError,
    MalformedIdempotencyKey,
    NotFound,
)
from lifecycle.core.problems import MEDIA_TYPE, problem_answer

KEEP: Final = timedelta(hours=24)
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
# In the draft the key is a quoted string; many clients send it without quotes. 128 characters fit a UUID or a digest.
_KEY: Final = re.compile(r'"?([\x21\x23-\x7e]{1,128})"?')
# These responses are not stored: after signing in or waiting, a client must be able to retry with the same key.
_NOT_KEPT: Final = frozenset({401, 408, 409, 425, 429})

Answer = Callable[[HttpRequest], HttpResponse]


class IdempotencyMiddleware:
    """Runs an API POST with a key once, and returns its stored response to the same request."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER)
        if given is None or request.method != "POST" or not request.path.startswith("/api/v1/"):
            return self.get_response(request)
        spelled = _KEY.fullmatch(given)
        if spelled is None:
            return _refused(MalformedIdempotencyKey(f"{HEADER} must have 1 to 128 visible characters. Use a UUID."))
        user = _caller(request)
        if user is None:
            return self.get_response(request)  # the view reports the problem with the credentials
        return self._once(request, user, spelled[1])

    def _once(self, request: HttpRequest, user: User, key: str) -> HttpResponse:
        whole = f"{request.method}\n{request.get_full_path()}\n".encode() + request.body
        fingerprint = hashlib.sha256(whole).digest()
        in_transaction = not _calls_others(request)
        with _key_lock(user, key, in_transaction=in_transaction) as is_locked:
            if not is_locked:
                answer = _refused(
                    IdempotencyKeyInUse("The first request with this key is still running. Try again in a second.")
                )
                answer["Retry-After"] = "1"
                return answer
            rows = IdempotencyKey.objects.filter(user=user, key=key)
            rows.filter(created_at__lt=Now() - KEEP).delete()
            row = rows.first()
            if row is not None:
                return _replay(request, user, row, fingerprint)
            answer = self.get_response(request)
            if answer.status_code >= 500:
                if in_transaction:
                    transaction.set_rollback(True)
            elif answer.status_code not in _NOT_KEPT:
                _keep(user, key, fingerprint, answer)
            return answer


def _refused(error: LifecycleError) -> HttpResponse:
    return problem_answer(error.http_status, error.error_code, error.message)


def _caller(request: HttpRequest) -> User | None:
    """Return the user whom the API's views will authenticate, or None when they will reject the credentials."""
    try:
        user = Request(request, authenticators=[TokenAuthentication(), BrowserSessionAuthentication()]).user
    except APIException:
        return None
    return user if isinstance(user, User) else None


def _calls_others(request: HttpRequest) -> bool:
    """Return whether the view calls another system, and so must not run inside a transaction.

    Such a view lists its actions in `calls_others` and must be safe to repeat: after a crash between its work and our
    row, it runs again.
    """
    try:
        function = resolve(request.path_info).func
    except Resolver404:
        return False
    names: frozenset[str] = getattr(getattr(function, "cls", None), "calls_others", frozenset())
    return getattr(function, "actions", {}).get("post", "post") in names


@contextmanager
def _key_lock(user: User, key: str, *, in_transaction: bool) -> Iterator[bool]:
    """Lock the key for a block, with or without a transaction. Yields whether the lock was free; never waits."""
    name = f"idempotency:{user.pk}:{key}"
    if in_transaction:
        with transaction.atomic():
            yield _query_bool("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 7008))", name)
    else:
        is_locked = _query_bool("SELECT pg_try_advisory_lock(hashtextextended(%s, 7008))", name)
        try:
            yield is_locked
        finally:
            if is_locked:
                _query_bool("SELECT pg_advisory_unlock(hashtextextended(%s, 7008))", name)


def _query_bool(statement: str, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, [name])
        (is_true,) = cursor.fetchone()
    return bool(is_true)


def _keep(user: User, key: str, fingerprint: bytes, answer: HttpResponse) -> None:
    IdempotencyKey.objects.create(
        user=user,
        key=key,
        request_sha256=fingerprint,
        status=answer.status_code,
        body=_body_of(answer),
        location=answer.get("Location", "")[:500],
    )


def _body_of(answer: HttpResponse) -> str | None:
    """Return the response's text without secrets: the fields that the view names, and any text like a token.

    The text is stored as one JSON string. A JSON object in `jsonb` cannot hold an escaped NUL, and an error can quote
    a request that has one.
    """
    if isinstance(answer, SecretResponse):
        text = json.dumps(answer.kept_data(), default=str)
    else:
        text = answer.content.decode()
    return TOKEN.sub("(shown once)", text) or None


def _replay(request: HttpRequest, user: User, row: IdempotencyKey, fingerprint: bytes) -> HttpResponse:
    if bytes(row.request_sha256) != fingerprint:
        return _refused(
            IdempotencyKeyReused("This key was used with another request. Use a new key for a new request.")
        )
    if row.status < 400 and (refusal := _refusal_now(request, user, row)) is not None:
        return refusal
    answer = HttpResponse(status=row.status)
    if row.body is not None:
        text = row.body if isinstance(row.body, str) else json.dumps(row.body)  # an object: stored by an older version
        media_type = MEDIA_TYPE if row.status >= 400 else "application/json"
        answer = HttpResponse(text, status=row.status, content_type=media_type)
    answer[REPLAYED] = "true"
    answer["Cache-Control"] = "no-store"
    if row.location:
        answer["Location"] = row.location
    return answer


def _refusal_now(request: HttpRequest, user: User, row: IdempotencyKey) -> HttpResponse | None:
    """Return the error for a caller who may no longer do what the stored response says was done; else None."""
    body = json.loads(row.body) if isinstance(row.body, str) else row.body
    try:
        match = resolve(request.path_info)
        check_again(match.url_name or "", user, match.kwargs, body)
    except Resolver404:
        return _refused(NotFound("Not found, or you don't have access."))
    except LifecycleError as error:
        record_refusal(user, error, method=request.method or "", path=request.path)
        return _refused(error)
    return None


def forget_old() -> int:
    """Delete the stored responses that have expired; returns their number."""
    deleted, _ = IdempotencyKey.objects.filter(created_at__lt=Now() - KEEP).delete()
    return deleted
