"""Whether a promoted image works: a person says so, or a service answers with a signed reply."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.authority.rights import may
from lifecycle.core import clock, sealing
from lifecycle.core.errors import IllegalTransition, LifecycleError, Malformed
from lifecycle.core.http import HttpClient
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import Environment
from lifecycle.promotion.access import lock_promotion
from lifecycle.promotion.models import MOVES_ON, PromotionRequest
from lifecycle.promotion.rollback import request_rollback
from lifecycle.promotion.services import finish_verification

State = PromotionRequest.State
AGAIN_AFTER_S: Final = 15.0
SKEW_S: Final = 300  # between our clock and that of the service
REPLY_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service says: it works, it does not, or not yet (None); and why, as a sentence."""

    is_good: bool | None
    words: str


def why_not_confirm(actor: User, request: PromotionRequest) -> Reason | None:
    """Return why `actor` cannot say whether the promotion works: promotion.execute, where people verify."""
    if request.state != State.VERIFYING or request.verify_by is None:
        return Reason(f"{request} does not wait for a verification.", IllegalTransition)
    if request.environment.verification != Environment.Verification.MANUAL:
        return Reason("A service verifies promotions to this environment.", IllegalTransition)
    decision = may(actor, Verb.PROMOTION_EXECUTE, repository=request.repository, environment=request.environment)
    return None if decision else Reason(decision.reason)


@transaction.atomic
def confirm(promotion_id: int, *, actor: User, is_good: bool, comment: str) -> PromotionRequest:
    """Say whether a promoted image works. It then has succeeded or failed.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    request = lock_promotion(actor, promotion_id)
    refuse_if(why_not_confirm(actor, request), state=request.state)
    if not comment.strip():
        raise Malformed("Enter what you checked: it is shown on the request.")
    _end(request, is_good=is_good, why=f"{actor}: {comment.strip()}", actor=actor)
    return request


@transaction.atomic
def record_reply(promotion_id: int, reply: Reply) -> None:
    """Record the answer of a service. A request that waits no longer keeps its result."""
    request = _lock(PromotionRequest.objects.filter(pk=promotion_id))
    if request is not None and reply.is_good is not None:
        _end(request, is_good=reply.is_good, why=reply.words, actor=system_user())


def fail_overdue() -> int:
    """Fail the promotions whose time to be verified is over, by the database's clock. Returns how many."""
    overdue = PromotionRequest.objects.filter(state=State.VERIFYING, verify_by__lt=Now())
    number = 0
    for pk in list(overdue.order_by("pk").values_list("pk", flat=True)[:100]):
        with transaction.atomic():
            request = _lock(overdue.filter(pk=pk))
            if request is not None:
                _end(request, is_good=False, why="Nobody verified it in time.", actor=system_user())
                number += 1
    return number


def _lock(rows: QuerySet[PromotionRequest]) -> PromotionRequest | None:
    """Return the row if it waits for a verification, locked."""
    waiting = rows.filter(state=State.VERIFYING, verify_by__isnull=False)
    joined = waiting.select_related("image", "repository__team", "repository__registry", "environment__team")
    return joined.select_for_update(of=("self",)).first()


def _end(request: PromotionRequest, *, is_good: bool, why: str, actor: User) -> None:
    finish_verification(request, is_good=is_good, why=why, actor=actor)
    if is_good or request.kind not in MOVES_ON or not request.environment.rolls_back:
        return
    try:
        with transaction.atomic():
            request_rollback(
                request.repository, request.environment, actor=system_user(), reason=f"{request} failed: {why}"[:2000]
            )
    except LifecycleError as error:  # nothing to go back to, or nobody could approve it
        PromotionRequest.objects.filter(pk=request.pk).update(
            failure=f"{request.failure} No rollback was requested: {error.message}"[:2000]
        )


def ask(request: PromotionRequest, *, attempt: int) -> Reply:
    """Ask the service of the environment. Only a reply with its signature counts; all else is "not yet".

    Call and reply are signed as Standard Webhooks: HMAC-SHA256 with the shared secret over id, time and body. The reply
    repeats the id of the call, so that an old one cannot be used again.
    """
    environment = request.environment
    try:
        secret = sealing.unseal(bytes(environment.verify_secret_sealed), environment, "verify_secret_sealed")
    except sealing.Unreadable:
        return Reply(None, "The shared secret cannot be read. Set it again in the environment.")
    key = _key_of(secret)
    number = f"{request.pk}-{attempt}"
    body = orjson.dumps({
        "promotion": request.pk, "repository": request.repository.name, "environment": environment.slug,
        "team": environment.team.slug, "digest": request.image.digest, "tag": request.tag,
    })  # fmt: skip
    headers = {"Content-Type": "application/json"} | signed_headers(key, number, int(clock.now().timestamp()), body)
    client = _http(os.getpid())
    try:
        answer = client.request(
            "POST",
            environment.verify_url,
            headers=headers,
            content=body,
            max_bytes=REPLY_MAX,
            deadline_s=20,
            retry=False,
        )
    except LifecycleError as error:
        return Reply(None, f"The service did not answer: {error.message}"[:500])
    if answer.status != 200:
        return Reply(None, f"The service answered with status {answer.status}.")
    if why := why_not_signed(key, number, answer.headers, answer.body):
        return Reply(None, f"The reply does not count: {why}")
    return _read(answer.body, request)


@lru_cache(maxsize=1)
def _http(_process_id: int) -> HttpClient:
    """Return the connections of this process. A forked child must not use those of its parent."""
    return HttpClient()


def _read(body: bytes, request: PromotionRequest) -> Reply:
    try:
        said: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict) or said.get("digest") != request.image.digest:
        return Reply(None, "The reply does not count: it is not about this digest.")
    message = str(said.get("message") or "")[:500].replace("\0", "")
    if said.get("passed") is True:
        return Reply(True, message or "The service says that it works.")
    if said.get("passed") is False:
        return Reply(False, message or "The service says that it does not work.")
    return Reply(None, message or "The service cannot say yet.")


def signed_headers(key: bytes, number: str, moment: int, body: bytes) -> dict[str, str]:
    """Return the headers of a signed message, as Standard Webhooks has them."""
    return {
        "webhook-id": number,
        "webhook-timestamp": str(moment),
        "webhook-signature": "v1," + _signature(key, number, str(moment), body),
    }


def why_not_signed(key: bytes, number: str, headers: Any, body: bytes) -> str:
    """Return why a reply is not signed for the call `number`, as a sentence; "" when it is."""
    moment = headers.get("webhook-timestamp", "")
    if headers.get("webhook-id", "") != number:
        return "it has another webhook-id than the call."
    if not (moment.isascii() and moment.isdigit() and len(moment) < 12):
        return "it has no webhook-timestamp."
    if abs(int(moment) - clock.now().timestamp()) > SKEW_S:
        return "its webhook-timestamp is more than 5 minutes off."
    expected = _signature(key, number, moment, body)
    given = [part.removeprefix("v1,") for part in headers.get("webhook-signature", "").split() if part[:3] == "v1,"]
    if not any(hmac.compare_digest(expected.encode(), part.encode()) for part in given):
        return "its webhook-signature is wrong."
    return ""


def _signature(key: bytes, number: str, moment: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(key, f"{number}.{moment}.".encode() + body, "sha256")).decode()


def _key_of(secret: str) -> bytes:
    """Return the bytes of a secret: those of base64 after whsec_, else of the text."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return secret.encode()
