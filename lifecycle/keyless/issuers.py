"""The keys of issuers, by OpenID Connect discovery: fetched outside of transactions, bounded, and kept for minutes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.core.errors import LifecycleError, UpstreamError
from lifecycle.core.http import HttpClient
from lifecycle.oidc import discovery

KEEP_S: Final = 600.0  # then the keys are fetched again
STALE_MAX_S: Final = 3600.0  # an issuer that is away: its last keys count for so long
AGAIN_AFTER_S: Final = 30.0  # an unknown key id, and one that did not answer, ask the issuer at most this often
_WAIT_S: Final = 5.0  # for another thread that is asking
_DEADLINE_S: Final = 8.0  # for discovery and keys together
_KEYS_MAX: Final = 100
_ISSUERS_MAX: Final = 200


class IssuerUnavailable(UpstreamError):
    """The issuer did not give its keys."""

    code = "issuer_unavailable"


@dataclass(frozen=True, slots=True)
class _Keys:
    by_id: Mapping[str, Mapping[str, Any]]
    fetched_at: float


class Issuers:
    """The keys of the issuers that this process has asked."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._kept: dict[str, _Keys] = {}
        self._running: dict[str, float] = {}  # since when an issuer is being asked
        self._failed: dict[str, float] = {}  # when an issuer last gave no answer
        self._http: HttpClient | None = None

    def key_for(self, issuer: str, key_id: str) -> Mapping[str, Any] | None:
        """Return the JSON Web Key with this id, or None if the issuer has none. Raises IssuerUnavailable.

        An issuer that is slow or away is left alone for AGAIN_AFTER_S: strangers must not hold our threads with it.
        Meanwhile its last keys count. The caller has made sure that a rule names the issuer: nobody else chooses whom
        we call.
        """
        now = time.monotonic()
        kept = self._kept.get(issuer)
        if kept is not None:
            is_fresh = now - kept.fetched_at < KEEP_S
            if is_fresh and (key_id in kept.by_id or now - kept.fetched_at < AGAIN_AFTER_S):
                return kept.by_id.get(key_id)
        with self._lock:
            lock = self._locks.setdefault(issuer, threading.Lock())
            is_slow = now - self._running.get(issuer, now) > _WAIT_S
        if is_slow or self._has_failed(issuer) or not lock.acquire(timeout=_WAIT_S):
            return self._last(issuer, kept, "It is slow, or did not answer a moment ago.").by_id.get(key_id)
        try:
            current = self._kept.get(issuer)
            if current is kept:  # else another thread has just asked
                if self._has_failed(issuer):
                    return self._last(issuer, kept, "It did not answer a moment ago.").by_id.get(key_id)
                current = self._ask(issuer, kept)
            return current.by_id.get(key_id) if current is not None else None
        finally:
            lock.release()

    def forget(self) -> None:
        """Drop all keys, and who did not answer."""
        self._kept.clear()
        self._failed.clear()

    def _has_failed(self, issuer: str) -> bool:
        at = self._failed.get(issuer)
        return at is not None and time.monotonic() - at < AGAIN_AFTER_S

    def _last(self, issuer: str, kept: _Keys | None, why: str) -> _Keys:
        """Return the last keys while they count; raises IssuerUnavailable without."""
        if kept is not None and time.monotonic() - kept.fetched_at < STALE_MAX_S:
            return kept
        raise IssuerUnavailable(f"The issuer {issuer} did not give its keys: {why} Try again.")

    def _ask(self, issuer: str, kept: _Keys | None) -> _Keys:
        now = self._running[issuer] = time.monotonic()
        try:
            found = _Keys(self._fetch(issuer, now + _DEADLINE_S), now)
        except LifecycleError as error:
            with self._lock:
                while len(self._failed) >= _ISSUERS_MAX and issuer not in self._failed:
                    self._failed.pop(next(iter(self._failed)))
                self._failed[issuer] = time.monotonic()
            return self._last(issuer, kept, str(error))
        finally:
            self._running.pop(issuer, None)
        with self._lock:
            self._failed.pop(issuer, None)
            while len(self._kept) >= _ISSUERS_MAX and issuer not in self._kept:
                self._kept.pop(next(iter(self._kept)))
            self._kept[issuer] = found
        return found

    def _fetch(self, issuer: str, deadline: float) -> dict[str, Mapping[str, Any]]:
        if self._http is None:
            self._http = HttpClient()
        document = discovery.read_document(issuer, self._http, deadline_s=_left(deadline))
        address = discovery.address_in(document, "jwks_uri", issuer)
        keys = discovery.read_keys(address, self._http, deadline_s=_left(deadline))
        if len(keys) > _KEYS_MAX:
            raise UpstreamError(f"It has more than {_KEYS_MAX} keys.")
        usable = [key for key in keys if key.get("use", "sig") == "sig"]
        return {str(key.get("kid", "")): key for key in usable if key.get("kty") in {"RSA", "EC", "OKP"}}


def _left(deadline: float) -> float:
    """Return the seconds until a moment of the monotonic clock."""
    return max(0.0, deadline - time.monotonic())


ISSUERS: Final = Issuers()
