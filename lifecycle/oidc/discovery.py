"""Discovery documents and key sets of providers (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx

from lifecycle.core.errors import LifecycleError
from lifecycle.core.http import HttpClient, Unreachable, parse_outbound_url
from lifecycle.oidc.types import Provider, ProviderUnavailable

# Asymmetric only: with HS256, everybody who knows the client secret could sign, and `none` is no signature.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_DOCUMENT_MAX: Final = 512 * 1024  # bytes
_DEADLINE_S: Final = 10.0  # a person waits for it


def read_document(issuer: str, http: HttpClient, *, deadline_s: float = _DEADLINE_S) -> Mapping[str, Any]:
    """Return the discovery document of `issuer`, which must name exactly this issuer.

    Raises ProviderUnavailable, or ForbiddenDestination for an address of ours.
    """
    document = read_json(http, "GET", issuer.rstrip("/") + _WELL_KNOWN, deadline_s=deadline_s)
    if document.get("issuer") != issuer:
        raise ProviderUnavailable("The discovery document names another issuer. Check the address of the provider.")
    return document


def discover(issuer: str, http: HttpClient) -> Provider:
    """Return the provider of `issuer`; raises ProviderUnavailable, or ForbiddenDestination for an address of ours.

    The document must name exactly this issuer, and only https addresses, unless the issuer itself is http. Then the
    operator has allowed its host.
    """
    document = read_document(issuer, http)
    offered = document.get("id_token_signing_alg_values_supported")
    names = offered if isinstance(offered, list) else ["RS256"]  # RS256 is the default of the specification
    algorithms = tuple(name for name in ALGORITHMS if name in names)
    if not algorithms:
        raise ProviderUnavailable("The provider signs ID tokens with no algorithm that Gravingdock takes.")
    methods = document.get("token_endpoint_auth_methods_supported")
    methods = methods if isinstance(methods, list) else ["client_secret_basic"]
    if not {"client_secret_basic", "client_secret_post"} & {str(method) for method in methods}:
        raise ProviderUnavailable("The provider takes client secrets neither by basic authentication nor in the body.")
    pkce = document.get("code_challenge_methods_supported")
    if isinstance(pkce, list) and "S256" not in pkce:
        raise ProviderUnavailable("The provider does not support PKCE with S256.")
    return Provider(
        issuer=issuer,
        authorization_endpoint=address_in(document, "authorization_endpoint", issuer),
        token_endpoint=address_in(document, "token_endpoint", issuer),
        jwks_uri=address_in(document, "jwks_uri", issuer),
        userinfo_endpoint=address_in(document, "userinfo_endpoint", issuer, needed=False),
        algorithms=algorithms,
        uses_basic="client_secret_basic" in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def read_keys(jwks_uri: str, http: HttpClient, *, deadline_s: float = _DEADLINE_S) -> list[Mapping[str, Any]]:
    """Return the public keys of a provider as JWKs; raises ProviderUnavailable."""
    keys = read_json(http, "GET", jwks_uri, deadline_s=deadline_s).get("keys")
    if not isinstance(keys, list):
        raise ProviderUnavailable("The key set of the provider is malformed.")
    return [key for key in keys if isinstance(key, dict)]


def read_json(
    http: HttpClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    deadline_s: float = _DEADLINE_S,
) -> dict[str, Any]:
    """Return the JSON object that an address of the provider answers; raises ProviderUnavailable.

    Redirects are not followed, and nothing is tried again: a person waits.
    """
    try:
        answer = http.request(
            method, url, headers={"Accept": "application/json", **(headers or {})}, content=content,
            max_bytes=_DOCUMENT_MAX, deadline_s=deadline_s, retry=False,
        )  # fmt: skip
    except Unreachable as error:
        raise ProviderUnavailable("The provider does not answer.") from error
    if answer.status != httpx.codes.OK:
        raise ProviderUnavailable(f"The provider answered with status {answer.status}.", status=answer.status)
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ProviderUnavailable("The provider answered with something else than a JSON object.")
    return document


def address_in(document: Mapping[str, Any], name: str, issuer: str, *, needed: bool = True) -> str:
    """Return an address of a discovery document, "" for one that is absent and not needed.

    Raises ProviderUnavailable when it cannot be used, or is not https although the issuer is.
    """
    value = document.get(name)
    if value is None and not needed:
        return ""
    try:
        url = parse_outbound_url(value if isinstance(value, str) else "")
    except LifecycleError:
        raise ProviderUnavailable(f"The discovery document has no usable {name}.") from None
    if url.scheme != "https" and not issuer.startswith("http://"):
        raise ProviderUnavailable(f"The {name} of the provider is not https.")
    return str(value)
