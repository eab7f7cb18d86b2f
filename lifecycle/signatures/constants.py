"""Media types, predicate types and limits of signatures and attestations."""

from __future__ import annotations

from typing import Final

MIB: Final = 1024 * 1024

BUNDLE_MAX_BYTES: Final = 64 * MIB  # a bundle or an envelope: its payload can be an SBOM
STATEMENT_SUBJECTS_MAX: Final = 1024  # in-toto: at least one subject, at most this many for us
JSON_DEPTH_MAX: Final = 100
TIMESTAMPS_MAX: Final = 32  # of one signature, as in sigstore-go
PATTERN_MAX: Final = 500  # characters of a pattern for identities
CERTIFICATES_MAX: Final = 10  # of one chain
RSA_BITS_MIN: Final = 2048

IN_TOTO: Final = "application/vnd.in-toto+json"  # payload type of an envelope
DSSE_ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
BUNDLE_V01: Final = "application/vnd.dev.sigstore.bundle+json;version=0.1"
BUNDLE_V02: Final = "application/vnd.dev.sigstore.bundle+json;version=0.2"
BUNDLE_V03_OLD: Final = "application/vnd.dev.sigstore.bundle+json;version=0.3"
BUNDLE_V03: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_TYPES: Final = frozenset({BUNDLE_V01, BUNDLE_V02, BUNDLE_V03_OLD, BUNDLE_V03})
SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
NOTATION_ARTIFACT: Final = "application/vnd.cncf.notary.signature"
NOTATION_JWS: Final = "application/jose+json"
NOTATION_COSE: Final = "application/cose"
NOTATION_PAYLOAD: Final = "application/vnd.cncf.notary.payload.v1+json"

STATEMENT_TYPES: Final = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
STATEMENT_V1: Final = "https://in-toto.io/Statement/v1"

COSIGN_SIGN: Final = "https://sigstore.dev/cosign/sign/v1"  # the statement that `cosign sign` v3 writes
PROVENANCE_V1: Final = "https://slsa.dev/provenance/v1"
PROVENANCE_V02: Final = "https://slsa.dev/provenance/v0.2"
VSA: Final = "https://slsa.dev/verification_summary/v1"
OPENVEX: Final = "https://openvex.dev/ns"  # `cosign verify-attestation --type openvex`
CYCLONEDX: Final = "https://cyclonedx.org/bom"  # `cosign verify-attestation --type cyclonedx`

# Annotations of cosign on the layers of `.sig` and `.att` manifests.
SIGNATURE_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
CERTIFICATE_ANNOTATION: Final = "dev.sigstore.cosign/certificate"
CHAIN_ANNOTATION: Final = "dev.sigstore.cosign/chain"
LOG_ANNOTATION: Final = "dev.sigstore.cosign/bundle"
TIMESTAMP_ANNOTATION: Final = "dev.sigstore.cosign/rfc3161timestamp"
