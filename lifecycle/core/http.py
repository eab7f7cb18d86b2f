"""HTTP calls to other systems: all of them go through `HttpClient`.

It limits time, bytes, redirects and tries. It refuses destinations inside our own network unless the operator allows
them, and it refuses to run inside a database transaction.
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
READ_TIMEOUT_S: Final = 20.0  # between two reads; `deadline_s` limits the whole response
DEADLINE_S: Final = 60.0  # also ends responses that arrive steadily, but too slowly
MAX_TRIES: Final = 4
RETRY_AFTER_MAX_S: Final = 20.0  # longer waits are left to the retries of the job
RETRIED_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Networks whose addresses end with an IPv4 address, which decides. The local NAT64 prefix is ours, so never public.
_EMBEDS_IPV4: Final = (
    ipaddress.ip_network("64:ff9b::/96"),  # NAT64
    ipaddress.ip_network("::ffff:0:0:0/96"),  # IPv4-translated (SIIT)
)
# Only this part of IPv6 is routed on the internet. Site-local, unique local, link-local and all others are not in it.
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# Special parts of it and of IPv4, from IANA's registries. Some versions of Python call them global.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "2001::/23", "2001:db8::/32", "3fff::/20",  # protocol assignments (Teredo, benchmarking, ORCHID), documentation
        "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15",  # relay and benchmarking
    )
)  # fmt: skip
_ISATAP: Final = 0x5EFE  # an interface id 0:5efe or 200:5efe, then the IPv4 address

Body = bytes | Callable[[], Iterable[bytes]]  # a callable allows a second try to read the body again


class ForbiddenDestination(Malformed):
    """Calls to this address are not allowed. The message has no details, so that it does not reveal our network."""

    code = "destination_forbidden"


class Unreachable(UpstreamError):
    """No usable response: refused, cut off, too slow, or unknown host name. A later retry can help."""

    code = "upstream_unavailable"


class NameUnknown(Unreachable):
    """The host name has no address."""

    code = "name_unknown"


class NetworkInsideTransaction(RuntimeError):
    """A programming error: a network call would have kept a database transaction open."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response. Its body is not longer than the caller's limit."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str  # of the last hop


class StreamedAnswer:
    """A response whose body is read in chunks. `chunks()` raises an error at the size or time limit."""

    def __init__(self, response: httpx.Response, *, max_bytes: int, deadline: float) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._deadline = deadline
        self.status: int = response.status_code
        self.headers: httpx.Headers = response.headers
        self.url: str = str(response.url)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes as served, because digests are computed over them; raises LimitExceeded, Unreachable."""
        announced = self.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > self._max_bytes:
            raise LimitExceeded(
                f"The response is longer than {self._max_bytes} bytes.",
                limit=self._max_bytes,
            )
        received_bytes = 0
        for chunk in self._response.iter_raw():
            received_bytes += len(chunk)
            if received_bytes > self._max_bytes:
                raise LimitExceeded(
                    f"The response is longer than {self._max_bytes} bytes.",
                    limit=self._max_bytes,
                )
            if time.monotonic() > self._deadline:
                raise Unreachable("The response did not end in time.")
            yield chunk


def assert_outside_transaction() -> None:
    """Raise NetworkInsideTransaction when this thread has an open database transaction.

    The blocks that Django's own test cases open around a test do not count.
    """
    for connection in connections.all(initialized_only=True):
        if any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            raise NetworkInsideTransaction("A network call inside a database transaction.")


def parse_outbound_url(text: str) -> httpx.URL:
    """Return `text` as an http(s) URL without user info; raises ForbiddenDestination. Does not resolve the host."""
    if len(text) > 2000 or any(
        ord(character) <= 32 or ord(character) == 127 or character == "\\" for character in text
    ):
        raise ForbiddenDestination("Calls to this address are not allowed.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ForbiddenDestination("Calls to this address are not allowed.") from None
    if (
        url.scheme not in {"http", "https"}
        or not url.host
        or url.userinfo
        or url.fragment
        or not 0 < origin(url)[2] < 65536
    ):
        raise ForbiddenDestination("Calls to this address are not allowed.")
    return url


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Return (scheme, host, port) of `url`, with the default port filled in."""
    return (
        url.scheme,
        url.host.rstrip(".").lower(),
        url.port or (443 if url.scheme == "https" else 80),
    )


def allowed_hosts() -> frozenset[str]:
    """Return the internal hosts that can be called, `host` or `host:port`: OUTBOUND_ALLOW and the managed registry."""
    hosts = {entry.lower() for entry in getattr(settings, "OUTBOUND_ALLOW", ())}
    if managed := getattr(settings, "REGISTRY_URL", ""):
        _, host, port = origin(httpx.URL(managed))
        hosts.add(f"{host}:{port}")
    return frozenset(hosts)


def is_public_address(text: str) -> bool:
    """Return whether `text` is a public IP address. An IPv4 address inside IPv6 decides (mapped, 6to4, NAT64, ISATAP).

    Teredo, site-local, multicast, benchmarking and documentation addresses are never public.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and any(address in network for network in _EMBEDS_IPV4):
            inner = last
        if inner is not None:
            address = inner
        elif address not in _GLOBAL_UNICAST:
            return False
        elif (int(address) >> 32) & 0xFDFFFFFF == _ISATAP:
            address = last
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def resolve_destination(host: str, port: int, also: frozenset[str] = frozenset()) -> str:
    """Return one address to connect to for `host`; raises ForbiddenDestination or Unreachable.

    `also` are further hosts that may be internal, as in `allowed_hosts`.

    Every address of the name must be public, unless the operator allows the host. A name with one private address among
    public ones is an attack, not a mistake.
    """
    bare = host.rstrip(".").lower().strip("[]")
    try:
        entries = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NameUnknown("The host name could not be resolved.") from None
    addresses = [str(entry[4][0]) for entry in entries]
    if not addresses:
        raise NameUnknown("The host name could not be resolved.")
    permitted = allowed_hosts() | also
    if bare not in permitted and f"{bare}:{port}" not in permitted and not all(map(is_public_address, addresses)):
        raise ForbiddenDestination("Calls to this address are not allowed.")
    # IPv4 first, because our local servers listen on 127.0.0.1.
    return min(addresses, key=lambda address: ":" in address)


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to the address that was checked, so that DNS cannot change in between."""

    def __init__(self, also: frozenset[str] = frozenset()) -> None:
        self._also = also

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        return super().connect_tcp(
            resolve_destination(host, port, self._also),
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
        raise ForbiddenDestination("Calls to this address are not allowed.")


def _tls_context(authorities: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's store, and SSL_CERT_FILE when the operator sets it
    context.load_verify_locations(certifi.where())
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return context


def _checked_transport(authorities: str = "", also: frozenset[str] = frozenset()) -> httpx.BaseTransport:
    transport = httpx.HTTPTransport(trust_env=False)
    transport._pool = httpcore.ConnectionPool(
        ssl_context=_tls_context(authorities),
        max_connections=32,
        max_keepalive_connections=8,
        keepalive_expiry=15.0,
        network_backend=_CheckedBackend(also),
    )
    return transport


class HttpClient:
    """Calls other systems; safe to share between threads, not across a fork.

    `transport` replaces the network in unit tests. `sleep` is called to wait before a retry. `authorities` are
    certificates (PEM) of further authorities that it trusts. `also` are hosts that only this client may call although
    they are internal.
    """

    def __init__(
        self,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        authorities: str = "",
        also: frozenset[str] = frozenset(),
    ) -> None:
        self._client = httpx.Client(
            transport=transport or _checked_transport(authorities, also),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            trust_env=False,
            # identity: digests are computed over the bytes as served, and decoding allows decompression bombs.
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )
        # Store no cookies, so that one response cannot affect the next call.
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
        """Return the response, with any status, after at most MAX_TRIES tries.

        Use `retry=False` for calls that are not safe to repeat. Raises Unreachable, LimitExceeded,
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
                    wait_s = retry_after_s(streamed.headers)
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
        """Open one call and follow up to `redirects` redirects, without retries. Raises the same errors as `request`.

        A redirect to another origin drops the Authorization header, and https never redirects to http.
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
                raise Unreachable(f"No response: {type(error).__name__}.") from error
            try:
                if response.status_code in _REDIRECTS and redirects and "location" in response.headers:
                    if hop == redirects:
                        raise UpstreamError("Too many redirects.")
                    target, sent = _next_hop(target, response.headers["location"], sent)
                    continue
                try:
                    yield StreamedAnswer(response, max_bytes=max_bytes, deadline=deadline)
                except httpx.TransportError as error:
                    raise Unreachable(f"The response was cut off: {type(error).__name__}.") from error
                return
            finally:
                response.close()
        raise AssertionError("unreachable")


def _next_hop(here: httpx.URL, location: str, headers: dict[str, str]) -> tuple[httpx.URL, dict[str, str]]:
    try:
        there = here.join(location)
    except (httpx.InvalidURL, ValueError):
        raise ForbiddenDestination("Calls to this address are not allowed.") from None
    there = parse_outbound_url(str(there))
    if here.scheme == "https" and there.scheme != "https":
        raise ForbiddenDestination("Calls to this address are not allowed.")
    if origin(here) != origin(there):
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return there, headers


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Return the seconds of the `Retry-After` header; None when it is absent or malformed."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:6])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
