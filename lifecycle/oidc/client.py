"""The authorization code flow with PKCE, state and nonce, as the client."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from lifecycle.core.http import HttpClient
from lifecycle.oidc.discovery import read_json, read_keys
from lifecycle.oidc.id_tokens import verify
from lifecycle.oidc.types import Attempt, InvalidToken, Person, Provider, ProviderUnavailable


def new_attempt() -> Attempt:
    """Return the secrets of a new sign-in, 256 bits each."""
    return Attempt(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


def address_to_ask(
    provider: Provider, attempt: Attempt, *, client_id: str, scopes: str, callback: str, max_age_s: int | None = None
) -> str:
    """Return the address of the provider where the browser goes to sign in.

    With `max_age_s`, the provider asks the person again, and says in `auth_time` when it did (OpenID Connect Core,
    section 3.1.2.1).
    """
    digest = hashlib.sha256(attempt.verifier.encode()).digest()
    query = urlencode({
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": callback,
        "scope": scopes,
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        **({"prompt": "login", "max_age": str(max_age_s)} if max_age_s is not None else {}),
    })  # fmt: skip
    return f"{provider.authorization_endpoint}{'&' if '?' in provider.authorization_endpoint else '?'}{query}"


def code_of(answer: Mapping[str, str], provider: Provider, attempt: Attempt) -> str:
    """Return the code in the answer that the browser brings back; raises InvalidToken if it does not fit."""
    if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
        raise InvalidToken("The answer belongs to another sign-in.")
    named = answer.get("iss")
    if named != provider.issuer if named is not None else provider.names_itself:
        raise InvalidToken("The answer is of another provider.")
    if "error" in answer:
        raise InvalidToken(f"The provider refused: {answer['error'][:60]}.")
    if not answer.get("code"):
        raise InvalidToken("The answer has no code.")
    return answer["code"]


def redeem(
    code: str,
    *,
    provider: Provider,
    attempt: Attempt,
    client_id: str,
    client_secret: str,
    callback: str,
    http: HttpClient,
) -> Person:
    """Exchange the code, verify the ID token, read userinfo, and return who signed in.

    Raises InvalidToken, ProviderUnavailable.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": callback,
        "code_verifier": attempt.verifier,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if provider.uses_basic:
        pair = f"{quote(client_id, safe='')}:{quote(client_secret, safe='')}"  # RFC 6749, section 2.3.1
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        form |= {"client_id": client_id, "client_secret": client_secret}
    try:
        tokens = read_json(http, "POST", provider.token_endpoint, headers=headers, content=urlencode(form).encode())
    except ProviderUnavailable as error:
        if error.details.get("status") in {400, 401, 403}:
            raise InvalidToken("The provider did not take the code.") from error
        raise
    token, access = tokens.get("id_token"), tokens.get("access_token")
    if not isinstance(token, str):
        raise InvalidToken("The provider sent no ID token.")
    keys = read_keys(provider.jwks_uri, http)
    claims = verify(token, provider=provider, keys=keys, client_id=client_id, nonce=attempt.nonce)
    userinfo: dict[str, object] = {}
    if provider.userinfo_endpoint and isinstance(access, str) and access:
        bearer = {"Authorization": f"Bearer {access}"}
        userinfo = read_json(http, "GET", provider.userinfo_endpoint, headers=bearer)
        if userinfo.get("sub") != claims["sub"]:
            raise InvalidToken("Userinfo is about somebody else.")
    return Person(provider.issuer, claims["sub"], claims, userinfo)
