"""One limit for everything that somebody could guess in a browser: passwords, and codes of second factors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lifecycle.authority import limiter
from lifecycle.core import context
from lifecycle.core.errors import TooManyAttempts


@contextmanager
def attempt(account: str) -> Iterator[limiter.Attempt]:
    """Count an attempt before the password or code is checked. The block calls `succeeded()` for a correct one.

    Raises TooManyAttempts when the account or the address has reached its limit. The attempt is counted first.
    Otherwise, fifty parallel attempts could all see that one attempt is left.
    """
    reserved = limiter.reserve(account, context.current().address)
    if reserved is None:
        raise TooManyAttempts(
            "Too many wrong passwords for this account or address. Wait five minutes, then try again."
        )
    yield reserved


@contextmanager
def code_attempt(account: str) -> Iterator[limiter.Attempt]:
    """Count a code of an authenticator app too, in the smaller budget of codes, as `attempt` does.

    Raises TooManyAttempts.
    """
    reserved = limiter.reserve_code(account, context.current().address)
    if reserved is None:
        raise TooManyAttempts(
            "Too many wrong codes for this account. Use a passkey or a recovery code, or wait: up to a day. If it was"
            " not you, somebody knows your password: change it."
        )
    yield reserved
