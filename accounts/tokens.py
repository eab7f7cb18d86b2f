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
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import connection
from django.db.models import Expression, Q
from django.utils import timezone

from accounts.models import ApiToken, Robot, User

_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_LENGTH: Final = 34  # characters of base 62: 202 bits
_CRC_LENGTH: Final = 6  # base 62 digits of a CRC-32
_LOOKUP_LENGTH: Final = 10
# Published in SECURITY.md, for secret scanners.
TOKEN: Final = re.compile(r"gdk_(pat|rob|ref)_([A-Za-z0-9]{34})([A-Za-z0-9]{6})")
DEFAULT_DAYS: Final = 90
KEYLESS: Final = "keyless"  # as the `service` of a robot's token: a CI job got it for its identity token
LAST_USED_EVERY: Final = timedelta(minutes=1)  # one write per request would cost more than the check


def _crc(text: str) -> str:
    """Return the CRC-32 of `text` in six base 62 digits."""
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CRC_LENGTH):
        value, rest = divmod(value, 62)
        digits = _ALPHABET[rest] + digits
    return digits


def create_token(
    user: User,
    *,
    kind: str,
    name: str,
    days: float = DEFAULT_DAYS,
    service: str = "",
    made_by: User | None = None,
    parent: ApiToken | None = None,
) -> tuple[ApiToken, str]:
    """Store a new token of `user` and return (row, text). The text cannot be read again.

    `made_by` is the user who creates the token, or None. `parent` is the token that this user used, or None; the new
    token expires no later.
    """
    expires_at = timezone.now() + timedelta(days=days)
    if parent is not None:
        expires_at = min(expires_at, parent.expires_at)
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    body = f"gdk_{kind}_{random}"
    text = body + _crc(body)
    row = ApiToken.objects.create(
        user=user,
        kind=kind,
        name=name,
        service=service,
        made_by=made_by,
        parent=parent,
        lookup=random[:_LOOKUP_LENGTH],
        secret_sha256=hashlib.sha256(text.encode()).digest(),
        expires_at=expires_at,
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


def find_token(text: str, *, beside: Mapping[str, Expression] | None = None) -> ApiToken | None:
    """Return the token with the text `text` and its user, or None unless it works now (`why_unusable`).

    A wrong checksum is rejected without a query. Comparisons take constant time. `beside` are annotations of the row:
    what the caller reads in the same query.
    """
    row = _stored(text, beside or {})
    return None if row is None or why_unusable(row) else row


def why_refused(text: str) -> str:
    """Return why the exact text of a stored token is refused, as one sentence; "" for any other text.

    Only a client that has the whole secret gets the sentence.
    """
    row = _stored(text, {})
    return "" if row is None else why_unusable(row)


def why_unusable(token: ApiToken) -> str:
    """Return why `token` does not work now, as one sentence; "" if it works. Its `user` must be loaded.

    A token depends on its account, on the user who created it for a robot, on the token that was used to create it, and
    on the user who is responsible for the robot. All are checked at each use, so that no derived token outlives them.
    """
    user = token.user
    why = ""
    if token.revoked_at is not None:
        why = "The token is revoked. Create a new one."
    elif token.expires_at <= timezone.now():
        why = "The token has expired. Create a new one."
    elif not user.is_active:
        why = f"The account {user} is deactivated. Ask an admin."
    elif user.must_change_password:
        why = f"Sign in as {user} in the browser and change the password first. Then the token works again."
    elif token.made_by is not None and not token.made_by.is_active:
        why = f"The token was created by {token.made_by}, whose account is deactivated. Create a new one."
    elif token.parent_id is not None and not _is_parent_usable(token.parent_id):
        why = "The token was created with another token that is revoked or expired. Create a new one."
    return why or why_suspended(user)


def why_suspended(user: User) -> str:
    """Return why a robot is suspended, as one sentence; "" for a robot that is not, and for any other account."""
    seen: set[int] = set()
    holder = user
    while holder.kind == User.Kind.ROBOT:
        robot = getattr(holder, "robot", None)
        answers = robot.responsible if robot is not None else None
        if answers is None or not answers.is_active or answers.pk in seen:
            who = f"{answers}, who is responsible for it, is deactivated" if answers else "no one is responsible for it"
            return f"Robot {user} is suspended, because {who}. Take it over on its page; you need robot.manage."
        seen.add(answers.pk)
        holder = answers
    return ""


def makers_of(user: User) -> list[User]:
    """Return the users whose rights bound those of a robot: its responsible user, and that user's own if a robot.

    Returns [] for other accounts. The caller has checked `why_suspended`.
    """
    makers: list[User] = []
    while user.kind == User.Kind.ROBOT:
        row = Robot.objects.select_related("responsible").filter(user=user).first()
        if row is None or row.responsible is None or row.responsible in makers:
            break
        user = row.responsible
        makers.append(user)
    return makers


def _stored(text: str, beside: Mapping[str, Expression]) -> ApiToken | None:
    """Return the token with exactly this text, in any state, or None."""
    match = TOKEN.fullmatch(text)
    if match is None or not hmac.compare_digest(_crc(text[:-_CRC_LENGTH]), match[3]):
        return None
    rows = ApiToken.objects.select_related("made_by", "user__robot__responsible").annotate(**beside)
    row = rows.filter(lookup=match[2][:_LOOKUP_LENGTH], kind=match[1]).first()
    if row is None or not hmac.compare_digest(bytes(row.secret_sha256), hashlib.sha256(text.encode()).digest()):
        return None
    return row


# Every token above another one, for ever: a row that does not work stops all below it.
_UNUSABLE_ABOVE: Final = """
WITH RECURSIVE above AS (
    SELECT t.id, t.parent_id, t.user_id, t.made_by_id, t.revoked_at, t.expires_at
    FROM accounts_apitoken t WHERE t.id = %s
    UNION
    SELECT t.id, t.parent_id, t.user_id, t.made_by_id, t.revoked_at, t.expires_at
    FROM accounts_apitoken t JOIN above a ON t.id = a.parent_id
)
SELECT EXISTS (
    SELECT FROM above a
    JOIN accounts_user u ON u.id = a.user_id
    LEFT JOIN accounts_user maker ON maker.id = a.made_by_id
    WHERE a.revoked_at IS NOT NULL OR a.expires_at <= statement_timestamp()
       OR NOT u.is_active OR u.must_change_password OR NOT coalesce(maker.is_active, true)
)
"""


def _is_parent_usable(token_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_UNUSABLE_ABOVE, [token_id])
        (is_unusable,) = cursor.fetchone()
    return not is_unusable


@dataclass(frozen=True, slots=True)
class Standing:
    """What a token that works now depends on: while none of these rows changes, it works until `ends_at`."""

    token_ids: frozenset[int]
    user_ids: frozenset[int]
    ends_at: datetime


_ABOVE: Final = """
WITH RECURSIVE above AS (
    SELECT t.id, t.parent_id, t.user_id, t.made_by_id, t.expires_at FROM accounts_apitoken t WHERE t.id = %s
    UNION
    SELECT t.id, t.parent_id, t.user_id, t.made_by_id, t.expires_at
    FROM accounts_apitoken t JOIN above a ON t.id = a.parent_id
)
SELECT array_agg(id), array_agg(user_id) || array_agg(made_by_id), min(expires_at) FROM above
"""


def standing_of(token: ApiToken) -> Standing:
    """Return what `token` depends on, as `why_unusable` checks it: accounts, the tokens above it, and makers."""
    with connection.cursor() as cursor:
        cursor.execute(_ABOVE, [token.pk])
        token_ids, user_ids, ends_at = cursor.fetchone()
    makers = [maker.pk for maker in makers_of(token.user)]
    return Standing(frozenset(token_ids or ()), frozenset({*(user_ids or ()), *makers} - {None}), ends_at)


def account_guessed(text: str) -> str | None:
    """Return the name of the user whose token the rejected `text` tries to guess, or "" when no token matches.

    Returns None when the text is not a guess but the exact text of a stored token, for example of a revoked or expired
    one that an old script still sends.
    """
    if TOKEN.fullmatch(text) is None:
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


_NOTE_USES: Final = """
UPDATE accounts_apitoken t SET last_used_at = used.at, last_used_ip = used.address::inet
FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[]) AS used (id, at, address)
WHERE t.id = used.id AND (t.last_used_at IS NULL OR t.last_used_at < used.at - make_interval(secs => %s))
"""


def note_uses(uses: Mapping[int, tuple[datetime, str | None]]) -> None:
    """Store the time and address of the last use of several tokens, by id, in one statement."""
    ids = sorted(uses)  # in one order, so that two processes never wait for each other
    times, addresses = [uses[pk][0] for pk in ids], [uses[pk][1] for pk in ids]
    with connection.cursor() as cursor:
        cursor.execute(_NOTE_USES, [ids, times, addresses, LAST_USED_EVERY.total_seconds()])


def revoke(token: ApiToken) -> bool:
    """Revoke a token now; returns whether it was live. Registry tokens issued for it expire within five minutes."""
    return bool(ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()))
