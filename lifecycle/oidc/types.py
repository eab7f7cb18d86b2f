"""What the documents and tokens of a provider say, parsed and checked, and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lifecycle.core.errors import NotPermitted, UpstreamError


class ProviderUnavailable(UpstreamError):
    """The provider gave no usable answer, or a document that breaks the specification."""

    code = "provider_unavailable"


class InvalidToken(NotPermitted):
    """An ID token or an answer of the provider does not prove who signs in. `args[0]` says why, for the log."""

    code = "invalid_token"


@dataclass(frozen=True, slots=True)
class Provider:
    """The addresses of a provider, from its discovery document, whose `issuer` is exactly the one asked for."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str  # "" when it has none
    algorithms: tuple[str, ...]  # of ID tokens; only asymmetric ones that we take
    uses_basic: bool  # how the client sends its secret: in the header, else in the body
    names_itself: bool  # whether its answers contain `iss` (RFC 9207)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in on its way: what the browser brings back must fit to it."""

    state: str
    nonce: str
    verifier: str  # of PKCE


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in, as the provider proved it. `issuer` and `subject` together are the identity."""

    issuer: str
    subject: str
    id_token: Mapping[str, Any]
    userinfo: Mapping[str, Any]  # empty without a userinfo endpoint

    def claims(self) -> dict[str, Any]:
        """Return all claims. Those of the signed ID token win over those of userinfo."""
        return {**self.userinfo, **self.id_token}

    @property
    def verified_mail(self) -> str:
        """The mail that the provider verified, in lower case; "" for any other. Only `true` counts, not "true"."""
        for claims in (self.id_token, self.userinfo):
            mail = claims.get("email")
            if isinstance(mail, str) and mail.strip() and claims.get("email_verified") is True:
                return mail.strip().lower()
        return ""
