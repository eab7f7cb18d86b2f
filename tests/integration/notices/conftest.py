"""A real mail server, and a person who reads mail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from accounts.models import User


class Mailbox:
    """What the server was sent. `refuses` is its answer to the next mails instead of taking them."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuses = ""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 -- aiosmtpd calls it so
        if self.refuses:
            return self.refuses
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 -- aiosmtpd calls it so
        self.mails.append(BytesParser(policy=default).parsebytes(envelope.content))
        return "250 OK"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def mailbox(settings: Any, dock: Any) -> Iterator[Mailbox]:
    """An SMTP server on 127.0.0.1 to which mail goes. The approver reads mail."""
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())  # it cannot choose one itself
    controller.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = controller.port
    settings.EMAIL_TIMEOUT = 10
    settings.MAIL_IS_ON = True
    User.objects.filter(pk=dock.approver.pk).update(email="approver@example.com")
    dock.approver.refresh_from_db()
    yield box
    controller.stop()
