"""Where our credentials for a registry may go, and where never."""

from __future__ import annotations

import httpx
import pytest

from lifecycle.core.errors import RegistryRefused
from lifecycle.core.http import HttpClient
from lifecycle.oci.authorization import Challenge, Challenged, parse_challenges
from lifecycle.oci.http_client import HttpRegistryClient
from tests.factories import oci

TOKEN = b'{"token":"abc","expires_in":300}'


def registry(realm: str, *, username: str = "") -> tuple[HttpRegistryClient, list[httpx.Request]]:
    """Return a client of https://registry.example.com, which sends everybody to `realm`, and the requests made."""
    item, seen = oci.image("base"), []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if "/v2/" not in request.url.path:
            return httpx.Response(200, stream=httpx.ByteStream(TOKEN))
        if request.headers.get("authorization") != "Bearer abc":
            challenge = f'Bearer realm="{realm}",service="s",scope="repository:a:pull,push"'
            return httpx.Response(401, headers={"WWW-Authenticate": challenge}, stream=httpx.ByteStream(b""))
        headers = {"Content-Type": item.manifest.media_type}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(item.manifest.content))

    http = HttpClient(transport=httpx.MockTransport(answer), sleep=lambda _: None)
    endpoint = "https://registry.example.com"
    authorizer = Challenged(http, endpoint, username, "secret-word")
    return HttpRegistryClient(endpoint, http=http, authorizer=authorizer), seen


def test_challenges_are_read_with_commas_in_quotes() -> None:
    assert parse_challenges(['Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"', "Basic"]) == [
        Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"}),
        Challenge("basic", {}),
    ]


def test_a_token_is_fetched_once_and_asks_only_for_what_we_need() -> None:
    client, seen = registry("https://registry.example.com/token", username="robot")
    client.get_manifest("a", "1")
    client.get_manifest("a", "1")
    manifest = "/v2/a/manifests/1"
    assert [request.url.path for request in seen] == [manifest, "/token", manifest, manifest]
    assert seen[1].url.params.get_list("scope") == ["repository:a:pull"]
    assert seen[1].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    "realm",
    [
        "https://evil.example.net/token",
        "https://registry.example.com:8443/token",
        "https://registry.example.com.evil.net/token",
        "http://registry.example.com/token",
        "file:///etc/passwd",
        "https://x@registry.example.com/token",
        "",
    ],
)
def test_credentials_never_reach_a_realm_that_nobody_configured(realm: str) -> None:
    client, seen = registry(realm, username="robot")
    with pytest.raises(RegistryRefused):
        client.get_manifest("a", "1")
    assert all(request.url.path == "/v2/a/manifests/1" for request in seen)
    assert all("Basic" not in request.headers.get("authorization", "") for request in seen)


def test_an_anonymous_client_may_ask_a_realm_elsewhere() -> None:
    client, seen = registry("https://auth.example.net/token")
    client.get_manifest("a", "1")
    assert "authorization" not in seen[1].headers


def test_an_upload_that_leads_to_another_host_is_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(404, stream=httpx.ByteStream(b""))
        headers = {"Location": "https://evil.example.net/upload"}
        assert request.url.host == "registry.example.com"
        return httpx.Response(202, headers=headers, stream=httpx.ByteStream(b""))

    http = HttpClient(transport=httpx.MockTransport(answer), sleep=lambda _: None)
    client = HttpRegistryClient(
        "https://registry.example.com", http=http, authorizer=Challenged(http, "https://registry.example.com", "", "")
    )
    digest = oci.Digest.of(b"x")
    with pytest.raises(RegistryRefused):
        client.upload_blob("a", digest, b"x")
