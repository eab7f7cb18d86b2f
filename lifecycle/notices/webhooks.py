"""Webhooks: CloudEvents 1.0 as JSON, signed as Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from functools import cache
from typing import Any, Final

import orjson
from django.conf import settings

from lifecycle.core import clock, sealing
from lifecycle.core.errors import Malformed, UpstreamError
from lifecycle.core.http import (
    ForbiddenDestination,
    HttpClient,
    allowed_hosts,
    origin,
    parse_outbound_url,
    retry_after_s,
)
from lifecycle.notices.messages import NothingToSend, NotSent, Outgoing
from lifecycle.notices.models import Channel, Message, Notice

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
_DEADLINE_S: Final = 15.0
_GONE: Final = 410


def new_secret() -> str:
    """Return a new secret of a webhook, as its receiver enters it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def checked_address(text: str) -> str:
    """Return the address of a webhook; raises Malformed. Plain http is for hosts in OUTBOUND_ALLOW only."""
    try:
        url = parse_outbound_url(text.strip())
    except ForbiddenDestination as error:
        raise Malformed("Enter an address such as https://example.com/hook.", field="address") from error
    scheme, host, port = origin(url)
    if scheme != "https" and not {host, f"{host}:{port}"} & allowed_hosts():
        raise Malformed("Use https: plain http would show the notices to others on the way.", field="address")
    return str(url)


def host_of(address: str) -> str:
    """Return the host of an address, which is no secret."""
    return parse_outbound_url(address).host


def signature(secret: str, key: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature` for a body; raises ValueError for a secret that is not one."""
    try:
        raw = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("The secret is not base64.") from error
    digest = hmac.new(raw, f"{key}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def event_of(notice: Notice) -> dict[str, Any]:
    """Return a notice as a CloudEvent. Its id stays the same in every attempt and for every receiver."""
    data: dict[str, Any] = {
        "topic": notice.topic,
        "subject": notice.subject,
        "text": notice.text,
        "link": settings.PUBLIC_URL + notice.link,
        "thread": notice.thread,
        "team": notice.owner.slug,
        "repository": notice.repository_name or None,
        "environment": notice.environment.slug if notice.environment is not None else None,
        "actor": notice.actor_name or None,
        "facts": notice.facts,
    }
    digest = notice.facts.get("digest")
    place = notice.repository_name or notice.owner.slug
    subject = f"{place}@{digest}" if digest else place
    return _event(f"notice-{notice.pk}", notice.topic, subject, notice.at.isoformat(), data)


def _event(name: str, kind: str, subject: str, at: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": name,
        "source": settings.PUBLIC_URL,
        "type": f"io.gravingdock.{kind}.v1",
        "subject": subject,
        "time": at,
        "datacontenttype": "application/json",
        "data": data,
    }


def prepare_webhook(message: Message, channel: Channel) -> Outgoing | NothingToSend:
    """Return the event of a message. One that was sent before is sent again as it was."""
    body, subject = message.body.encode(), message.subject
    if not body:
        notice = message.notices.select_related("repository__team", "team", "environment").first()
        if message.kind == Message.Kind.TEST:
            text = "A test of this channel."
            event = _event(f"test-{message.key}", "test", channel.name, clock.now().isoformat(), {"text": text})
            subject = "Test"
        elif notice is None:
            return NothingToSend("The notice was deleted.")
        else:
            event, subject = event_of(notice), notice.subject
        body = orjson.dumps(event)
    address = sealing.unseal(bytes(channel.address_sealed), channel, "address_sealed")
    secret = sealing.unseal(bytes(channel.secret_sealed), channel, "secret_sealed")
    key = f"msg_{message.key}"
    return Outgoing(subject, body.decode(), lambda: _send(address, secret, key, body))


@cache
def _client() -> HttpClient:
    return HttpClient()


def _send(address: str, secret: str, key: str, body: bytes) -> int:
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": key,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, key, timestamp, body),
    }
    try:
        with _client().stream(
            "POST", address, headers=headers, content=body, max_bytes=0, deadline_s=_DEADLINE_S
        ) as answer:  # its body is not read: only the status counts
            status, wait_s = answer.status, retry_after_s(answer.headers)
    except (ForbiddenDestination, UpstreamError) as error:
        raise NotSent(error.message, is_final=isinstance(error, ForbiddenDestination)) from error
    if 200 <= status < 300:
        return status
    if status == _GONE:
        raise NotSent("The receiver answered 410: it wants no more events.", status=status, is_final=True, is_gone=True)
    raise NotSent(f"The receiver answered {status}.", status=status, retry_after_s=wait_s)
