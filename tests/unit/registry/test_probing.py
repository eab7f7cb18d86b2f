"""The test of a connection to a registry: what is found, and how our errors tell credentials, rights and room apart."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from lifecycle.core.errors import RegistryRefused, RegistryUnavailable
from lifecycle.core.http import HttpClient
from lifecycle.oci.authorization import Challenged
from lifecycle.oci.client import AccessDenied, CredentialsRefused, QuotaExceeded
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.oci.probing import Problem, probe

ENDPOINT = "https://harbor.example.com"
RIGHT = "Basic " + base64.b64encode(b"me:right").decode()
BASIC = {"WWW-Authenticate": 'Basic realm="harbor"'}
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
Handler = Callable[[httpx.Request], httpx.Response]


def answer(status: int, body: bytes = b"", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=httpx.ByteStream(body))


def bearer(realm: str, token_status: int = 200) -> Handler:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/service/token":
            given = request.headers.get("authorization", RIGHT)
            return answer(token_status if given == RIGHT else 401, b'{"token":"t"}')
        if request.headers.get("authorization") == "Bearer t":
            return answer(200, b"{}", content_type="application/json")
        return answer(401, WWW_Authenticate=f'Bearer realm="{realm}",service="harbor"')

    return handle


def basic(request: httpx.Request) -> httpx.Response:
    return answer(200, **VERSION) if request.headers.get("authorization") == RIGHT else answer(401, **BASIC)


def fail(error: Exception) -> Handler:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no") from error

    return handle


def http_for(handler: Handler) -> HttpClient:
    return HttpClient(transport=httpx.MockTransport(handler), sleep=lambda _: None)


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("handler", "username", "password", "problem", "words"),
    [
        (lambda _: answer(200, b"{}", content_type="application/json"), "", "", "", "asks for no credentials"),
        (basic, "me", "right", "", "takes the credentials"),
        (basic, "me", "wrong", "credentials_refused", "refused the credentials"),
        (basic, "", "", "credentials_refused", "wants a user name"),
        (bearer(f"{ENDPOINT}/service/token"), "me", "right", "", "takes the credentials"),
        (bearer(f"{ENDPOINT}/service/token"), "me", "wrong", "credentials_refused", "token server refused"),
        (bearer(f"{ENDPOINT}/service/token"), "", "", "", "may not let us push"),
        (bearer("https://evil.example.com/service/token"), "me", "right", "refused", "not sent there"),
        (bearer(f"{ENDPOINT}/service/token", 503), "me", "right", "unavailable", "answered 503"),
        (lambda _: answer(200, b"<html>", content_type="text/html"), "", "", "not_a_registry", "answered 200"),
        (lambda _: answer(404), "", "", "not_a_registry", "answered 404"),
        (lambda _: answer(401, WWW_Authenticate="Negotiate"), "", "", "not_a_registry", "sign-in"),
        (lambda _: answer(503), "", "", "unavailable", "answered 503"),
        (fail(untrusted()), "", "", "tls", "self-signed certificate"),
        (fail(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")), "", "", "tls", "No TLS connection"),
        (fail(ConnectionRefusedError()), "", "", "unreachable", "Nothing answers"),
    ],
)  # fmt: skip
def test_probe_says_what_is_wrong(handler: Handler, username: str, password: str, problem: str, words: str) -> None:
    found = probe(ENDPOINT, http=http_for(handler), username=username, password=password)
    assert (found.problem.value, found.is_ok) == (problem, not problem), found.text
    assert words in found.text


def test_probe_names_the_host_and_the_network(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    def no_address(*_: Any, **__: Any) -> Any:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    found = probe("https://no-such-host.invalid", http=HttpClient(), username="", password="")
    assert found.problem == Problem.NAME
    settings.OUTBOUND_ALLOW = ()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.1", 443))])
    found = probe("https://inside.example.com", http=HttpClient(), username="", password="")
    assert found.problem == Problem.FORBIDDEN
    assert "OUTBOUND_ALLOW" in found.text


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', CredentialsRefused),
        (403, b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}', AccessDenied),
        (403, b'{"errors":[{"code":"DENIED","message":"... will exceed the configured upper limit"}]}', QuotaExceeded),
        (412, b'{"errors":[{"code":"PRECONDITION","message":"Quota exceeded"}]}', QuotaExceeded),
        (412, b'{"errors":[{"code":"PRECONDITION","message":"immutable tag"}]}', RegistryRefused),
        (413, b"", QuotaExceeded),
        (507, b"", QuotaExceeded),
        (503, b"", RegistryUnavailable),
        (400, b"", RegistryRefused),
    ],
)
def test_an_answer_becomes_a_typed_error(status: int, body: bytes, kind: type[Exception]) -> None:
    http = http_for(lambda _: answer(status, body))
    client = HttpRegistryClient(ENDPOINT, http=http, authorizer=Challenged(http, ENDPOINT, "", ""))
    with pytest.raises(kind) as raised:
        client.put_manifest("a/b", "1", b"{}", "application/json")
    assert type(raised.value) is kind
