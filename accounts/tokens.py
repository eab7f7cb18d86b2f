"""Create, find and revoke bearer tokens: `gdk_<kind>_<random><crc>`.

The random part has 202 bits. With the CRC-32, secret scanners and Gravingdock reject a mistyped token without a query.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from datetime import timedelta
from typing import Final

from django.db.models import Q
from django.utils import timezone

from accounts.models import ApiToken, User

_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_LENGTH: Final = 34  # characters of base 62: 202 bits
_CRC_LENGTH: Final = 6  # base 62 digits of a CRC-32
_LOOKUP_LENGTH: Final = 10
# Published in SECURITY.md, for secret scanners.
TOKEN: Final = re.compile(r"gdk_(pat|rob|ref)_([A-Za-z0-9]{34})([A-Za-z0-9]{6})")
DEFAULT_DAYS: Final = 90
LAST_USED_EVERY: Final = timedelta(minutes=1)  # one write per request would cost more than the check


def _crc(text: str) -> str:
    """Return the CRC-32 of `text` in six base 62 digits."""
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CRC_LENGTH):
        value, rest = divmod(value, 62)
        digits = _ALPHABET[rest] + digits
    return digits


def create_token(
    user: User, *, kind: str, name: str, days: float = DEFAULT_DAYS, service: str = "", made_by: User | None = None
) -> tuple[ApiToken, str]:
    """Store a new token of `user` and return (row, text). The text cannot be read again.

    `made_by` is the user who creates the token, or None.
    """
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    body = f"gdk_{kind}_{random}"
    text = body + _crc(body)
    row = ApiToken.objects.create(
        user=user,
        kind=kind,
        name=name,
        service=service,
        made_by=made_by,
        lookup=random[:_LOOKUP_LENGTH],
        secret_sha256=hashlib.sha256(text.encode()).digest(),
        expires_at=timezone.now() + timedelta(days=days),
    )
    return row, text


def lookup_of(text: str) -> str:
    """Return the first random characters of a token, which find its row and appear in the audit log.

    Raises ValueError for text that is not a Gravingdock token.
    """
    match = TOKEN.fullmatch(text)
    if match is None:
        raise ValueError("not a Gravingdock token")
    return match[2][:_LOOKUP_LENGTH]


def find_token(text: str) -> ApiToken | None:
    """Return the live token with the text `text` and its active user, or None.

    A wrong checksum is rejected without a query. Comparisons take constant time.
    """
    match = TOKEN.fullmatch(text)
    if match is None or not hmac.compare_digest(_crc(text[:-_CRC_LENGTH]), match[3]):
        return None
    row = (
        ApiToken.objects.select_related("user")
        .filter(lookup=match[2][:_LOOKUP_LENGTH], kind=match[1], revoked_at=None, expires_at__gt=timezone.now())
        .first()
    )
    if row is None or not hmac.compare_digest(bytes(row.secret_sha256), hashlib.sha256(text.encode()).digest()):
        return None
    return row if row.user.is_active else None


def account_guessed(text: str) -> str | None:
    """Return the name of the user whose token the rejected `text` tries to guess, or "" when no token matches.

    Returns None when the text is not a guess but the exact text of a stored token, for example of a revoked or expired
    one that an old script still sends.
    """
    match = TOKEN.fullmatch(text)
    if match is None:
        return ""
    row = ApiToken.objects.select_related("user").filter(lookup=lookup_of(text)).first()
    if row is None:
        return ""
    is_real = hmac.compare_digest(bytes(row.secret_sha256), hashlib.sha256(text.encode()).digest())
    return None if is_real else row.user.username


def note_use(token: ApiToken, address: str | None) -> None:
    """Store the time and address of a token's last use, at most once a minute."""
    moment = timezone.now()
    if token.last_used_at is not None and moment - token.last_used_at < LAST_USED_EVERY:
        return  # the caller has just read the row, so no query is needed
    ApiToken.objects.filter(pk=token.pk).filter(
        Q(last_used_at=None) | Q(last_used_at__lt=moment - LAST_USED_EVERY)
    ).update(last_used_at=moment, last_used_ip=address)


def revoke(token: ApiToken) -> None:
    """Revoke a token now. Registry tokens issued for it expire within five minutes."""
    ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
