"""What a rule says of the claims of one identity token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifecycle.core.errors import Malformed


class RefusedIdentity(Malformed):
    """An identity token is not accepted, for the reason in the message."""

    code = "identity_refused"


@dataclass(frozen=True, slots=True)
class Check:
    """One claim that a rule asks for."""

    claim: str
    pattern: str
    found: str | None  # None: the token has no such claim, or an empty one
    holds: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity token whose signature, issuer and times are right."""

    issuer: str
    audiences: tuple[str, ...]
    subject: str
    claims: Mapping[str, Any]
    sha256: bytes  # what must not come again
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a token against one rule."""

    is_accepted: bool
    reason: str  # why not; "" if it is accepted
    checks: tuple[Check, ...]
