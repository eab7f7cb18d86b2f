"""The one way out: every call to another system goes through `HttpClient`.

It bounds what the other side can cost us (time, bytes, redirects, tries), refuses destinations inside our own network
unless the operator names them, and refuses to run inside a database transaction.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Final

import certifi
import httpcore
import httpx
from django.conf import settings
from django.db import connections

from lifecycle.core.errors import LimitExceeded, Malformed, UpstreamError

USER_AGENT: Final = "gravingdock"
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 20.0  # between two reads; the whole answer has `deadline_s`
DEADLINE_S: Final = 60.0  # a slow drip ends here however lively it looks
MAX_TRIES: Final = 4
RETRY_AFTER_MAX_S: Final = 20.0  # a longer wait belongs to the job's own schedule
RETRIED_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NAT64: Final = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
)

Body = bytes | Callable[[], Iterable[bytes]]  # a callable, so that a second try can read it again


class ForbiddenDestination(Malformed):
    """The address is not one we may call; the message says no more, so that nobody maps our network with it."""

    code = "destination_forbidden"


class Unreachable(UpstreamError):
    """No usable answer: refused, cut, too slow, or no such name. Worth a retry later."""

    code = "upstream_unavailable"


class NetworkInsideTransaction(RuntimeError):
    """A programming error: a call outside was about to hold a database transaction open."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, its body no longer than the caller allowed."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str  # of the last hop


class StreamedAnswer:
    """An answer whose body is read piece by piece; `chunks()` ends with an error at the size or time limit."""

    def __init__(self, response: httpx.Response, *, max_bytes: int, deadline: float) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._deadline = deadline
        self.status: int = response.status_code
        self.headers: httpx.Headers = response.headers
        self.url: str = str(response.url)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes as served (no decoding, since digests are over these); raises LimitExceeded, Unreachable."""
        announced = self.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > self._max_bytes:
            raise LimitExceeded(
                f"The answer is longer than {self._max_bytes} bytes.",
                limit=self._max_bytes,
            )
        got = 0
        for chunk in self._response.iter_raw():
            got += len(chunk)
            if got > self._max_bytes:
                raise LimitExceeded(
                    f"The answer is longer than {self._max_bytes} bytes.",
                    limit=self._max_bytes,
                )
            if time.monotonic() > self._deadline:
                raise Unreachable("The answer did not end in time.")
            yield chunk


def assert_outside_transaction() -> None:
    """Raise NetworkInsideTransaction when this thread holds a database transaction open.

    The blocks that Django's own test cases open around a test do not count.
    """
    for connection in connections.all(initialized_only=True):
        if any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            raise NetworkInsideTransaction("A network call inside a database transaction.")


def parse_outbound_url(text: str) -> httpx.URL:
    """Return `text` as an http(s) URL without user info; raises ForbiddenDestination. Resolves nothing."""
    if len(text) > 2000 or any(
        ord(character) <= 32 or ord(character) == 127 or character == "\\" for character in text
    ):
        raise ForbiddenDestination("This is not an address that may be called.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ForbiddenDestination("This is not an address that may be called.") from None
    if (
        url.scheme not in {"http", "https"}
        or not url.host
        or url.userinfo
        or url.fragment
        or not 0 < origin(url)[2] < 65536
    ):
        raise ForbiddenDestination("This is not an address that may be called.")
    return url


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Return (scheme, host, port) of `url`, the port filled in."""
    return (
        url.scheme,
        url.host.rstrip(".").lower(),
        url.port or (443 if url.scheme == "https" else 80),
    )


def allowed_hosts() -> frozenset[str]:
    """Return the operator's exceptions, `host` or `host:port`: OUTBOUND_ALLOW and the managed registry."""
    named = {entry.lower() for entry in getattr(settings, "OUTBOUND_ALLOW", ())}
    if managed := getattr(settings, "REGISTRY_URL", ""):
        _, host, port = origin(httpx.URL(managed))
        named.add(f"{host}:{port}")
    return frozenset(named)


def is_public_address(text: str) -> bool:
    """Whether `text` is an IP address of the open internet, also when wrapped in IPv6 (mapped, 6to4, NAT64, Teredo)."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            address = inner
        elif address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def resolve_destination(host: str, port: int) -> str:
    """Return one address to connect to for `host`; raises ForbiddenDestination or Unreachable.

    Every address of the name has to be public, unless the operator lists the host: a name with one private address
    among public ones is an attack, not a mistake.
    """
    bare = host.rstrip(".").lower().strip("[]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unreachable("The name could not be resolved.") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses:
        raise Unreachable("The name could not be resolved.")
    permitted = allowed_hosts()
    if bare not in permitted and f"{bare}:{port}" not in permitted and not all(map(is_public_address, addresses)):
        raise ForbiddenDestination("This is not an address that may be called.")
    # IPv4 first: what listens on "localhost" here is bound to 127.0.0.1.
    return min(addresses, key=lambda address: ":" in address)


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to the very address that was checked, so that a name cannot change its mind in between."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        return super().connect_tcp(
            resolve_destination(host, port),
            port,
            timeout,
            local_address,
            socket_options,
        )

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        raise ForbiddenDestination("This is not an address that may be called.")


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's store, and SSL_CERT_FILE when the operator sets it
    context.load_verify_locations(certifi.where())
    return context


def _checked_transport() -> httpx.BaseTransport:
    transport = httpx.HTTPTransport(trust_env=False)
    transport._pool = httpcore.ConnectionPool(
        ssl_context=_tls_context(),
        max_connections=32,
        max_keepalive_connections=8,
        keepalive_expiry=15.0,
        network_backend=_CheckedBackend(),
    )
    return transport


class HttpClient:
    """Calls other systems; safe to share between threads, not across a fork.

    `transport` replaces the network in unit tests. `sleep` is what a retry waits with.
    """

    def __init__(
        self,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = httpx.Client(
            transport=transport or _checked_transport(),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            trust_env=False,
            # identity: digests are over the bytes as served, and a decoder is a bomb's way in.
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )
        # What one answer sets must not colour the next call.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._sleep = sleep

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Body | None = None,
        max_bytes: int = 1024 * 1024,
        deadline_s: float = DEADLINE_S,
        redirects: int = 0,
        retry: bool = True,
    ) -> Answer:
        """Return the answer, whatever its status, after at most MAX_TRIES tries.

        `retry=False` for calls that must not be repeated blindly. Raises Unreachable, LimitExceeded,
        ForbiddenDestination.
        """
        for attempt in range(1, MAX_TRIES + 1):
            last = attempt == MAX_TRIES or not retry
            try:
                with self.stream(
                    method,
                    url,
                    headers=headers,
                    content=content,
                    max_bytes=max_bytes,
                    deadline_s=deadline_s,
                    redirects=redirects,
                ) as streamed:
                    if streamed.status not in RETRIED_STATUS or last:
                        body = b"" if method == "HEAD" else b"".join(streamed.chunks())
                        return Answer(streamed.status, streamed.headers, body, streamed.url)
                    wait_s = _retry_after_s(streamed.headers)
            except Unreachable:
                if last:
                    raise
                wait_s = None
            if wait_s is None:
                wait_s = 0.2 * 3 ** (attempt - 1) * random.uniform(0.5, 1.5)
            self._sleep(min(wait_s, RETRY_AFTER_MAX_S))
        raise AssertionError("unreachable")

    @contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Body | None = None,
        max_bytes: int,
        deadline_s: float = DEADLINE_S,
        redirects: int = 0,
    ) -> Iterator[StreamedAnswer]:
        """Open one call, following up to `redirects` hops; one try. Errors as `request`.

        Authorization is dropped on the way to another origin, and https never falls back to http.
        """
        assert_outside_transaction()
        deadline = time.monotonic() + deadline_s
        target = parse_outbound_url(url)
        sent = dict(headers or {})
        for hop in range(redirects + 1):
            request = self._client.build_request(
                method,
                target,
                headers=sent,
                content=content() if callable(content) else content,
            )
            try:
                response = self._client.send(request, stream=True)
            except httpx.TransportError as error:
                raise Unreachable(f"No answer: {type(error).__name__}.") from error
            try:
                if response.status_code in _REDIRECTS and redirects and "location" in response.headers:
                    if hop == redirects:
                        raise UpstreamError("Too many redirects.")
                    target, sent = _next_hop(target, response.headers["location"], sent)
                    continue
                try:
                    yield StreamedAnswer(response, max_bytes=max_bytes, deadline=deadline)
                except httpx.TransportError as error:
                    raise Unreachable(f"The answer was cut: {type(error).__name__}.") from error
                return
            finally:
                response.close()
        raise AssertionError("unreachable")


def _next_hop(here: httpx.URL, location: str, headers: dict[str, str]) -> tuple[httpx.URL, dict[str, str]]:
    try:
        there = here.join(location)
    except (httpx.InvalidURL, ValueError):
        raise ForbiddenDestination("This is not an address that may be called.") from None
    there = parse_outbound_url(str(there))
    if here.scheme == "https" and there.scheme != "https":
        raise ForbiddenDestination("This is not an address that may be called.")
    if origin(here) != origin(there):
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return there, headers


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Return the wait that `Retry-After` asks for, in seconds; None when absent or unreadable."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:6])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
