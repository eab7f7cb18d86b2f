"""`Idempotency-Key` on every POST of the API (draft-ietf-httpapi-idempotency-key-header-08).

The first request with a key runs and its answer is kept for a day, in the transaction of what it did: after a crash
there is both or neither. The same request again gets the same answer, and does nothing. One place for all views.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import Resolver404, resolve
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from accounts.models import User
from accounts.tokens import TOKEN
from lifecycle.api.authentication import BrowserSessionAuthentication, TokenAuthentication
from lifecycle.api.models import IdempotencyKey
from lifecycle.api.secrets import SecretResponse
from lifecycle.core.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    LifecycleError,
    MalformedIdempotencyKey,
)
from lifecycle.core.problems import MEDIA_TYPE, problem_answer

KEEP: Final = timedelta(hours=24)
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
# The draft's key is a quoted string; many clients send it bare. Long enough for a UUID or a digest.
_KEY: Final = re.compile(r'"?([\x21\x23-\x7e]{1,128})"?')
# A repeat is meant to get past these: who signs in, waits, or finds us whole again, asks anew with the same key.
_NOT_KEPT: Final = frozenset({401, 408, 409, 425, 429})

Answer = Callable[[HttpRequest], HttpResponse]


class IdempotencyMiddleware:
    """Runs a keyed POST of the API once, and repeats its answer to the same request."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER)
        if given is None or request.method != "POST" or not request.path.startswith("/api/v1/"):
            return self.get_response(request)
        spelled = _KEY.fullmatch(given)
        if spelled is None:
            return _refused(MalformedIdempotencyKey(f"{HEADER} is 1 to 128 visible characters, such as a UUID."))
        user = _caller(request)
        if user is None:
            return self.get_response(request)  # the view says what is wrong with the credential
        return self._once(request, user, spelled[1])

    def _once(self, request: HttpRequest, user: User, key: str) -> HttpResponse:
        whole = f"{request.method}\n{request.get_full_path()}\n".encode() + request.body
        fingerprint = hashlib.sha256(whole).digest()
        in_transaction = not _calls_others(request)
        with _held(user, key, in_transaction=in_transaction) as is_ours:
            if not is_ours:
                answer = _refused(IdempotencyKeyInUse("The first request with this key still runs; ask again soon."))
                answer["Retry-After"] = "1"
                return answer
            rows = IdempotencyKey.objects.filter(user=user, key=key)
            rows.filter(created_at__lt=Now() - KEEP).delete()
            row = rows.first()
            if row is not None:
                return _replay(row, fingerprint)
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
    """Return who asks, as the API's views will find out, or None when they will refuse."""
    try:
        user = Request(request, authenticators=[TokenAuthentication(), BrowserSessionAuthentication()]).user
    except APIException:
        return None
    return user if isinstance(user, User) else None


def _calls_others(request: HttpRequest) -> bool:
    """Whether the view asks another system before it answers, and so must not run inside a transaction.

    Such a view names its actions in `calls_others`, and makes a repeat harmless by itself: after a crash between its
    work and our row, it runs again.
    """
    try:
        function = resolve(request.path_info).func
    except Resolver404:
        return False
    names: frozenset[str] = getattr(getattr(function, "cls", None), "calls_others", frozenset())
    return getattr(function, "actions", {}).get("post", "post") in names


@contextmanager
def _held(user: User, key: str, *, in_transaction: bool) -> Iterator[bool]:
    """Hold the key for a block, in a transaction or not; yields whether we got it, without waiting for who has it."""
    name = f"idempotency:{user.pk}:{key}"
    if in_transaction:
        with transaction.atomic():
            yield _ask("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 7008))", name)
    else:
        is_ours = _ask("SELECT pg_try_advisory_lock(hashtextextended(%s, 7008))", name)
        try:
            yield is_ours
        finally:
            if is_ours:
                _ask("SELECT pg_advisory_unlock(hashtextextended(%s, 7008))", name)


def _ask(statement: str, name: str) -> bool:
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


def _body_of(answer: HttpResponse) -> Any:
    """Return the answer's JSON without secrets: those that the view names, and whatever else looks like a token."""
    if isinstance(answer, SecretResponse):
        text = json.dumps(answer.kept_data(), default=str)
    else:
        text = answer.content.decode()
    return json.loads(TOKEN.sub("(shown once)", text)) if text else None


def _replay(row: IdempotencyKey, fingerprint: bytes) -> HttpResponse:
    if bytes(row.request_sha256) != fingerprint:
        return _refused(IdempotencyKeyReused("This key came with another request; a new request needs a new key."))
    answer: HttpResponse
    if row.body is None:
        answer = HttpResponse(status=row.status)
    else:
        media_type = MEDIA_TYPE if row.status >= 400 else "application/json"
        answer = JsonResponse(row.body, status=row.status, safe=False, content_type=media_type)
    answer[REPLAYED] = "true"
    answer["Cache-Control"] = "no-store"
    if row.location:
        answer["Location"] = row.location
    return answer


def forget_old() -> int:
    """Delete the answers that no request is given any more; returns how many."""
    deleted, _ = IdempotencyKey.objects.filter(created_at__lt=Now() - KEEP).delete()
    return deleted
