"""The proxy of the box: only listed hosts, never this machine, never a second request that was not checked."""

from __future__ import annotations

import socket
import threading

import pytest

from lifecycle.rebuild.builders import proxy
from lifecycle.rebuild.builders.proxy import Refused, Rules

pytestmark = pytest.mark.enable_socket


def rules(*allowed, never=()):
    return Rules.parse(allowed, never)


def resolving(monkeypatch, *addresses):
    def found(host, port, **_):
        assert isinstance(host, bytes)  # text would load a codec, which the proxy may not read any more
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in address], socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(proxy.socket, "getaddrinfo", found)


def test_only_a_listed_host_and_port_is_open(monkeypatch):
    resolving(monkeypatch, "198.51.100.7")
    allowed = rules(("Mirror.example.", 443))
    assert allowed.addresses("mirror.example", 443) == [(socket.AF_INET, ("198.51.100.7", 443))]
    for host, port in (("mirror.example", 80), ("other.example", 443), ("xmirror.example", 443)):
        with pytest.raises(Refused, match=f"{host}:{port} is not on the list"):
            allowed.addresses(host, port)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "::", "fe80::1", "fec0::1",
     "::ffff:127.0.0.1", "::ffff:169.254.169.254"],
)  # fmt: skip
def test_listed_name_that_leads_to_this_machine_or_its_link_is_refused(monkeypatch, address):
    resolving(monkeypatch, address)
    with pytest.raises(Refused, match="leads to an address of this machine or of its link"):
        rules(("rebound.example", 443)).addresses("rebound.example", 443)
    resolving(monkeypatch, address, "198.51.100.7")  # the other address is still usable
    assert rules(("both.example", 443)).addresses("both.example", 443) == [(socket.AF_INET, ("198.51.100.7", 443))]


def test_own_servers_are_never_open_even_if_a_setting_names_them(monkeypatch):
    resolving(monkeypatch, "127.0.0.1")
    listed = rules(("127.0.0.1", 5432), ("localhost", 3141), never=[("127.0.0.1", 5432), ("localhost", 5432)])
    with pytest.raises(Refused):
        listed.addresses("127.0.0.1", 5432)
    assert listed.addresses("localhost", 3141) == [(socket.AF_INET, ("127.0.0.1", 3141))]  # a mirror on this machine


@pytest.mark.parametrize(
    "line",
    [b"CONNECT 127.0.0.1:5432:443 HTTP/1.1", b"CONNECT [::1]:443 HTTP/1.1", b"CONNECT a b HTTP/1.1",
     b"CONNECT host:99999 HTTP/1.1", b"CONNECT host:+80 HTTP/1.1", b"GET /path HTTP/1.1", b"GET ftp://a/ HTTP/1.1",
     b"GET http://a@127.0.0.1/ HTTP/1.1", b"POST http://a/ HTTP/1.1", b"GET http://a?b/ HTTP/1.1", b"",
     b"GET http://a/\xff HTTP/1.1", b"CONNECT \xd9\xa1:80 HTTP/1.1"],
)  # fmt: skip
def test_unclear_request_is_refused(line):
    with pytest.raises(Refused):
        rules(("a", 80)).addresses(*proxy._target(line, [])[:2])


def test_request_is_written_anew_for_the_checked_host():
    fields = [b"Host: 127.0.0.1:5432", b"Accept: */*", b"Proxy-Authorization: Basic x", b"Connection: keep-alive"]
    assert proxy._target(b"GET http://Mirror.example:8080/a?b=c HTTP/1.1", fields) == (
        "mirror.example", 8080,
        b"GET /a?b=c HTTP/1.1\r\nHost: mirror.example:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    )  # fmt: skip


class Upstream:
    """A server on this machine that counts the requests it gets."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.got: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self.listening.accept()
            with client:
                client.settimeout(1)
                data = b""
                try:
                    while piece := client.recv(4096):
                        data += piece
                        if b"\r\n\r\n" in data and b"wait" not in data:
                            break
                except TimeoutError:
                    pass
                self.got.append(data)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")


def asked(port, request):
    """Return what the proxy answers to a request on a socket of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    listed = rules(("localhost", port))
    threading.Thread(target=proxy.serve, args=(listening, listed), daemon=True).start()
    with socket.create_connection(listening.getsockname()) as client:
        client.settimeout(10)
        client.sendall(request)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    return answer


def test_allowed_request_passes_and_what_follows_it_does_not():
    upstream = Upstream()
    first = f"GET http://localhost:{upstream.port}/wait HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    second = b"GET http://127.0.0.1:5432/secret HTTP/1.1\r\nHost: x\r\n\r\n"
    assert asked(upstream.port, first + second).endswith(b"hello")
    assert len(upstream.got) == 1
    assert b"secret" not in upstream.got[0]


def test_tunnel_passes_to_the_listed_host_only(capsys):
    upstream = Upstream()
    request = b"GET / HTTP/1.1\r\n\r\n"
    opened = asked(upstream.port, f"CONNECT localhost:{upstream.port} HTTP/1.1\r\n\r\n".encode() + request)
    assert opened.startswith(b"HTTP/1.1 200 Connected")
    assert opened.endswith(b"hello")
    refused = asked(upstream.port, f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1\r\n\r\n".encode() + request)
    assert refused.startswith(b"HTTP/1.1 403")
    assert len(upstream.got) == 1
    logged = (
        f"Network: 127.0.0.1:{upstream.port} is not on the list of hosts. An operator can allow it with BUILD_HOSTS."
    )
    assert logged in capsys.readouterr().out
