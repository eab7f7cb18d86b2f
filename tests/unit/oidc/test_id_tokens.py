"""ID tokens: one good one, and every way in which it can be wrong, for the same key and the same sign-in."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from lifecycle.oidc.id_tokens import verify
from lifecycle.oidc.types import InvalidToken, Person, Provider

ISSUER, CLIENT, NONCE = "https://login.example.com/realms/corp", "gravingdock", "n-0S6_WzA2Mj"
KEY, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
CURVE = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: Any, key_id: str, **more: str) -> dict[str, Any]:
    kind = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": key_id, "use": "sig", **more}


KEYS = [jwk(KEY, "one", alg="RS256"), jwk(CURVE, "curve")]
PROVIDER = Provider(
    issuer=ISSUER, authorization_endpoint=ISSUER, token_endpoint=ISSUER, jwks_uri=ISSUER, userinfo_endpoint="",
    algorithms=("RS256", "ES256"), uses_basic=True, names_itself=False,
)  # fmt: skip


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": ISSUER, "sub": "248289761001", "aud": CLIENT, "nonce": NONCE, "iat": now, "exp": now + 300}
    # A time is given as its distance from now: tests are collected up to an hour before they run.
    times = {name: now + int(value.total_seconds()) for name, value in changes.items() if isinstance(value, timedelta)}
    return {name: value for name, value in {**good, **changes, **times}.items() if value is not ...}


def token(key: Any = KEY, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": "one", **(headers or {})})


def check(text: str, **changes: Any) -> dict[str, Any]:
    values = {"provider": PROVIDER, "keys": KEYS, "client_id": CLIENT, "nonce": NONCE} | changes
    return verify(text, **values)


def unsigned(header: dict[str, Any], body: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, body))
    return ".".join((*parts, ""))


def test_good_tokens_are_taken() -> None:
    assert check(token())["sub"] == "248289761001"
    assert check(token(CURVE, "ES256", {"kid": "curve"}))["sub"] == "248289761001"
    assert check(token(aud=[CLIENT]))["aud"] == [CLIENT]
    assert check(token(aud=[CLIENT, "other"], azp=CLIENT))["azp"] == CLIENT
    assert check(token(exp=int(time.time()) - 30))["nonce"] == NONCE  # within the leeway
    headers = {"kid": None}
    text = jwt.encode(claims(), KEY, "RS256", headers={name: value for name, value in headers.items() if value})
    assert check(text)["iss"] == ISSUER  # no kid, and one key that fits


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example.com"}, "not valid"),
        ({"iss": ISSUER + "/"}, "not valid"),  # exactly the issuer
        ({"iss": ...}, "not valid"),
        ({"aud": "other"}, "not valid"),
        ({"aud": []}, "not valid"),
        ({"aud": [CLIENT, "other"]}, "several clients"),
        ({"aud": [CLIENT, "other"], "azp": "other"}, "several clients"),
        ({"azp": "other"}, "another client"),
        ({"nonce": "of another sign-in"}, "another sign-in"),
        ({"nonce": ""}, "another sign-in"),
        ({"nonce": 7}, "another sign-in"),
        ({"nonce": ...}, "not valid"),
        ({"exp": timedelta(seconds=-120)}, "not valid"),
        ({"exp": ...}, "not valid"),
        ({"iat": timedelta(seconds=-3600)}, "too old"),
        ({"iat": timedelta(seconds=600)}, "not valid"),
        ({"iat": ...}, "not valid"),
        ({"nbf": timedelta(seconds=600)}, "not valid"),
        ({"sub": ""}, "names nobody"),
        ({"sub": "   "}, "names nobody"),
        ({"sub": "x" * 256}, "names nobody"),
        ({"sub": "a\0b"}, "names nobody"),
        ({"sub": ...}, "not valid"),
    ],
)
def test_wrong_claims_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidToken, match=why):
        check(token(**changes))


def test_b1_keys_and_algorithms_are_never_those_of_the_token() -> None:
    forged = {
        "none": unsigned({"alg": "none"}, claims()),
        "none, in other letters": unsigned({"alg": "nOnE", "kid": "one"}, claims()),
        "no alg": unsigned({"kid": "one"}, claims()),
        "other key": token(OTHER),
        "other key, embedded": token(OTHER, headers={"jwk": jwk(OTHER, "one")}),
        "unknown kid": token(OTHER, headers={"kid": "two"}),
        "kid with a path": token(OTHER, headers={"kid": "../../etc/passwd"}),
        "critical header": token(headers={"crit": ["b64"], "b64": True}),
        "not announced": token(KEY, "RS512"),
        "kind of key": token(KEY, "RS256", {"kid": "curve"}),
        "no token": "x.y",
        "long": "x" * 100_000,
    }
    # The public key as the secret of HS256: PyJWT refuses to make it, so it is made by hand.
    head, body, _ = unsigned({"alg": "HS256", "kid": "one"}, claims()).split(".")
    import hashlib
    import hmac

    mac = hmac.new(PEM, f"{head}.{body}".encode(), hashlib.sha256).digest()
    forged["public key as secret"] = f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    for name, text in forged.items():
        with pytest.raises(InvalidToken):
            pytest.fail(f"taken: {name}: {check(text)}")
    changed = token().split(".")
    changed[1] = unsigned({}, claims(sub="admin")).split(".")[1]
    with pytest.raises(InvalidToken):
        check(".".join(changed))
    assert check(token())  # the twin


def test_keys_must_fit_and_be_single() -> None:
    for keys in ([], [jwk(KEY, "one"), jwk(OTHER, "one")], [jwk(KEY, "one", use="enc")], [jwk(KEY, "one", alg="PS256")],
                 [{"kty": "RSA", "kid": "one"}], [{}]):  # fmt: skip
        with pytest.raises(InvalidToken):
            check(token(), keys=keys)
    assert check(token(), keys=[jwk(KEY, "one"), jwk(OTHER, "two")])


def test_sign_in_without_a_nonce_never_fits() -> None:
    with pytest.raises(InvalidToken):
        check(token(nonce=""), nonce="")


@pytest.mark.parametrize(
    ("id_token", "userinfo", "mail"),
    [
        ({"email": "Kim@Example.com", "email_verified": True}, {}, "kim@example.com"),
        ({}, {"email": "kim@example.com", "email_verified": True}, "kim@example.com"),
        ({"email": "kim@example.com"}, {}, ""),
        ({"email": "kim@example.com", "email_verified": False}, {}, ""),
        ({"email": "kim@example.com", "email_verified": "true"}, {}, ""),
        ({"email": "kim@example.com", "email_verified": 1}, {}, ""),
        ({"email": "", "email_verified": True}, {}, ""),
        ({"email": ["kim@example.com"], "email_verified": True}, {}, ""),
        ({"email": "kim@example.com"}, {"email_verified": True}, ""),  # verified says nothing of another document
    ],
)
def test_b5_only_a_verified_mail_is_one(id_token: dict[str, Any], userinfo: dict[str, Any], mail: str) -> None:
    assert Person(ISSUER, "1", id_token, userinfo).verified_mail == mail
