"""Notation envelopes: what must verify, and each single thing that must fail."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from lifecycle.core.types import Digest
from lifecycle.signatures.notation import verify_jws
from lifecycle.signatures.types import SignatureRefused
from tests.factories.signatures import T0, certificate, jws, new_key, notation_chain, signed

IMAGE = Digest.of(b"image")
NOW = T0 + timedelta(days=2)
EXPIRY, SCHEME = "io.cncf.notary.expiry", "io.cncf.notary.signingScheme"


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_chain_to_a_trusted_root_verifies() -> None:
    key, chain = notation_chain()
    verified = verify_jws(dumps(jws(key, chain, IMAGE.text)), [chain[-1]], IMAGE, now=NOW)
    assert verified.signer.identity == "CN=release.example"
    assert verified.signed_at is None  # the signer's own word proves nothing
    without_root = jws(key, chain[:1], IMAGE.text)
    verify_jws(dumps(without_root), [chain[-1]], IMAGE, now=NOW)
    verify_jws(dumps(without_root), [chain[0]], IMAGE, now=NOW)  # the leaf itself is trusted


def test_a_signing_authority_vouches_for_the_time() -> None:
    key, chain = notation_chain()
    authentic = "io.cncf.notary.authenticSigningTime"
    header = {
        SCHEME: "notary.x509.signingAuthority",
        "io.cncf.notary.signingTime": None,
        authentic: T0.isoformat(),
        "crit": [SCHEME, authentic],
    }
    verified = verify_jws(dumps(jws(key, chain, IMAGE.text, **header)), [chain[-1]], IMAGE, now=NOW)
    assert verified.signed_at == T0


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"crit": [SCHEME, "unheard-of"], "unheard-of": 1}, "critical field 'unheard-of'"),
        ({"unheard-of": 1}, "unknown field"),
        ({"crit": []}, "must be critical"),
        ({"crit": None}, "no critical fields"),
        ({SCHEME: "notary.other"}, "scheme"),
        ({"cty": "text/plain"}, "unknown type"),
        ({"alg": "none"}, "algorithm"),
        ({"alg": "HS256"}, "algorithm"),
        ({EXPIRY: (T0 + timedelta(days=1)).isoformat(), "crit": [SCHEME, EXPIRY]}, "expired"),
        ({EXPIRY: (T0 + timedelta(days=9)).isoformat()}, "must be critical"),
        ({"io.cncf.notary.signingTime": (NOW + timedelta(days=1)).isoformat()}, "future"),
        ({"io.cncf.notary.signingTime": None}, "signing time"),
    ],
)
def test_headers_that_must_be_refused(header: dict[str, Any], reason: str) -> None:
    key, chain = notation_chain()
    with pytest.raises(SignatureRefused, match=reason):
        verify_jws(dumps(jws(key, chain, IMAGE.text, **header)), [chain[-1]], IMAGE, now=NOW)


def test_an_expiry_in_the_future_is_fine() -> None:
    key, chain = notation_chain()
    header = {EXPIRY: (T0 + timedelta(days=9)).isoformat(), "crit": [SCHEME, EXPIRY]}
    verify_jws(dumps(jws(key, chain, IMAGE.text, **header)), [chain[-1]], IMAGE, now=NOW)


def test_chains_that_must_be_refused() -> None:
    key, chain = notation_chain()
    _, stranger = notation_chain()
    good = jws(key, chain, IMAGE.text)
    with pytest.raises(SignatureRefused, match="trusted certificate"):
        verify_jws(dumps(good), [stranger[-1]], IMAGE, now=NOW)
    with pytest.raises(SignatureRefused, match="form a chain"):
        verify_jws(dumps(jws(key, [chain[0], stranger[-1]], IMAGE.text)), [stranger[-1]], IMAGE, now=NOW)
    with pytest.raises(SignatureRefused, match="not match"):
        verify_jws(dumps(jws(new_key(), chain, IMAGE.text)), [chain[-1]], IMAGE, now=NOW)
    with pytest.raises(SignatureRefused, match="not valid at"):
        verify_jws(dumps(good), [chain[-1]], IMAGE, now=T0 + timedelta(days=9999))
    with pytest.raises(SignatureRefused, match="another image"):
        verify_jws(dumps(good), [chain[-1]], Digest.of(b"other"), now=NOW)
    with pytest.raises(SignatureRefused, match="unknown field"):
        verify_jws(dumps(good | {"extra": 1}), [chain[-1]], IMAGE, now=NOW)


def test_a_leaf_cannot_issue_another_signer() -> None:
    key, chain = notation_chain()
    next_key = new_key()
    forged = signed(certificate("forged", next_key, chain[0], key), key)
    with pytest.raises(SignatureRefused, match="not one of an authority"):
        verify_jws(dumps(jws(next_key, [forged, *chain], IMAGE.text)), [chain[-1]], IMAGE, now=NOW)
