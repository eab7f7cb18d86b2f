"""Mails: text and HTML, with the headers that keep the mails about one object together."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Sequence
from email.utils import parseaddr
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.urls import reverse

from accounts.models import User
from lifecycle.core.http import assert_outside_transaction
from lifecycle.notices.messages import NothingToSend, NotSent, Outgoing, why_no_mail
from lifecycle.notices.models import Message, Notice
from lifecycle.notices.preferences import MAIL, preferences_of, wants
from lifecycle.notices.queries import notices_visible_to
from lifecycle.notices.topics import label_of

_NOTICES_MAX: Final = 200  # in one mail
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


def prepare_mail(message: Message) -> Outgoing | NothingToSend:
    """Return the mail of a message, by what its person may see and wants now."""
    person = message.person
    if person is None or not person.is_active:
        return NothingToSend("The account is not active.")
    if why := why_no_mail(person):
        return NothingToSend(why)
    if message.kind == Message.Kind.TEST:
        text = "Mail from Gravingdock reaches you. You asked for this test."
        return _outgoing(message, person, "Gravingdock: test mail", [], {"text": text})
    preferences = preferences_of(person)
    seen = notices_visible_to(person).filter(messages=message)
    notices = [row for row in seen.order_by("pk")[:_NOTICES_MAX] if wants(preferences, row.topic, MAIL)]
    if not notices:
        return NothingToSend("The person cannot see it any more, or does not want mail about it.")
    if message.kind == Message.Kind.DIGEST:
        subject = f"Gravingdock: {len(notices)} notice{'' if len(notices) == 1 else 's'}"
    else:
        subject = notices[-1].subject
    return _outgoing(message, person, subject, notices, {})


def _outgoing(
    message: Message, person: User, subject: str, notices: Sequence[Notice], more: dict[str, Any]
) -> Outgoing:
    items = [
        {"label": label_of(row.topic), "subject": row.subject, "text": row.text, "at": row.at,
         "link": settings.PUBLIC_URL + row.link}
        for row in notices
    ]  # fmt: skip
    preferences = settings.PUBLIC_URL + reverse("lifecycle:notice-preferences")
    context = {"items": items, "preferences": preferences, "person": person, **more}
    text = render_to_string("lifecycle/notices/mail.txt", context).strip() + "\n"
    html = render_to_string("lifecycle/notices/mail.html", context)
    subject = _CONTROL.sub(" ", subject)
    mail = EmailMultiAlternatives(subject, text, settings.DEFAULT_FROM_EMAIL, [person.email], headers=_headers(message))
    mail.attach_alternative(html, "text/html")
    return Outgoing(subject, text, lambda: _send(mail))


def _headers(message: Message) -> dict[str, str]:
    """Return the headers of a mail. All mails of a thread refer to one id, so mail programs show them together."""
    host = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or urlsplit(settings.PUBLIC_URL).hostname
    headers = {"Message-ID": f"<{message.key}@{host}>", "Auto-Submitted": "auto-generated"}
    if message.thread:
        root = f"<{re.sub(r'[^A-Za-z0-9.-]', '-', message.thread)}.thread@{host}>"
        headers |= {"References": root, "In-Reply-To": root}
    return headers


def _send(mail: EmailMultiAlternatives) -> int | None:
    assert_outside_transaction()
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused as error:
        status = max((code for code, _ in error.recipients.values()), default=0)
        raise NotSent(
            f"The mail server refused the address ({status}).", status=status, is_final=status >= 500
        ) from error
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"The mail server answered {error.smtp_code}.", status=error.smtp_code) from error
    except (smtplib.SMTPException, OSError) as error:
        raise NotSent(f"The mail server did not take it: {type(error).__name__}.") from error
    return 250
