"""ID tokens: signature and claims, checked as OpenID Connect Core 1.0, section 3.1.3.7 says."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
from jwt import PyJWK
from jwt.exceptions import PyJWKError

from lifecycle.core import clock
from lifecycle.oidc.types import InvalidToken, Provider

LEEWAY_S: Final = 60  # between our clock and that of the provider
_TOKEN_MAX: Final = 64 * 1024  # characters
_SUBJECT_MAX: Final = 255  # characters, by the specification
_AGE_MAX_S: Final = 600  # an older token was not made for this sign-in
# The kind of key that each algorithm needs. A token never chooses how its key is read.
_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


def verify(
    token: str, *, provider: Provider, keys: Sequence[Mapping[str, Any]], client_id: str, nonce: str
) -> dict[str, Any]:
    """Return the claims of an ID token for this sign-in; raises InvalidToken with the reason.

    The signature is checked although the token came over TLS, with a key of the provider whose kind fits an algorithm
    that the provider announced. Issuer, audience, authorised party, times, nonce and subject must all fit.
    """
    key, algorithm = _key_for(token, provider, keys)
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key=key.key,
            algorithms=[algorithm],
            audience=client_id,
            issuer=provider.issuer,
            leeway=LEEWAY_S,
            options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"], "verify_iat": True},
        )
    except jwt.PyJWTError as error:
        raise InvalidToken(f"The ID token is not valid: {error}.") from error
    _check(claims, provider, client_id, nonce)
    return claims


def _key_for(token: str, provider: Provider, keys: Sequence[Mapping[str, Any]]) -> tuple[PyJWK, str]:
    try:
        header = jwt.get_unverified_header(token) if len(token) <= _TOKEN_MAX else {}
    except jwt.PyJWTError as error:
        raise InvalidToken("The ID token is not a JWT.") from error
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in provider.algorithms:
        raise InvalidToken("The ID token is signed with an algorithm that the provider does not announce.")
    if "crit" in header:
        raise InvalidToken("The ID token has a critical header that is not known.")
    kind = _KEY_TYPES[str(algorithm)[:2]]
    fitting = [
        key
        for key in keys
        if key.get("kty") == kind
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (key_id is None or key.get("kid") == key_id)
    ]
    if len(fitting) != 1:
        raise InvalidToken("The provider has no single key for this ID token.")
    try:
        return PyJWK(dict(fitting[0]), algorithm=algorithm), str(algorithm)
    except (PyJWKError, jwt.PyJWTError, ValueError) as error:
        raise InvalidToken("The key of the provider cannot be read.") from error


def _check(claims: Mapping[str, Any], provider: Provider, client_id: str, nonce: str) -> None:
    if claims["iss"] != provider.issuer:
        raise InvalidToken("The ID token is of another issuer.")
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if len(audience) > 1 and claims.get("azp") != client_id:
        raise InvalidToken("The ID token is for several clients, and not given to this one.")
    if claims.get("azp", client_id) != client_id:
        raise InvalidToken("The ID token was given to another client.")
    given = claims["nonce"]
    if not isinstance(given, str) or not nonce or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise InvalidToken("The ID token belongs to another sign-in.")
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject.strip() or len(subject) > _SUBJECT_MAX or "\0" in subject:
        raise InvalidToken("The ID token names nobody.")
    if claims["iat"] < clock.now().timestamp() - _AGE_MAX_S:
        raise InvalidToken("The ID token is too old for this sign-in.")
