"""The keys of issuers, by OpenID Connect discovery: fetched outside of transactions, bounded, and kept for minutes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from lifecycle.core.errors import LifecycleError, UpstreamError
from lifecycle.core.http import HttpClient, parse_outbound_url

KEEP_S: Final = 600.0  # then the keys are fetched again
STALE_MAX_S: Final = 3600.0  # an issuer that is away: its last keys count for so long
AGAIN_AFTER_S: Final = 30.0  # an unknown key id asks the issuer at most this often
_WAIT_S: Final = 5.0  # for another thread that is asking
_DEADLINE_S: Final = 8.0
_BYTES_MAX: Final = 512 * 1024
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
        self._http: HttpClient | None = None

    def key_for(self, issuer: str, key_id: str) -> Mapping[str, Any] | None:
        """Return the JSON Web Key with this id, or None if the issuer has none. Raises IssuerUnavailable.

        The caller has made sure that a rule names the issuer: nobody else chooses whom we call.
        """
        now = time.monotonic()
        kept = self._kept.get(issuer)
        if kept is not None:
            is_fresh = now - kept.fetched_at < KEEP_S
            if is_fresh and (key_id in kept.by_id or now - kept.fetched_at < AGAIN_AFTER_S):
                return kept.by_id.get(key_id)
        with self._lock:
            lock = self._locks.setdefault(issuer, threading.Lock())
        if not lock.acquire(timeout=_WAIT_S):
            raise IssuerUnavailable("The issuer is slow to give its keys. Try again.")
        try:
            current = self._kept.get(issuer)
            if current is kept:  # else another thread has just asked
                current = self._ask(issuer, kept)
            return current.by_id.get(key_id) if current is not None else None
        finally:
            lock.release()

    def forget(self) -> None:
        """Drop all keys."""
        self._kept.clear()

    def _ask(self, issuer: str, kept: _Keys | None) -> _Keys:
        now = time.monotonic()
        try:
            found = _Keys(self._fetch(issuer), now)
        except LifecycleError as error:
            if kept is not None and now - kept.fetched_at < STALE_MAX_S:
                return kept
            raise IssuerUnavailable(f"The issuer {issuer} did not give its keys: {error}") from error
        with self._lock:
            while len(self._kept) >= _ISSUERS_MAX and issuer not in self._kept:
                self._kept.pop(next(iter(self._kept)))
            self._kept[issuer] = found
        return found

    def _fetch(self, issuer: str) -> dict[str, Mapping[str, Any]]:
        document = self._json(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise UpstreamError("its discovery document names another issuer.")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or parse_outbound_url(address).scheme != parse_outbound_url(issuer).scheme:
            raise UpstreamError("its discovery document names no keys.")
        keys = self._json(address).get("keys")
        if not isinstance(keys, list) or len(keys) > _KEYS_MAX:
            raise UpstreamError("its list of keys is malformed.")
        usable = [key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"]
        return {str(key.get("kid", "")): key for key in usable if key.get("kty") in {"RSA", "EC", "OKP"}}

    def _json(self, url: str) -> dict[str, Any]:
        if self._http is None:
            self._http = HttpClient()
        answer = self._http.request(
            "GET",
            url,
            headers={"Accept": "application/json"},
            max_bytes=_BYTES_MAX,
            deadline_s=_DEADLINE_S,
            retry=False,
        )
        if answer.status != 200:
            raise UpstreamError(f"it returned {answer.status}.")
        try:
            found = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise UpstreamError("it returned no JSON.") from None
        if not isinstance(found, dict):
            raise UpstreamError("it returned no JSON object.")
        return found


ISSUERS: Final = Issuers()
