"""Outgoing HTTP calls: allowed destinations, retries, redirects, size and time limits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lifecycle.core.errors import LimitExceeded, UpstreamError
from lifecycle.core.http import (
    MAX_TRIES,
    ForbiddenDestination,
    HttpClient,
    Unreachable,
    is_public_address,
    parse_outbound_url,
    resolve_destination,
)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:53aa:64c:0:0:0:1", "2001:db8::1", "::127.0.0.1",
        "fec0::1", "feff::1", "3fff::1", "2001:2::1", "2001:20::1", "5f00::1", "100::1", "4000::1", "::1.1.1.1",
        "::ffff:0:10.0.0.1", "64:ff9b:1::1.1.1.1", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:127.0.0.1",
        "192.88.99.1", "192.0.0.8", "2002:c058:6301::", "ff0e::1", "fe80::5efe:1.1.1.1",
    ],
)  # fmt: skip
def test_internal_address_is_not_public(text: str) -> None:
    assert not is_public_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1", "151.101.2.132", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1",
        "2606:4700::5efe:1.1.1.1", "2a00:1450:4001::1", "198.17.255.255", "198.20.0.1", "192.88.98.1",
    ],
)  # fmt: skip
def test_internet_address_is_public(text: str) -> None:
    assert is_public_address(text)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "http://", "http:///x", "//example.com/",
        "http://user@example.com/", "http://user:pw@example.com/", "http://example.com/#x", "http://exa mple.com/",
        "http://example.com\\@127.0.0.1/", "http://example.com/\r\nHost: x", "http://example.com:99999/", "", "x",
        "http://example.com/" + "a" * 3000,
    ],
)  # fmt: skip
def test_malformed_or_non_http_url_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenDestination):
        parse_outbound_url(url)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "localhost", "localhost.", "[::1]"]
)
@pytest.mark.usefixtures("socket_enabled")  # resolves names, but does not connect
def test_every_spelling_of_localhost_is_refused(host: str, settings: Any) -> None:
    settings.OUTBOUND_ALLOW = []
    with pytest.raises((ForbiddenDestination, Unreachable)):
        resolve_destination(host, 1)


def test_host_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", ("1.1.1.1", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(ForbiddenDestination):
        resolve_destination("example.com", 80)


@pytest.mark.usefixtures("socket_enabled")
def test_operator_can_allow_an_internal_host(settings: Any) -> None:
    settings.OUTBOUND_ALLOW = ["localhost:7777"]
    assert resolve_destination("localhost", 7777) == "127.0.0.1"
    with pytest.raises(ForbiddenDestination):
        resolve_destination("localhost", 7778)


def response(status: int, body: object = None, *, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=body or httpx.ByteStream(b""))  # type: ignore[arg-type]  # body is a stream


def client(answers: list[httpx.Response | Exception]) -> tuple[HttpClient, list[httpx.Request], list[float]]:
    seen: list[httpx.Request] = []
    waits: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        next_answer = answers.pop(0)
        if isinstance(next_answer, Exception):
            raise next_answer
        return next_answer

    return HttpClient(transport=httpx.MockTransport(answer), sleep=waits.append), seen, waits


def test_temporary_failures_are_retried() -> None:
    http, seen, waits = client(
        [response(503), httpx.ConnectError("refused"), response(429, headers={"Retry-After": "3"}),
         response(200, httpx.ByteStream(b"ok"))]
    )  # fmt: skip
    assert http.request("GET", "http://example.com/").body == b"ok"
    assert len(seen) == 4
    assert waits[2] == 3.0


def test_number_of_tries_is_limited() -> None:
    http, seen, _ = client([response(500) for _ in range(9)])
    assert http.request("GET", "http://example.com/").status == 500
    assert len(seen) == MAX_TRIES
    http, seen, _ = client([httpx.ConnectError("refused") for _ in range(9)])
    with pytest.raises(Unreachable):
        http.request("GET", "http://example.com/")
    assert len(seen) == MAX_TRIES


def test_redirects_are_opt_in_limited_and_without_credentials() -> None:
    hop = {"Location": "https://other.example.com/blob"}
    http, _, _ = client([response(307, headers=hop)])
    assert http.request("GET", "https://example.com/").status == 307
    http, seen, _ = client([response(307, headers=hop), response(200)])
    http.request("GET", "https://example.com/", headers={"Authorization": "Bearer x"}, redirects=1)
    assert "authorization" in seen[0].headers
    assert "authorization" not in seen[1].headers
    http, _, _ = client([response(307, headers={"Location": "http://example.com/"})])
    with pytest.raises(ForbiddenDestination):
        http.request("GET", "https://example.com/", redirects=1)
    http, _, _ = client([response(307, headers={"Location": "/a"}) for _ in range(5)])
    with pytest.raises(UpstreamError):
        http.request("GET", "https://example.com/", redirects=2)


def test_endless_response_stops_at_size_limit() -> None:
    chunk_count = 0

    def endless() -> Iterator[bytes]:
        nonlocal chunk_count
        while True:
            chunk_count += 1
            yield b"x" * 1000

    http, _, _ = client([response(200, httpx.Response(200, content=endless()).stream)])
    with pytest.raises(LimitExceeded):
        http.request("GET", "http://example.com/", max_bytes=10_000)
    assert chunk_count < 20


def test_slow_response_stops_at_deadline() -> None:
    http, _, _ = client([response(200, httpx.Response(200, content=iter([b"x", b"y"])).stream)])
    with pytest.raises(Unreachable):
        http.request("GET", "http://example.com/", deadline_s=-1, retry=False)
