"""Keyless bundles of today, verified by the `sigstore` library, offline."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography.x509 import Certificate
from sigstore.errors import Error
from sigstore.hashes import Hashed
from sigstore.models import Bundle as SigstoreBundle
from sigstore.models import TrustedRoot as SigstoreRoot
from sigstore.verify import Verifier
from sigstore_models.common.v1 import HashAlgorithm
from sigstore_models.trustroot.v1 import TrustedRoot as RootDocument

from lifecycle.signatures.bundles import Bundle
from lifecycle.signatures.certificates import identity_of
from lifecycle.signatures.reading import parse_time
from lifecycle.signatures.roots import TrustedRoot
from lifecycle.signatures.timestamps import verify_timestamp
from lifecycle.signatures.types import Artifact, SignatureRefused


class _AnyIdentity:
    """Accepts every certificate with an identity: our caller compares it, with patterns too."""

    def verify(self, cert: Certificate) -> None:
        identity_of(cert)


def verify_bundle(bundle: Bundle, root: TrustedRoot, artifact: Artifact) -> datetime | None:
    """Verify all of a keyless bundle but the identity and the statement's subject; return the time of the signature.

    Raises SignatureRefused.
    """
    try:
        parsed = SigstoreBundle.from_json(bundle.content)
        if bundle.envelope is not None:
            _, payload = _verifier(root.text).verify_dsse(parsed, _AnyIdentity())
            if payload != bundle.envelope.payload:
                raise SignatureRefused("The bundle can be read in two different ways.")
        else:
            if "sha256" not in artifact.digests:
                raise SignatureRefused("Give the content, or its sha256 digest.")
            hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=artifact.digests["sha256"])
            _verifier(root.text).verify_artifact(hashed, parsed, _AnyIdentity())
    except Error as error:
        raise SignatureRefused(f"The bundle does not verify: {str(error)[:300]}") from error
    except (ValueError, TypeError, KeyError) as error:  # from the library's parts, for documents of odd shape
        raise SignatureRefused(f"The bundle cannot be read: {str(error)[:200]}") from error
    entry = bundle.entries[0]
    if entry.promise is not None and entry.integrated_at:
        return datetime.fromtimestamp(entry.integrated_at, tz=UTC)
    if not bundle.timestamps:
        return None
    return verify_timestamp(bundle.timestamps[0], bundle.signature, root.timestamp_authorities)


@lru_cache(maxsize=16)
def _verifier(root_text: str) -> Verifier:
    document = json.loads(root_text)
    for authority in document.get("timestampAuthorities") or []:
        period = authority.get("validFor") or {}
        if period.get("end"):
            # The ends of periods are inclusive (sigstore's protobuf specs). The library takes this one as exclusive.
            end = parse_time(period["end"], "validFor.end") + timedelta(milliseconds=1)
            period["end"] = end.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return Verifier(trusted_root=SigstoreRoot(RootDocument.from_json(json.dumps(document))))
