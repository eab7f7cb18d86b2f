"""Second factors: codes of an authenticator app, passkeys, and recovery codes. Each proof works once.

A code is used up by one conditional UPDATE, so two requests with the same code cannot both succeed.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from fido2.cose import ES256, RS256, CoseKey, EdDSA
from fido2.server import Fido2Server
from fido2.utils import websafe_encode
from fido2.webauthn import (
    AuthenticationResponse,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from accounts.models import User
from lifecycle.authority import resets
from lifecycle.authority.grants import live_grants
from lifecycle.authority.models import Passkey, RecoveryCode, SecuritySettings, TotpSecret
from lifecycle.core import clock, sealing
from lifecycle.core.errors import Malformed
from lifecycle.signatures.assertions import Assertion, BadAssertion, is_origin_of, verify

_STEP_S: Final = 30  # RFC 6238
_DIGITS: Final = 6
_DRIFT: Final = 1  # steps that the clock of a telephone may be wrong by, in both directions
_TOTP_BYTES: Final = 20
RECOVERY_CODES: Final = 10
_RECOVERY_BYTES: Final = 10  # 80 bits, 16 characters
_GROUP: Final = 4
_ALGORITHMS: Final = (ES256.ALGORITHM, EdDSA.ALGORITHM, RS256.ALGORITHM)


@dataclass(frozen=True, slots=True)
class Factors:
    """The second factors of one person."""

    totp: TotpSecret | None
    passkeys: tuple[Passkey, ...]
    recovery_codes: int  # that are left

    def __bool__(self) -> bool:
        return self.totp is not None or bool(self.passkeys)


def factors_of(user: User) -> Factors:
    """Return the second factors of a person."""
    return Factors(
        TotpSecret.objects.filter(user=user).first(),
        tuple(Passkey.objects.filter(user=user)),
        RecoveryCode.objects.filter(user=user, used_at=None).count(),
    )


def has_factor(user: User) -> bool:
    """Return whether a person signs in with a second factor. Recovery codes alone are none."""
    return TotpSecret.objects.filter(user=user).exists() or Passkey.objects.filter(user=user).exists()


def owes_factor(user: str) -> Q:
    """Return the condition that a person must set up a second factor: required, and without one.

    `user` is the field of the outer query that has the id of the person.
    """
    return (
        Q(needs_factor(user))
        & ~Exists(TotpSecret.objects.filter(user=OuterRef(user)))
        & ~Exists(Passkey.objects.filter(user=OuterRef(user)))
    )


def needs_factor(user: str) -> Q:
    """Return the condition that a person is an admin, or has a role, for which an admin requires a second factor."""
    is_admin = User.objects.filter(pk=OuterRef(user), is_superuser=True, is_active=True, kind=User.Kind.PERSON)
    for_admins = SecuritySettings.objects.filter(second_factor_for_admins=True)
    grants = live_grants().filter(
        user=OuterRef(user), user__kind=User.Kind.PERSON, role__security_settings__isnull=False
    )
    return Q(Exists(is_admin), Exists(for_admins)) | Q(Exists(grants))


def is_factor_needed(user: User) -> bool:
    """Return whether an admin requires a second factor of this person."""
    return User.objects.filter(needs_factor("pk"), pk=user.pk).exists()


# --- authenticator apps ----------------------------------------------------------------------------------------------


def new_totp_secret() -> str:
    """Return a new secret in Base32, as authenticator apps read it."""
    return base64.b32encode(secrets.token_bytes(_TOTP_BYTES)).decode()


def totp_address(user: User, secret: str) -> str:
    """Return the otpauth:// address that an authenticator app reads from a QR code."""
    issuer = f"Gravingdock {urlsplit(settings.PUBLIC_URL).hostname}"
    query = urlencode({"secret": secret, "issuer": issuer}, quote_via=quote)
    return f"otpauth://totp/{quote(f'{issuer}:{user.username}')}?{query}"


def totp_code(secret: str, step: int) -> str:
    """Return the code of a time step (RFC 6238): six digits."""
    key = base64.b32decode(secret)
    # SHA-1 is what the RFC prescribes and what every app does. HMAC does not need a hash without collisions.
    return HOTP(key, _DIGITS, SHA1(), enforce_key_length=False).generate(step).decode()  # noqa: S303 -- as above


def step_of_code(secret: str, code: str) -> int | None:
    """Return the time step that a code belongs to now, or None for a wrong one."""
    now = int(clock.now().timestamp()) // _STEP_S
    found = None
    for step in range(now - _DRIFT, now + _DRIFT + 1):
        if secrets.compare_digest(totp_code(secret, step).encode(), code.encode()):
            found = step  # no early end: the time must not tell which step it was
    return found


def use_code(user: User, text: str) -> str:
    """Use up a code of the person's app, or a recovery code; return its kind (`totp`, `recovery`), "" when wrong."""
    code = _plain(text)
    if not code or not code.isascii() or len(code) > 40:
        return ""
    if is_of_app(text):
        return "totp" if _use_totp(user, code) else ""
    used = RecoveryCode.objects.filter(user=user, secret_sha256=_hashed(code), used_at=None).update(used_at=clock.now())
    return "recovery" if used else ""


def is_of_app(text: str) -> bool:
    """Return whether a code is one of an authenticator app by its form, and not a recovery code."""
    code = _plain(text)
    return code.isascii() and code.isdigit() and len(code) == _DIGITS


def _plain(text: str) -> str:
    return "".join(text.split()).replace("-", "").upper()


def _use_totp(user: User, code: str) -> bool:
    row = TotpSecret.objects.filter(user=user).first()
    step = step_of_code(totp_secret(row), code) if row is not None else None
    if row is None or step is None:
        return False
    rows = TotpSecret.objects.filter(pk=row.pk, last_step__lt=step)
    if not rows.update(last_step=step, last_used_at=clock.now()):
        return False
    resets.end_by_factor(user, since=row.created_at)
    return True


def totp_secret(row: TotpSecret) -> str:
    """Return the secret of a row in Base32. Raises `sealing.Unreadable` without its key."""
    return sealing.unseal(bytes(row.secret_sealed), row, "secret_sealed")


# --- recovery codes --------------------------------------------------------------------------------------------------


def write_recovery_codes(user: User) -> list[str]:
    """Replace the person's recovery codes, and return the new ones: `ABCD-EFGH-IJKL-MNOP`. Each is shown once."""
    RecoveryCode.objects.filter(user=user).delete()
    codes = [base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode() for _ in range(RECOVERY_CODES)]
    RecoveryCode.objects.bulk_create(RecoveryCode(user=user, secret_sha256=_hashed(code)) for code in codes)
    return ["-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP)) for code in codes]


def _hashed(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()


# --- passkeys --------------------------------------------------------------------------------------------------------


def rp_id() -> str:
    """Return the name that passkeys belong to: the host of PUBLIC_URL."""
    return urlsplit(settings.PUBLIC_URL).hostname or ""


def why_no_passkeys() -> str:
    """Return why browsers refuse passkeys for this site, as one sentence; "" if they do not."""
    try:
        ip_address(rp_id())
    except ValueError:
        return ""
    return "Browsers refuse passkeys for an IP address. Set PUBLIC_URL to a host name, for example localhost."


def _server() -> Fido2Server:
    host = rp_id()
    server = Fido2Server(
        PublicKeyCredentialRpEntity(id=host, name="Gravingdock"),
        verify_origin=lambda origin: is_origin_of(host, origin, settings.PUBLIC_URL),
    )
    kind = PublicKeyCredentialType.PUBLIC_KEY
    server.allowed_algorithms = [PublicKeyCredentialParameters(type=kind, alg=alg) for alg in _ALGORITHMS]
    return server


def begin_passkey(user: User) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (options for `navigator.credentials.create`, state that `finish_passkey` needs). Bytes are base64url."""
    known = [{"type": "public-key", "id": bytes(row.credential_id)} for row in Passkey.objects.filter(user=user)]
    options, state = _server().register_begin(
        PublicKeyCredentialUserEntity(id=f"gd-{user.pk}".encode(), name=user.username, display_name=user.username),
        credentials=known or None,  # type: ignore[arg-type]  # it also takes plain descriptors
        resident_key_requirement=ResidentKeyRequirement.PREFERRED,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return dict(options), {"challenge": state["challenge"], "user_verification": "required", "at": time.time()}


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A credential that a browser made: id, SubjectPublicKeyInfo in DER, and its counter."""

    credential_id: bytes
    public_key: bytes
    sign_count: int


def finish_passkey(state: Mapping[str, Any], response: Any) -> NewPasskey:
    """Return the new credential, if it answers the challenge in `state`; raises Malformed."""
    try:
        data = _server().register_complete(state, RegistrationResponse.from_dict(response))
        found = data.credential_data
        if found is None:
            raise ValueError("no credential")
        return NewPasskey(bytes(found.credential_id), _spki(found.public_key), data.counter)
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise Malformed("The browser's passkey cannot be used. Try again, or use another authenticator.") from error


def _spki(key: CoseKey) -> bytes:
    """Return a COSE key (RFC 9052) as SubjectPublicKeyInfo in DER. Raises ValueError for other algorithms."""
    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
    if key.ALGORITHM == ES256.ALGORITHM and key[-1] == 1:
        x, y = int.from_bytes(key[-2], "big"), int.from_bytes(key[-3], "big")
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    elif key.ALGORITHM == EdDSA.ALGORITHM and key[-1] == 6:
        public = ed25519.Ed25519PublicKey.from_public_bytes(key[-2])
    elif key.ALGORITHM == RS256.ALGORITHM:
        public = rsa.RSAPublicNumbers(int.from_bytes(key[-2], "big"), int.from_bytes(key[-1], "big")).public_key()
    else:
        raise ValueError("unsupported key")
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def request_options(user: User, challenge: bytes) -> dict[str, Any]:
    """Return options for `navigator.credentials.get`, with any passkey of the person. Bytes are base64url."""
    known = [
        {"type": "public-key", "id": websafe_encode(bytes(row.credential_id))}
        for row in Passkey.objects.filter(user=user)
    ]
    return {
        "publicKey": {
            "challenge": websafe_encode(challenge),
            "rpId": rp_id(),
            "allowCredentials": known,
            "userVerification": "required",
        }
    }


def use_passkey(user: User, response: Any, *, challenge: bytes) -> tuple[Passkey, Assertion]:
    """Return the passkey of the person that signed `challenge`, with what it signed. Raises BadAssertion.

    A counter that does not grow means that the authenticator was copied: the assertion is refused.
    """
    try:
        given = AuthenticationResponse.from_dict(response)
        credential, parts = bytes(given.raw_id), given.response
        client_data, data = bytes(parts.client_data), bytes(parts.authenticator_data)
        signature = bytes(parts.signature)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadAssertion("The browser's response cannot be read.") from error
    row = Passkey.objects.filter(user=user, credential_id=credential).first()
    if row is None:
        raise BadAssertion("The passkey does not belong to this account.")
    assertion = Assertion(bytes(row.public_key), data, client_data, signature)
    verify(assertion, challenge=challenge, rp_id=rp_id(), site=settings.PUBLIC_URL)
    changed = Passkey.objects.filter(pk=row.pk)
    if assertion.counter or row.sign_count:
        changed = changed.filter(sign_count__lt=assertion.counter)
    if not changed.update(sign_count=assertion.counter, last_used_at=clock.now()):
        raise BadAssertion("The counter of the passkey did not grow: it may have been copied.")
    resets.end_by_factor(user, since=row.created_at)
    return row, assertion
