"""Who presents a token: what the endpoint needs of the token and its account."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from accounts import tokens as api_tokens
from lifecycle.authority.changes import Kind
from lifecycle.tokens.memory import View
from lifecycle.tokens.rights import Principal, principal_of


@dataclass(slots=True)
class Holder:
    """The account behind a token that works until `ends_at`, unless a row changes that it depends on."""

    token_id: int
    kind: str
    service: str
    username: str
    principal: Principal
    ends_at: float  # seconds since 1970
    used_at: float  # when its last use was noted; 0 for never
    needs: tuple[str, ...]  # the changes that end it


def holder_of(text: str, view: View) -> Holder | None:
    """Return the holder of the token with this text, or None unless the token works now.

    Texts that are not those of working tokens are never kept, so guesses fill no memory.
    """
    key = ("holder", hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    holder = view.one(key, lambda: _read(text), lambda found: found.needs if found is not None else ())
    if holder is not None and holder.ends_at <= view.now:
        return _read(text)  # the clock of this process decides, as it does for the API
    return holder


def _read(text: str) -> Holder | None:
    token = api_tokens.find_token(text)
    principal = principal_of(token.user) if token is not None else None
    if token is None or principal is None:
        return None
    standing = api_tokens.standing_of(token)
    return Holder(
        token_id=token.pk,
        kind=token.kind,
        service=token.service,
        username=token.user.username,
        principal=principal,
        ends_at=standing.ends_at.timestamp(),
        used_at=token.last_used_at.timestamp() if token.last_used_at is not None else 0.0,
        needs=(
            *(f"{Kind.TOKEN}{pk}" for pk in standing.token_ids),
            *(f"{Kind.USER}{pk}" for pk in standing.user_ids),
        ),
    )
