"""MAIL_URL: what each form means, and what is refused without naming the password."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.env import BadSetting
from config.mail import MailServer, mail_server

SMTP = "django.core.mail.backends.smtp.EmailBackend"
FILES = "django.core.mail.backends.filebased.EmailBackend"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        (
            "smtp://kim:p%40ss@mail.example.com",
            MailServer(True, SMTP, "mail.example.com", 587, "kim", "p@ss", use_starttls=True),
        ),
        ("smtp://localhost:1025", MailServer(True, SMTP, "localhost", 1025)),
        ("smtp://mail.example.com:25?tls=none", MailServer(True, SMTP, "mail.example.com", 25)),
        ("smtps://mail.example.com", MailServer(True, SMTP, "mail.example.com", 465, use_tls=True)),
        ("file:///srv/mail", MailServer(True, FILES, folder="/srv/mail")),
        ("", MailServer()),
    ],
)
def test_url_names_the_server(url: str, server: MailServer) -> None:
    assert mail_server(url, folder=None) == server


def test_embedded_installation_writes_files() -> None:
    assert mail_server("", folder=Path("/x/mail")) == MailServer(True, FILES, folder="/x/mail")


@pytest.mark.parametrize(
    "url",
    [
        "http://secret@x", "smtp://", "smtp://u:secret@x:99999", "smtp://u:secret@x?tls=maybe", "smtp://u:secret@x?a=b",
        "smtp://u:secret@x/path", "mail.example.com", "file:secret",
    ],
)  # fmt: skip
def test_other_text_is_refused(url: str) -> None:
    with pytest.raises(BadSetting) as refused:
        mail_server(url, folder=None)
    assert "secret" not in str(refused.value)
