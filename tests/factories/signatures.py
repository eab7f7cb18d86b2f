"""Signatures of our own making: keys, envelopes, bundles, a small sigstore instance, and notation chains."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lifecycle.signatures.constants import BUNDLE_V01, BUNDLE_V03, IN_TOTO, NOTATION_PAYLOAD
from lifecycle.signatures.dsse import pae

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ISSUER = "https://issuer.example"
IDENTITY = "https://ci.example/shop/api/.github/workflows/release.yml@refs/tags/v1"


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def new_key(kind: str = "P-256") -> PrivateKey:
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.partition(" ")[2] or 2048))
    return ec.generate_private_key({"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}[kind])


def spki(key: Any) -> bytes:
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def pem_of(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, rsa_padding.PKCS1v15(), hashes.SHA256())
    by_size = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    return key.sign(message, ec.ECDSA(by_size[key.curve.key_size]))


def statement(digest: str, predicate_type: str = "https://example.com/p/v1", predicate: Any = None) -> bytes:
    algorithm, _, value = digest.partition(":")
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "x", "digest": {algorithm: value}}],
            "predicateType": predicate_type,
            "predicate": {} if predicate is None else predicate,
        }
    ).encode()


def envelope(key: PrivateKey, payload: bytes, payload_type: str = IN_TOTO) -> dict[str, Any]:
    signature = sign(key, pae(payload_type, payload))
    return {"payload": b64(payload), "payloadType": payload_type, "signatures": [{"sig": b64(signature)}]}


def key_bundle(key: PrivateKey, *, payload: bytes | None = None, content: bytes = b"") -> dict[str, Any]:
    """Return a bundle by `key`: with an envelope over `payload`, else with a message signature over `content`."""
    bundle: dict[str, Any] = {
        "mediaType": BUNDLE_V03,
        "verificationMaterial": {"publicKey": {"hint": b64(hashlib.sha256(spki(key)).digest())}, "tlogEntries": []},
    }
    if payload is not None:
        bundle["dsseEnvelope"] = envelope(key, payload)
    else:
        digest = b64(hashlib.sha256(content).digest())
        bundle["messageSignature"] = {
            "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
            "signature": b64(sign(key, content)),
        }
    return bundle


def simple_signing(digest: str, **changes: Any) -> bytes:
    critical = {
        "identity": {"docker-reference": "registry.example.com/shop/api"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical | changes, "optional": {"env": "prod"}}).encode()


def certificate(
    subject: str,
    key: Any,
    issuer: x509.Certificate | None,
    issuer_key: Any,
    *,
    is_ca: bool = False,
    starts: datetime = T0 - timedelta(days=1),
    ends: datetime = T0 + timedelta(days=3650),
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> x509.CertificateBuilder:
    """Return the builder of a certificate, so that a caller can add to it before `signed`."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer is not None else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    for extension in extensions:
        is_critical = isinstance(extension, x509.SubjectAlternativeName)  # as in certificates without a subject
        builder = builder.add_extension(extension, critical=is_critical)
    return builder


def signed(builder: x509.CertificateBuilder, key: Any) -> x509.Certificate:
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


@dataclass
class Sigstore:
    """A small sigstore instance: certificate authority, certificate transparency log and Rekor v1 log."""

    ca_key: Any = field(default_factory=new_key)
    ct_key: Any = field(default_factory=new_key)
    log_key: Any = field(default_factory=new_key)

    def __post_init__(self) -> None:
        self.ca = signed(certificate("authority", self.ca_key, None, self.ca_key, is_ca=True), self.ca_key)

    def trusted_root(self, **valid_for: str) -> str:
        period = valid_for or {"start": (T0 - timedelta(days=30)).isoformat()}

        def log(key: Any) -> dict[str, Any]:
            return {
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": period},
                "logId": {"keyId": b64(hashlib.sha256(spki(key)).digest())},
            }

        authority = {
            "subject": {"organization": "example", "commonName": "authority"},
            "uri": "https://ca.example",
            "certChain": {"certificates": [{"rawBytes": b64(self.ca.public_bytes(Encoding.DER))}]},
            "validFor": period,
        }
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.log_key)],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self.ct_key)],
                "timestampAuthorities": [],
            }
        )

    def leaf(
        self, key: Any, *, identity: str = IDENTITY, issuer: str = ISSUER, with_sct: bool = True
    ) -> x509.Certificate:
        """Return a short-lived certificate for `identity`, with the time stamp of the certificate log."""
        issued = issuer.encode()
        extensions = (
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]),
            x509.UnrecognizedExtension(
                x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"), bytes([0x0C, len(issued)]) + issued
            ),
        )
        builder = certificate(
            "", key, self.ca, self.ca_key, starts=T0, ends=T0 + timedelta(minutes=10), extensions=extensions
        )
        precertificate = signed(builder, self.ca_key)
        if not with_sct:
            return precertificate
        value = self._sct_list(precertificate)
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
        return signed(builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False), self.ca_key)

    def _sct_list(self, precertificate: x509.Certificate) -> bytes:
        body = precertificate.tbs_certificate_bytes
        milliseconds = int(T0.timestamp() * 1000)
        data = struct.pack("!BBQH", 0, 0, milliseconds, 1) + hashlib.sha256(spki(self.ca_key)).digest()
        data += struct.pack("!I", len(body))[1:] + body + struct.pack("!H", 0)
        signature = sign(self.ct_key, data)
        sct = struct.pack("!B", 0) + hashlib.sha256(spki(self.ct_key)).digest() + struct.pack("!QH", milliseconds, 0)
        sct += struct.pack("!BBH", 4, 3, len(signature)) + signature  # SHA-256 with ECDSA
        listed = struct.pack("!H", len(sct)) + sct
        listed = struct.pack("!H", len(listed)) + listed
        length = bytes([len(listed)]) if len(listed) < 128 else bytes([0x81, len(listed)])
        return b"\x04" + length + listed  # OCTET STRING

    def body(self, leaf: x509.Certificate, signature: bytes, digest: bytes) -> bytes:
        """Return the body of a log entry of the kind hashedrekord."""
        pem = leaf.public_bytes(Encoding.PEM)
        spec = {
            "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
            "signature": {"content": b64(signature), "publicKey": {"content": b64(pem)}},
        }
        return json.dumps({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec}, sort_keys=True).encode()

    def annotation(self, body: bytes, *, at: datetime = T0 + timedelta(minutes=1)) -> str:
        """Return cosign's log annotation for an entry."""
        payload = {
            "body": b64(body),
            "integratedTime": int(at.timestamp()),
            "logID": hashlib.sha256(spki(self.log_key)).hexdigest(),
            "logIndex": 7,
        }
        promise = sign(self.log_key, json.dumps(payload, sort_keys=True, separators=(",", ":")).encode())
        return json.dumps({"SignedEntryTimestamp": b64(promise), "Payload": payload})

    def bundle(self, content: bytes, *, at: datetime = T0 + timedelta(minutes=1), **leaf: Any) -> dict[str, Any]:
        """Return a keyless bundle of version 0.1, with a promise and no checkpoint."""
        key = new_key()
        made = self.leaf(key, **leaf)
        signature, digest = sign(key, content), hashlib.sha256(content).digest()
        annotation = json.loads(self.annotation(self.body(made, signature, digest), at=at))
        entry = {
            "logIndex": "7",
            "logId": {"keyId": b64(hashlib.sha256(spki(self.log_key)).digest())},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
            "integratedTime": str(annotation["Payload"]["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": annotation["SignedEntryTimestamp"]},
            "canonicalizedBody": annotation["Payload"]["body"],
        }
        rows = [{"rawBytes": b64(made.public_bytes(Encoding.DER))}]
        return {
            "mediaType": BUNDLE_V01,
            "verificationMaterial": {"x509CertificateChain": {"certificates": rows}, "tlogEntries": [entry]},
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
                "signature": b64(signature),
            },
        }


def unpadded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def jws(key: Any, chain: list[x509.Certificate], digest: str, **header: Any) -> dict[str, Any]:
    """Return a notation envelope. `header` changes the protected header; None removes a field."""
    protected: dict[str, Any] = {
        "alg": "ES256",
        "cty": NOTATION_PAYLOAD,
        "crit": ["io.cncf.notary.signingScheme"],
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": T0.isoformat(),
    }
    protected |= header
    protected = {key: value for key, value in protected.items() if value is not None}
    target = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
    payload_text = unpadded(json.dumps({"targetArtifact": target}).encode())
    protected_text = unpadded(json.dumps(protected).encode())
    r, s = decode_dss_signature(sign(key, f"{protected_text}.{payload_text}".encode()))
    certificates = [b64(each.public_bytes(Encoding.DER)) for each in chain]
    return {
        "payload": payload_text,
        "protected": protected_text,
        "header": {"x5c": certificates},
        "signature": unpadded(r.to_bytes(32, "big") + s.to_bytes(32, "big")),
    }


def notation_chain(**root: Any) -> tuple[Any, list[x509.Certificate]]:
    """Return a signer's key, and its chain from the leaf to the self-signed root."""
    root_key, leaf_key = new_key(), new_key()
    anchor = signed(certificate("Example root", root_key, None, root_key, is_ca=True, **root), root_key)
    leaf = signed(certificate("release.example", leaf_key, anchor, root_key), root_key)
    return leaf_key, [leaf, anchor]
