"""Discovery and the code flow, against a transport that answers as told."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from lifecycle.core.http import HttpClient
from lifecycle.oidc.client import address_to_ask, code_of, new_attempt, redeem
from lifecycle.oidc.discovery import discover
from lifecycle.oidc.types import InvalidToken, Provider, ProviderUnavailable
from tests.unit.oidc.test_id_tokens import CLIENT, ISSUER, KEYS, token

DOCUMENT: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/keys",
    "userinfo_endpoint": f"{ISSUER}/me",
    "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
    "authorization_response_iss_parameter_supported": True,
}


class Answers:
    """A transport that answers each path with JSON, and keeps the requests."""

    def __init__(self, **by_path: Any) -> None:
        self.by_path = by_path
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.by_path[request.url.path.rpartition("/")[2].replace("-", "_")]
        if isinstance(answer, int):
            return httpx.Response(
                answer, headers={"location": "https://evil.example.com/"}, stream=httpx.ByteStream(b"{}")
            )
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(answer).encode()))  # read raw, as from a network


def client(**by_path: Any) -> tuple[HttpClient, Answers]:
    answers = Answers(**by_path)
    return HttpClient(transport=httpx.MockTransport(answers)), answers


def found(**changes: Any) -> Provider:
    document = {name: value for name, value in {**DOCUMENT, **changes}.items() if value is not ...}
    return discover(ISSUER, client(openid_configuration=document)[0])


def test_discovery_takes_what_is_safe() -> None:
    provider = found()
    assert provider.algorithms == ("RS256",)
    assert provider.uses_basic
    assert provider.names_itself
    assert found(id_token_signing_alg_values_supported=...).algorithms == ("RS256",)
    assert not found(token_endpoint_auth_methods_supported=["client_secret_post"]).uses_basic
    assert found(userinfo_endpoint=...).userinfo_endpoint == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "https://evil.example.com"}, "another issuer"),
        ({"issuer": ISSUER + "/"}, "another issuer"),
        ({"issuer": ...}, "another issuer"),
        ({"token_endpoint": "http://login.example.com/token"}, "not https"),
        ({"jwks_uri": "file:///etc/passwd"}, "no usable jwks_uri"),
        ({"jwks_uri": ...}, "no usable jwks_uri"),
        ({"authorization_endpoint": 7}, "no usable authorization_endpoint"),
        ({"userinfo_endpoint": "https://user:pass@login.example.com/"}, "no usable userinfo_endpoint"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "no algorithm"),
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "neither"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
    ],
)
def test_discovery_refuses_the_rest(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ProviderUnavailable, match=why):
        found(**changes)


@pytest.mark.parametrize("answer", [404, 302, 500, [], "text"])
def test_discovery_without_a_document(answer: Any) -> None:
    with pytest.raises(ProviderUnavailable):
        discover(ISSUER, client(openid_configuration=answer)[0])


def test_asked_address_has_state_nonce_and_challenge() -> None:
    attempt = new_attempt()
    address = address_to_ask(found(), attempt, client_id=CLIENT, scopes="openid email", callback="https://dock/cb")
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert (query["state"], query["nonce"]) == (attempt.state, attempt.nonce)
    assert query["code_challenge_method"] == "S256"
    assert attempt.verifier not in address
    assert len({attempt.state, attempt.nonce, attempt.verifier, new_attempt().state}) == 4


def test_answer_must_fit_the_attempt() -> None:
    provider, attempt = found(), new_attempt()
    good = {"state": attempt.state, "iss": ISSUER, "code": "c"}
    assert code_of(good, provider, attempt) == "c"
    for changes in (
        {"state": "other"}, {"state": ""}, {"iss": "https://evil.example.com"}, {"iss": ""}, {"code": ""},
        {"error": "access_denied"},
    ):  # fmt: skip
        with pytest.raises(InvalidToken):
            code_of({**good, **changes}, provider, attempt)
    with pytest.raises(InvalidToken, match="another provider"):  # this provider always names itself
        code_of({"state": attempt.state, "code": "c"}, provider, attempt)
    silent = found(authorization_response_iss_parameter_supported=...)
    assert code_of({"state": attempt.state, "code": "c"}, silent, attempt) == "c"


def exchange(provider: Provider | None = None, **answers: Any) -> tuple[Any, Answers]:
    attempt = new_attempt()
    parts = {"token": {"id_token": token(nonce=attempt.nonce), "access_token": "at"}, "keys": {"keys": KEYS}}
    http, transport = client(**{**parts, "me": {"sub": "248289761001", "groups": ["a"]}, **answers})
    person = redeem(
        "code", provider=provider or found(), attempt=attempt, client_id=CLIENT, client_secret="s:ecret",
        callback="https://dock/cb", http=http,
    )  # fmt: skip
    return person, transport


def test_code_becomes_a_person_and_the_secret_goes_only_to_the_token_endpoint() -> None:
    person, transport = exchange()
    assert (person.issuer, person.subject, person.claims()["groups"]) == (ISSUER, "248289761001", ["a"])
    asked, _, userinfo = transport.requests
    assert httpx.BasicAuth(CLIENT, "s%3Aecret")._auth_header == asked.headers["authorization"]
    assert b"code_verifier=" in asked.content
    assert userinfo.headers["authorization"] == "Bearer at"
    in_body, transport = exchange(found(token_endpoint_auth_methods_supported=["client_secret_post"]))
    assert b"client_secret=s%3Aecret" in transport.requests[0].content
    assert "authorization" not in transport.requests[0].headers
    assert in_body.subject == "248289761001"


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"token": 400}, InvalidToken),  # a used or foreign code
        ({"token": 401}, InvalidToken),
        ({"token": 503}, ProviderUnavailable),
        ({"token": {"access_token": "at"}}, InvalidToken),
        ({"token": {"id_token": token(nonce="other"), "access_token": "at"}}, InvalidToken),
        ({"keys": {"keys": []}}, InvalidToken),
        ({"keys": {"keys": "x"}}, ProviderUnavailable),
        ({"me": {"sub": "somebody else"}}, InvalidToken),
        ({"me": {}}, InvalidToken),
        ({"me": 302}, ProviderUnavailable),
    ],
)
def test_bad_answers_make_nobody(answers: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        exchange(**answers)
    assert exchange()[0].subject  # the twin
