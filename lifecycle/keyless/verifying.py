"""Identity tokens: what can be read without a key, and what is verified with one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from lifecycle.core import clock
from lifecycle.keyless.constants import (
    ALGORITHMS,
    IDENTITY_LIFE_MAX_S,
    IDENTITY_MAX,
    LEEWAY_S,
    RSA_BITS_MIN,
)
from lifecycle.keyless.issuers import Issuers
from lifecycle.keyless.types import Identity, RefusedIdentity

_NO_TOKEN: Final = "This is not an identity token: a JSON Web Token in three parts."  # noqa: S105 -- no password
_REQUIRED: Final = ("iss", "aud", "sub", "exp", "iat")


def issuer_of(text: str) -> str:
    """Return the issuer that an identity token names, which proves nothing. Raises RefusedIdentity."""
    if len(text) > IDENTITY_MAX or text.count(".") != 2 or not text.isascii():
        raise RefusedIdentity(_NO_TOKEN)
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise RefusedIdentity(_NO_TOKEN) from None
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise RefusedIdentity("The token names no issuer.")
    return issuer


def verify(text: str, issuer: str, issuers: Issuers) -> Identity:
    """Return the identity if `issuer` signed the token and it is valid now.

    Keys come only from the issuer's own list, never from the token. Audience and claims are for the rule. Calls the
    network. Raises RefusedIdentity, IssuerUnavailable.
    """
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise RefusedIdentity(_NO_TOKEN) from None
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise RefusedIdentity(f"Tokens signed with {str(algorithm)[:20]} are not accepted.")
    if "crit" in header:
        raise RefusedIdentity("The token needs an extension that is not supported.")
    key_id = header.get("kid", "")
    found = issuers.key_for(issuer, key_id if isinstance(key_id, str) else "")
    if found is None:
        raise RefusedIdentity("The issuer has no key with the id that the token names.")
    if found.get("alg", algorithm) != algorithm:
        raise RefusedIdentity("The key of the issuer is for another algorithm.")
    try:
        key = jwt.PyJWK(dict(found), algorithm=algorithm)
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < RSA_BITS_MIN:
            raise RefusedIdentity("The key of the issuer is too short.")
        claims: dict[str, Any] = jwt.decode(
            text, key, algorithms=[algorithm], issuer=issuer, leeway=LEEWAY_S,
            options={"require": list(_REQUIRED), "verify_aud": False},
        )  # fmt: skip
    except jwt.ExpiredSignatureError:
        raise RefusedIdentity("The identity token has expired. Request a new one in the job.") from None
    except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
        raise RefusedIdentity("The identity token is not valid yet. Compare the clocks.") from None
    except jwt.MissingRequiredClaimError as error:
        raise RefusedIdentity(f"The identity token has no claim {error.claim}.") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise RefusedIdentity("The signature of the identity token is wrong.") from None
    return _identity(text, issuer, claims)


def _identity(text: str, issuer: str, claims: Mapping[str, Any]) -> Identity:
    audience = claims["aud"]
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(one, str) and one for one in audiences):
        raise RefusedIdentity("The audience of the identity token is malformed.")
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject:
        raise RefusedIdentity("The identity token has an empty subject.")
    if float(claims["exp"]) - float(claims["iat"]) > IDENTITY_LIFE_MAX_S:
        raise RefusedIdentity("The identity token is valid for more than a day. Request a shorter one.")
    if float(claims["iat"]) > clock.now().timestamp() + LEEWAY_S:
        raise RefusedIdentity("The identity token is not valid yet. Compare the clocks.")
    jti = claims.get("jti")
    # Without an id, what was signed stands for the token: its signature could be written in another way.
    seen = f"{issuer}\0{jti}" if isinstance(jti, str) and jti else text.rpartition(".")[0]
    return Identity(
        issuer=issuer,
        audiences=tuple(audiences),
        subject=subject,
        claims=claims,
        sha256=hashlib.sha256(seen.encode()).digest(),
        ends_at=datetime.fromtimestamp(float(claims["exp"]) + LEEWAY_S, UTC),
    )
