"""The only way out of the box: an HTTP proxy that connects to the hosts on a list, and names each refused one.

It runs outside of the box without any privilege, on a socket that the box handed over. It understands CONNECT (for
https) and GET and HEAD of http addresses. It resolves each name itself and connects to the checked address. Names that
lead to this machine or to link-local addresses (metadata services) are refused, also when the list has them, unless the
settings of this machine name exactly that address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self

_HEAD_MAX: Final = 64 * 1024  # bytes
_CONNECT_TIMEOUT_S: Final = 15.0
_IDLE_TIMEOUT_S: Final = 300.0
_CONNECTIONS_MAX: Final = 128  # at the same time
_REFUSED_MAX: Final = 50  # names in the log of one build
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252})")
_REQUEST: Final = re.compile(rb"([A-Z]{1,10}) ([\x21-\x7e]{1,8000}) HTTP/1\.[01]")
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade", b"host"}
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The hosts and ports that a build can reach. `never` are addresses of our own services, which no list opens."""

    allowed: frozenset[tuple[str, int]]
    never: frozenset[tuple[str, int]]

    @classmethod
    def parse(cls, hosts: Iterable[tuple[str, int]], never: Iterable[tuple[str, int]]) -> Self:
        """Return the rules for (host, port) pairs."""
        return cls(
            frozenset((host.lower().rstrip("."), port) for host, port in hosts),
            frozenset((host.lower().rstrip("."), port) for host, port in never),
        )

    def addresses(self, host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
        """Return the (family, address) pairs to try for a host of the list; raises Refused."""
        if (host, port) not in self.allowed:
            raise Refused(f"{host}:{port} is not on the list of hosts")
        try:
            # As bytes: for text, Python would load its IDNA codec now, from files that this process may not read.
            found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Refused(f"{host} cannot be resolved") from None
        addresses = []
        for family, _, _, _, where in found:
            address = ipaddress.ip_address(str(where[0]).partition("%")[0])
            if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            if self._is_open(host, port, address):
                addresses.append((int(family), (str(where[0]), port)))
        if not addresses:
            raise Refused(f"{host}:{port} leads to an address of this machine or of its link")
        return addresses

    def _is_open(self, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        if (str(address), port) in self.never or (host, port) in self.never:
            return False
        if address.is_link_local or address.is_multicast or address.is_unspecified or address in _SITE_LOCAL:
            return False
        # A mirror on this machine is possible, if its settings write the address itself.
        return not address.is_loopback or host in {"localhost", str(address)}


_SITE_LOCAL: Final = ipaddress.ip_network("fec0::/10")


class Refused(Exception):
    """The request is not allowed, or cannot be understood."""


@dataclass(slots=True)
class _Seen:
    """The refusals that the log already has."""

    lines: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def log(self, text: str) -> None:
        with self.lock:
            if text in self.lines or len(self.lines) >= _REFUSED_MAX:
                return
            self.lines.add(text)
        sys.stdout.write(f"Network: {text}. An operator can allow it with BUILD_HOSTS.\n")  # the log of the build
        sys.stdout.flush()


def serve(listening: socket.socket, rules: Rules) -> None:
    """Answer the connections of one box until this process ends."""
    seen, slots = _Seen(), threading.BoundedSemaphore(_CONNECTIONS_MAX)

    def answer(client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError, ValueError):
                client.settimeout(_IDLE_TIMEOUT_S)
                _answer(client, rules, seen)
        finally:
            slots.release()

    while True:
        client, _ = listening.accept()
        slots.acquire()
        threading.Thread(target=answer, args=(client,), daemon=True).start()


def _answer(client: socket.socket, rules: Rules, seen: _Seen) -> None:
    head, rest = _head(client)
    try:
        line, *fields = head.split(b"\r\n")
        host, port, first = _target(line, fields)
        addresses = rules.addresses(host, port)
    except Refused as refusal:
        seen.log(str(refusal))
        text = f"{refusal}\n".encode()
        client.sendall(
            b"HTTP/1.1 403 Forbidden by Gravingdock\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(text), text)
        )
        return
    server = _connect(addresses)
    if server is None:
        client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        return
    with server:
        if first is None:
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            if rest:
                server.sendall(rest)
        else:
            server.sendall(first)  # `rest` would be a second request, which was not checked
        threading.Thread(target=_pump, args=(client, server, first is None), daemon=True).start()
        _pump(server, client, True)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    """Return (head of a request, what came after it); raises ValueError when none comes."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(16384)
        if not piece or len(data) > _HEAD_MAX:
            raise ValueError("no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _target(line: bytes, fields: list[bytes]) -> tuple[str, int, bytes | None]:
    """Return (host, port, None for a tunnel, else the request for the server); raises Refused."""
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise Refused("A request is malformed")
    verb, target = match[1], match[2].decode("ascii")
    if verb == b"CONNECT":
        host, port = _host_and_port(target, 443)
        return host, port, None
    if verb not in (b"GET", b"HEAD"):
        raise Refused(f"{verb.decode()} over http is not allowed")
    scheme, separator, after = target.partition("://")
    if not separator or scheme.lower() != "http":
        raise Refused("A request has no http address")
    authority, slash, path = after.partition("/")
    if "@" in authority or "?" in authority or "#" in authority:
        raise Refused("A request has credentials in its address")
    host, port = _host_and_port(authority, 80)
    kept = [item for item in fields if item.partition(b":")[0].strip().lower() not in _HOP_BY_HOP]
    name = host if port == 80 else f"{host}:{port}"
    lines = [verb + b" " + f"{slash or '/'}{path}".encode() + b" HTTP/1.1", b"Host: " + name.encode(), *kept]
    return host, port, b"\r\n".join([*lines, b"Connection: close", b"", b""])


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    host, separator, digits = text.rpartition(":") if not text.startswith("[") else (text, "", "")
    if not separator:
        host, digits = text, str(default)
    host = host.lower().rstrip(".")
    if not _HOST.fullmatch(host) or not digits.isascii() or not digits.isdigit() or not 0 < int(digits[:6]) < 65536:
        raise Refused(f"{text[:100]} is no host name with a port")
    return host, int(digits)


def _connect(addresses: list[tuple[int, tuple[str, int]]]) -> socket.socket | None:
    for family, address in addresses:
        server = socket.socket(family, socket.SOCK_STREAM)
        server.settimeout(_CONNECT_TIMEOUT_S)
        try:
            server.connect(address)
        except OSError:
            server.close()
            continue
        server.settimeout(_IDLE_TIMEOUT_S)
        return server
    return None


def _pump(source: socket.socket, target: socket.socket, forwards: bool) -> None:
    """Copy until the end of `source`. Without `forwards`, only wait for that end."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            if forwards:
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
