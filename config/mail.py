"""The mail server in MAIL_URL, as Django's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from config.env import BadSetting

_BACKENDS: Final = "django.core.mail.backends"
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail goes: an SMTP server, a folder with one file per mail, or nowhere (`is_on` is False)."""

    is_on: bool = False
    backend: str = f"{_BACKENDS}.dummy.EmailBackend"
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    use_starttls: bool = False
    use_tls: bool = False
    folder: str = ""


def mail_server(url: str, *, folder: Path | None) -> MailServer:
    """Return the mail server of `url`; without one, mails are written to `folder`, or none are sent without a folder.

    `smtp://user:password@host:587` uses STARTTLS, except on this machine or with `?tls=none`; `smtps://` uses TLS from
    the start; `file:///folder` writes files. Raises BadSetting for any other text. The message never has the password.
    """
    if not url:
        if folder is None:
            return MailServer()
        return MailServer(True, f"{_BACKENDS}.filebased.EmailBackend", folder=str(folder))
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/"):
        return MailServer(True, f"{_BACKENDS}.filebased.EmailBackend", folder=parts.path)
    try:
        port = parts.port
    except ValueError:
        raise BadSetting("MAIL_URL", "the port is not a number from 1 to 65535") from None
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/"):
        raise BadSetting("MAIL_URL", "expected smtp://user:password@host:587, smtps://... or file:///folder")
    query = parse_qs(parts.query)
    if set(query) - {"tls"} or query.get("tls", ["starttls"]) not in (["starttls"], ["none"]):
        raise BadSetting("MAIL_URL", "the only parameter is ?tls=none or ?tls=starttls")
    is_tls = parts.scheme == "smtps"
    wants_starttls = "starttls" in query.get("tls", ["none" if parts.hostname in _LOCAL else "starttls"])
    return MailServer(
        True,
        f"{_BACKENDS}.smtp.EmailBackend",
        host=parts.hostname,
        port=port or (465 if is_tls else 587),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        use_starttls=wants_starttls and not is_tls,
        use_tls=is_tls,
    )
