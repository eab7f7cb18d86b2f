"""Ask a service about an image, and believe only a reply that it signed. The network is never used in a transaction."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from lifecycle.core import clock
from lifecycle.core.errors import LifecycleError
from lifecycle.core.http import HttpClient, assert_outside_transaction

SKEW_S: Final = 300  # between our clock and that of the service
REPLY_MAX: Final = 64 * 1024
_DEADLINE_S: Final = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service says: yes, no, or not yet (None); and why, as a sentence. Without a signature, nothing counts."""

    is_good: bool | None
    words: str
    is_signed: bool = False


def ask(url: str, secret: str, *, number: str, question: Mapping[str, Any]) -> Reply:
    """Ask the service at `url` about `question["digest"]`. Only a reply with its signature counts.

    Call and reply are signed as Standard Webhooks: HMAC-SHA256 with the shared secret over id, time and body. The reply
    repeats the id of the call (`number`), so that an old one cannot be used again. Its body is
    `{"digest": ..., "passed": true, "message": ...}`; without a `passed` of true or false, it cannot say yet.
    """
    assert_outside_transaction()
    key, body = _key_of(secret), orjson.dumps(dict(question))
    headers = {"Content-Type": "application/json"} | signed_headers(key, number, int(clock.now().timestamp()), body)
    client = _http(os.getpid())
    try:
        answer = client.request(
            "POST", url, headers=headers, content=body, max_bytes=REPLY_MAX, deadline_s=_DEADLINE_S, retry=False
        )
    except LifecycleError as error:
        return Reply(None, f"The service did not answer: {error.message}"[:500])
    if answer.status != 200:
        return Reply(None, f"The service answered with status {answer.status}.")
    if why := why_not_signed(key, number, answer.headers, answer.body):
        return Reply(None, f"The reply does not count: {why}")
    return _read(answer.body, question["digest"])


@lru_cache(maxsize=1)
def _http(_process_id: int) -> HttpClient:
    """Return the connections of this process. A forked child must not use those of its parent."""
    return HttpClient()


def _read(body: bytes, digest: str) -> Reply:
    try:
        said: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict) or said.get("digest") != digest:
        return Reply(None, "The reply does not count: it is not about this digest.")
    message = str(said.get("message") or "")[:500].replace("\0", "")
    if said.get("passed") is True:
        return Reply(True, message or "The service says that it works.", is_signed=True)
    if said.get("passed") is False:
        return Reply(False, message or "The service says that it does not work.", is_signed=True)
    return Reply(None, message or "The service cannot say yet.", is_signed=True)


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
