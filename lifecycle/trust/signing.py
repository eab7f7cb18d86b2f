"""Our own signatures: keys made by an admin, and what we attach to an image that was promoted.

A key is used in one place only (`sign_image`), in a worker. A private key that is stored here never leaves it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from django.db import transaction
from django.db.models import Q

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import SigningKeyDetails
from lifecycle.core import clock, sealing
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.types import Digest
from lifecycle.oci.attaching import add_signature_layer, attach_referrer
from lifecycle.oci.client import RegistryClient
from lifecycle.signatures.bundles import parse_bundle, verify_with_key
from lifecycle.signatures.constants import (
    BUNDLE_MAX_BYTES,
    BUNDLE_V03,
    COSIGN_SIGN,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING,
)
from lifecycle.signatures.cosign import LegacySignature, verify_legacy_with_key
from lifecycle.signatures.keys import load_public_key
from lifecycle.signatures.making import (
    KeySigner,
    LocalSigner,
    load_private_key,
    make_bundle,
    make_simple_signature,
    make_statement,
    new_private_key,
    private_pem,
    public_pem,
)
from lifecycle.signatures.types import Artifact, SignatureRefused
from lifecycle.trust.constants import KEYS_ACTIVE_MAX
from lifecycle.trust.models import SigningKey
from lifecycle.trust.signers import SignerRefused, signer_at
from lifecycle.trust.types import Claim, about_of
from lifecycle.trust.verifying import iter_documents

_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")  # also in the name of a variable: signers.variable_of
_TEST_MESSAGE: Final = b"Gravingdock tests whether this key signs."  # neither an envelope nor a payload of cosign
_CONTENT: Final = "dev.sigstore.bundle.content"
_PREDICATE_TYPE: Final = "dev.sigstore.bundle.predicateType"
_CREATED: Final = "org.opencontainers.image.created"


def create_key(name: str, *, actor: User, pem: bytes = b"", password: str = "") -> SigningKey:
    """Create a signing key, or import the one in `pem`. It signs from now on, beside the former one until that retires.

    Only an admin can. Raises NotPermitted, Malformed, SignatureRefused for a PEM of another kind, or Conflict.
    """
    refuse_if(why_not_manage_keys(actor))
    key = load_private_key(pem, password) if pem else new_private_key()
    return _add(name, LocalSigner(key), private=private_pem(key), uri="", actor=actor)


def register_key(name: str, uri: str, *, actor: User) -> SigningKey:
    """Register the key at `uri`, which stays where it is. It signs from now on, as with `create_key`.

    Reads its public key and signs a test message, so call it outside a transaction. Raises what `create_key` raises,
    SignerUnavailable, and SignerRefused when it may not sign.
    """
    refuse_if(why_not_manage_keys(actor))
    _check_name(name)
    signer = signer_at(uri, name)
    signer.sign(_TEST_MESSAGE)  # who may read a key need not be allowed to sign: better known now than in a promotion
    return _add(name, signer, private="", uri=uri, actor=actor)


@transaction.atomic
def _add(name: str, signer: KeySigner, *, private: str, uri: str, actor: User) -> SigningKey:
    _check_name(name)
    public = public_pem(signer.public_key)
    fingerprint = load_public_key(public).fingerprint
    active = list(SigningKey.objects.select_for_update().filter(retired_at=None).order_by("name"))
    if len(active) >= KEYS_ACTIVE_MAX:
        names = " and ".join(row.name for row in active)
        raise Conflict(f"{names} are active already. Retire one of them first.")
    if SigningKey.objects.filter(Q(name=name) | Q(fingerprint=fingerprint)).exists():
        raise Conflict("There is already a signing key with this name, or the same key.")
    row = SigningKey.objects.create(name=name, public_key=public, fingerprint=fingerprint, uri=uri, created_by=actor)
    row.private_sealed = sealing.seal(private, row, "private_sealed")
    row.save(update_fields=["private_sealed"])
    details = SigningKeyDetails(key=name, fingerprint=fingerprint)
    audit.record(Action.SIGNING_KEY_CREATED, actor=actor, subject=row, details=details)
    return row


def _check_name(name: str) -> None:
    if len(name) > 60 or not _NAME.fullmatch(name):
        raise Malformed("name: use lower-case letters, digits and single hyphens.", field="name")
    if name == "password" or name.endswith("-password"):
        raise Malformed("name: a variable with this name would be a password (SIGNING_KEY_PASSWORD).", field="name")


@transaction.atomic
def retire_key(name: str, *, actor: User, reason: str = "") -> SigningKey:
    """Retire a signing key: it signs no longer, and its private part here is deleted.

    Raises NotPermitted, NotFound, or Conflict when it is retired already.
    """
    refuse_if(why_not_manage_keys(actor))
    row = SigningKey.objects.select_for_update().get(pk=signing_key(name).pk)
    if row.retired_at is not None:
        raise Conflict("This signing key is already retired.")
    row.retired_at, row.private_sealed = clock.now(), b""
    row.save(update_fields=["retired_at", "private_sealed"])
    details = SigningKeyDetails(key=name, fingerprint=row.fingerprint)
    audit.record(Action.SIGNING_KEY_RETIRED, actor=actor, subject=row, reason=reason, details=details)
    return row


def why_not_manage_keys(actor: User) -> Reason | None:
    """Return why `actor` cannot create or retire signing keys; None when they can."""
    if actor.is_active and actor.is_superuser:
        return None
    return Reason("Only an admin can manage signing keys. Ask an admin.")


def signing_key(name: str) -> SigningKey:
    """Return a signing key, retired or not: their public parts are for everybody who signs in. Raises NotFound."""
    row = SigningKey.objects.select_related("created_by").filter(name=name).first()
    if row is None:
        raise NotFound("There is no such signing key.")
    return row


def active_keys() -> list[SigningKey]:
    """Return the keys that sign now, the newest first; empty when nothing is signed."""
    return list(SigningKey.objects.filter(retired_at=None).order_by("-created_at", "-pk"))


def sign_image(
    client: RegistryClient,
    repository: str,
    digest: Digest,
    *,
    key: SigningKey,
    reference: str,
    claims: Sequence[Claim],
    alive: Callable[[], None],
) -> int:
    """Attach the key's signature and `claims` to an image; return how many were new.

    The signature is a bundle and a `.sig` tag by the same key, because older tools read only the tag. What the key has
    signed here before is not signed again, so a worker can be killed and start anew. `reference` is
    `<registry>/<repository>`. Raises RegistryUnavailable, RegistryRefused, and of their kinds SignerUnavailable and
    SignerRefused.
    """
    signer = _signer(key)
    top = client.get_manifest(repository, digest.text)
    present = _signed_before(client, repository, top.digest, key, alive)
    made = 0
    for claim in (Claim(COSIGN_SIGN, b"{}"), *claims):
        alive()
        if (claim.predicate_type, claim.about) in present:
            continue
        bundle = make_bundle(signer, make_statement(digest, claim.predicate_type, claim.predicate))
        annotations = {
            _CREATED: clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            _CONTENT: "dsse-envelope",
            _PREDICATE_TYPE: claim.predicate_type,
        }
        attach_referrer(client, repository, top, bundle, artifact_type=BUNDLE_V03, annotations=annotations)
        made += 1
    if ("simplesigning", "") not in present:
        alive()
        payload, signature = make_simple_signature(signer, digest, reference)
        annotations = {SIGNATURE_ANNOTATION: signature}
        add_signature_layer(client, repository, digest, payload, media_type=SIMPLE_SIGNING, annotations=annotations)
        made += 1
    return made


def _signer(key: SigningKey) -> KeySigner:
    """Return what signs with `key`. Raises SignerUnavailable, or SignerRefused for what an operator must fix."""
    try:
        if not key.uri:
            pem = sealing.unseal(bytes(key.private_sealed), key, "private_sealed").encode()
            return LocalSigner(load_private_key(pem))
        signer = signer_at(key.uri, key.name)
    except sealing.Unreadable as error:
        raise SignerRefused(f"The signing key {key} cannot be decrypted with FIELD_KEY. Create a new one.") from error
    except SignatureRefused as error:
        raise SignerRefused(f"The signing key {key} cannot be used. {error.message}") from error
    if load_public_key(public_pem(signer.public_key)).fingerprint != key.fingerprint:
        raise SignerRefused(f"At {key.uri} is another key than {key} was. Register it under a new name.")
    return signer


def _signed_before(
    client: RegistryClient, repository: str, digest: Digest, key: SigningKey, alive: Callable[[], None]
) -> set[tuple[str, str]]:
    """Return (predicate type, what it is about) of all that the key has signed for the image here.

    The signature in the `.sig` tag is ("simplesigning", "").
    """
    verifying, artifact = load_public_key(key.public_key), Artifact.of_digest(digest)
    top = client.get_manifest(repository, digest.text)
    present = set()
    for document in iter_documents(client, repository, top, alive, max_bytes=BUNDLE_MAX_BYTES):
        try:
            if document.format == "bundle":
                statement = verify_with_key(parse_bundle(document.content), verifying, artifact).statement
                if statement is not None:
                    present.add((statement.predicate_type, about_of(statement.predicate)))
            elif document.format == "simplesigning":
                layer = LegacySignature(document.content, document.annotations, is_attestation=False)
                verify_legacy_with_key(layer, verifying, digest)
                present.add(("simplesigning", ""))
        except SignatureRefused:
            continue  # by another key, or of somebody else
    return present
