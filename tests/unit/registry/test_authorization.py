"""Which hosts receive our registry credentials, and which never do."""

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
    """Return a client of https://registry.example.com, whose challenges name `realm`, and the list of its requests."""
    item, requests = oci.image("base"), []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
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
    return HttpRegistryClient(endpoint, http=http, authorizer=authorizer), requests


def test_challenge_with_quoted_commas_is_parsed() -> None:
    assert parse_challenges(['Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"', "Basic"]) == [
        Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"}),
        Challenge("basic", {}),
    ]


def test_token_is_fetched_once_with_only_the_needed_scope() -> None:
    client, requests = registry("https://registry.example.com/token", username="robot")
    client.get_manifest("a", "1")
    client.get_manifest("a", "1")
    manifest = "/v2/a/manifests/1"
    assert [request.url.path for request in requests] == [manifest, "/token", manifest, manifest]
    assert requests[1].url.params.get_list("scope") == ["repository:a:pull"]
    assert requests[1].headers["authorization"].startswith("Basic ")


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
def test_credentials_are_not_sent_to_unconfigured_realm(realm: str) -> None:
    client, requests = registry(realm, username="robot")
    with pytest.raises(RegistryRefused):
        client.get_manifest("a", "1")
    assert all(request.url.path == "/v2/a/manifests/1" for request in requests)
    assert all("Basic" not in request.headers.get("authorization", "") for request in requests)


def test_anonymous_client_can_use_realm_on_other_host() -> None:
    client, requests = registry("https://auth.example.net/token")
    client.get_manifest("a", "1")
    assert "authorization" not in requests[1].headers


def test_upload_location_on_other_host_is_refused() -> None:
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
