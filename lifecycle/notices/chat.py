"""Chat by Apprise: Slack, Teams, Matrix, Mattermost and others. Its connections pass the same guard as all of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import urllib3.util.connection
from django.conf import settings

from lifecycle.core import sealing
from lifecycle.core.errors import Malformed, UpstreamError
from lifecycle.core.http import ForbiddenDestination, allowed_hosts, assert_outside_transaction, resolve_destination
from lifecycle.notices.messages import NothingToSend, NotSent, Outgoing
from lifecycle.notices.models import Channel, Message
from lifecycle.notices.topics import label_of

# What people chat with. Apprise knows many more, which run programs, write files or send mail.
SCHEMES: Final = frozenset(
    {
        "discord", "gchat", "matrix", "matrixs", "mmost", "mmosts", "msteams", "rocket", "rockets", "slack", "tgram",
        "workflow", "workflows", "wxteams", "zulip",
    }
)  # fmt: skip
_PLAIN: Final = frozenset({"matrix", "mmost", "rocket"})  # http without TLS
_NOTICES_MAX: Final = 50
_STATUS: Final = re.compile(r"error=(\d{3})")

_is_guarded: Final[ContextVar[bool]] = ContextVar("chat_is_guarded", default=False)
_connect: Final[Any] = urllib3.util.connection.create_connection


def _checked_connect(address: tuple[str, int], *arguments: Any, **more: Any) -> Any:
    """Connect as urllib3 does, but in a guarded block only to the address that was checked, also after a redirect."""
    if _is_guarded.get():
        host, port = address
        address = (resolve_destination(host, port), port)
    return _connect(address, *arguments, **more)


urllib3.util.connection.create_connection = _checked_connect


@contextmanager
def guarded() -> Iterator[None]:
    """Refuse connections of urllib3 to private addresses inside the block, unless OUTBOUND_ALLOW names the host."""
    token = _is_guarded.set(True)
    try:
        yield
    finally:
        _is_guarded.reset(token)


def checked_address(text: str) -> str:
    """Return the address of a chat, in Apprise's form; raises Malformed."""
    text = text.strip()
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise Malformed(f"Enter an Apprise address that begins with one of: {known}.", field="address")
    service = _service(text)
    if service is None:
        raise Malformed("This is not a complete Apprise address of that service.", field="address")
    hosts = {str(getattr(service, "host", "") or "").lower()}
    hosts |= {f"{host}:{getattr(service, 'port', None)}" for host in hosts}
    if scheme in _PLAIN and not hosts & allowed_hosts():
        raise Malformed(f"Use {scheme}s: plain http would show the notices to others on the way.", field="address")
    return text


def host_of(address: str) -> str:
    """Return the service and its host, which are no secrets."""
    host = str(getattr(_service(address), "host", "") or "")
    scheme = address.partition("://")[0].lower()
    return f"{scheme} {host}" if scheme.rstrip("s") in {"matrix", "mmost", "rocket"} else scheme


def _service(address: str) -> Any:
    import apprise  # noqa: PLC0415 -- loads a hundred modules, which only this needs

    return apprise.Apprise.instantiate(address, suppress_exceptions=True)


def prepare_chat(message: Message, channel: Channel) -> Outgoing | NothingToSend:
    """Return the text of a message: all notices of its thread."""
    if message.body:
        subject, text = message.subject, message.body
    elif message.kind == Message.Kind.TEST:
        subject, text = "Gravingdock", "A test of this channel."
    else:
        notices = list(message.notices.order_by("pk")[:_NOTICES_MAX])
        if not notices:
            return NothingToSend("The notice was deleted.")
        subject = notices[-1].subject
        lines = [f"{label_of(row.topic)}: {row.text}" for row in notices]
        text = "\n".join([*lines, settings.PUBLIC_URL + notices[-1].link])
    address = sealing.unseal(bytes(channel.address_sealed), channel, "address_sealed")
    return Outgoing(subject, text, lambda: _send(address, subject, text))


def _send(address: str, subject: str, text: str) -> int | None:
    import apprise  # noqa: PLC0415 -- as above

    assert_outside_transaction()
    service = _service(address)
    if service is None:
        raise NotSent("The address is not one that Apprise knows any more.", is_final=True)
    try:
        with guarded(), apprise.LogCapture(level=apprise.logging.WARNING) as log:  # type: ignore[no-untyped-call]  # untyped there
            is_sent = service.notify(title=subject, body=text)
            said = log.getvalue()
    except (ForbiddenDestination, UpstreamError) as error:  # by the guard: Apprise only catches errors of requests
        raise NotSent(error.message, is_final=isinstance(error, ForbiddenDestination)) from error
    if not is_sent:
        found = _STATUS.search(said)
        status = int(found[1]) if found else None
        raise NotSent(
            f"The service answered {status}." if status else "The service could not be reached.", status=status
        )
    return 200
