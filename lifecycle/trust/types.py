"""Trusted sources as users write them, and what was found about an image in a registry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography.x509 import Certificate

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest
from lifecycle.signatures.keys import VerifyingKey, load_public_key
from lifecycle.signatures.notation import load_anchors
from lifecycle.signatures.roots import TrustedRoot, parse_trusted_root, shipped_root
from lifecycle.signatures.types import IdentityRule, compile_pattern
from lifecycle.trust.constants import PLACES_MAX, SIGNERS_MAX

_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PLACE: Final = re.compile(r"[A-Za-z0-9.*_:-]+(?:/[a-z0-9._*-]+)+")
_SIGNER_FIELDS: Final = {
    "key": ("pem",),
    "keyless": ("issuer", "subject", "is_pattern", "trusted_root"),
    "notation": ("pem", "subject"),
}


@dataclass(frozen=True, slots=True)
class SignerSpec:
    """One signer of a source, checked. `fingerprint` names everything that decides what it matches."""

    kind: str
    name: str
    pem: str
    issuer: str
    subject: str
    is_pattern: bool
    trusted_root: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A trusted source as a page, the API or a file gives it, checked."""

    name: str
    description: str
    places: tuple[str, ...]
    is_site_wide: bool
    teams: tuple[str, ...]
    needs_signature: bool
    valid_from: datetime | None
    signers: tuple[SignerSpec, ...]


def parse_source(value: Mapping[str, Any]) -> SourceSpec:
    """Return the source in a JSON object; raises Malformed, with the field in the message."""
    known = set(SourceSpec.__dataclass_fields__)
    unknown = sorted(set(value) - known)
    if unknown:
        raise Malformed(f"A trusted source has no field {unknown[0][:60]!r}.")
    name = _text(value, "name", 60)
    if not _NAME.fullmatch(name):
        raise Malformed("name: use lower-case letters, digits and single hyphens.", field="name")
    places = _texts(value, "places", PLACES_MAX)
    if not places:
        raise Malformed("places: enter at least one, such as docker.io/library/*.", field="places")
    for place in places:
        if len(place) > 300 or not _PLACE.fullmatch(place):
            raise Malformed(
                f"places: {place[:100]!r} is not <registry>/<repository>, in which * matches any text.", field="places"
            )
    teams = _texts(value, "teams", 1000)
    is_site_wide = _flag(value, "is_site_wide", False)
    if is_site_wide == bool(teams):
        raise Malformed("Choose either all teams (is_site_wide) or some teams.", field="teams")
    raw = value.get("signers") or []
    if not isinstance(raw, list) or len(raw) > SIGNERS_MAX or not all(isinstance(entry, Mapping) for entry in raw):
        raise Malformed(f"signers: use a list of at most {SIGNERS_MAX} objects.")
    signers = tuple(parse_signer(entry) for entry in raw)
    if len({signer.fingerprint for signer in signers}) != len(signers):
        raise Malformed("signers: the same signer stands twice.")
    needs_signature = _flag(value, "needs_signature", True)
    if needs_signature and not signers:
        raise Malformed("signers: name at least one, or turn needs_signature off.")
    return SourceSpec(
        name, _text(value, "description", 300, ""), places, is_site_wide, teams, needs_signature,
        _moment(value.get("valid_from")), signers,
    )  # fmt: skip


def parse_signer(value: Mapping[str, Any]) -> SignerSpec:
    """Return one signer of a source; raises Malformed."""
    kind = _text(value, "kind", 10)
    if kind not in _SIGNER_FIELDS:
        raise Malformed("signers: kind is key, keyless or notation.")
    unknown = sorted(set(value) - {"kind", "name", *_SIGNER_FIELDS[kind]})
    if unknown:
        raise Malformed(f"signers: a signer of kind {kind} has no field {unknown[0][:60]!r}.")
    pem = _text(value, "pem", 64 * 1024, "").strip() if kind != "keyless" else ""
    issuer, subject = _text(value, "issuer", 500, ""), _text(value, "subject", 500, "")
    is_pattern = _flag(value, "is_pattern", False)
    trusted_root = _text(value, "trusted_root", 1024 * 1024, "")
    if kind == "key":
        fingerprint = load_public_key(pem).fingerprint
    elif kind == "notation":
        load_anchors(pem)
        fingerprint = Digest.of(f"{pem}\0{subject}".encode()).text
    else:
        if not issuer or not subject:
            raise Malformed("signers: a keyless identity needs its issuer and its subject.")
        if is_pattern:
            _check_pattern(subject)
        if trusted_root:
            parse_trusted_root(trusted_root)
        fingerprint = Digest.of(f"{issuer}\0{subject}\0{is_pattern}\0{trusted_root}".encode()).text
    return SignerSpec(kind, _text(value, "name", 100, ""), pem, issuer, subject, is_pattern, trusted_root, fingerprint)


def _check_pattern(subject: str) -> None:
    """Raise Malformed for a pattern that does not say whose identities it covers."""
    compile_pattern(subject)
    start, _, rest = subject.partition("://")
    fixed = (rest or start).lstrip("*@")
    if len(fixed.split("*")[0].strip("/@.")) < 3:
        raise Malformed("signers: a pattern must begin with a host, or end with @ and a domain.")


def _text(value: Mapping[str, Any], key: str, limit: int, default: str | None = None) -> str:
    found = value.get(key, default)
    if not isinstance(found, str) or len(found) > limit or "\0" in found:
        raise Malformed(f"{key}: use a text of at most {limit} characters.", field=key)
    return found


def _texts(value: Mapping[str, Any], key: str, limit: int) -> tuple[str, ...]:
    found = value.get(key) or []
    if not isinstance(found, Sequence) or isinstance(found, str) or not all(isinstance(each, str) for each in found):
        raise Malformed(f"{key}: use a list of texts.", field=key)
    if len(found) > limit:
        raise Malformed(f"{key}: use at most {limit}.", field=key)
    return tuple(dict.fromkeys(each.strip() for each in found if each.strip()))


def _flag(value: Mapping[str, Any], key: str, default: bool) -> bool:
    found = value.get(key, default)
    if not isinstance(found, bool):
        raise Malformed(f"{key}: use true or false.")
    return found


def _moment(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return value
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise Malformed("valid_from: use a time such as 2026-12-01T00:00:00Z.") from None
    if moment.tzinfo is None:
        raise Malformed("valid_from: add the time zone, such as Z.")
    return moment


@dataclass(frozen=True, slots=True)
class Candidate:
    """A signer of a source, ready to verify. Exactly the fields of its kind are set."""

    signer_id: int
    key: VerifyingKey | None = None
    rule: IdentityRule | None = None
    root: TrustedRoot | None = None
    anchors: tuple[Certificate, ...] = ()
    subject: str = ""

    @classmethod
    def of(cls, signer_id: int, spec: Mapping[str, Any]) -> Candidate:
        """Return the candidate of a stored signer; raises SignatureRefused when it cannot be read any more."""
        if spec["kind"] == "key":
            return cls(signer_id, key=load_public_key(spec["pem"]))
        if spec["kind"] == "notation":
            return cls(signer_id, anchors=tuple(load_anchors(spec["pem"])), subject=spec["subject"])
        root = parse_trusted_root(spec["trusted_root"]) if spec["trusted_root"] else shipped_root()
        return cls(signer_id, rule=IdentityRule(spec["issuer"], spec["subject"], spec["is_pattern"]), root=root)


@dataclass(frozen=True, slots=True)
class Claim:
    """What we attest about an image: a predicate of in-toto."""

    predicate_type: str
    predicate: bytes  # JSON
    about: str = ""  # what tells it from others of its type, as `about_of` reads it in the predicate

    @classmethod
    def of(cls, predicate_type: str, predicate: Mapping[str, Any]) -> Claim:
        return cls(predicate_type, json.dumps(predicate, separators=(",", ":")).encode(), about_of(predicate))


def about_of(predicate: Any) -> str:
    """Return what a predicate of ours is about: its promotion, for an SBOM its serial number, for OpenVEX its name."""
    if not isinstance(predicate, dict):
        return ""
    policy = predicate.get("policy")
    uri = policy.get("uri") if isinstance(policy, dict) else None
    return str(predicate.get("promotion") or predicate.get("serialNumber") or predicate.get("@id") or uri or "")


def is_sbom(predicate_type: str) -> bool:
    """Return whether a predicate is an SBOM: CycloneDX or SPDX, with or without a version in its type."""
    return predicate_type.lower().startswith(("https://cyclonedx.org/bom", "https://spdx.dev/document"))


@dataclass(frozen=True, slots=True)
class Document:
    """One signature or attestation as a registry holds it. Nothing is verified yet."""

    format: str  # as Signature.Format
    content: bytes
    manifest_digest: str
    object_digest: str
    position: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""  # why the content could not be read; "" when it is there


@dataclass(frozen=True, slots=True)
class Judged:
    """What one document says, and who proved it."""

    document: Document
    state: str  # as Signature.State
    reason: str = ""
    signer_ids: tuple[int, ...] = ()
    predicate_type: str = ""
    predicate: Any = None
    size_bytes: int = 0
    key_fingerprint: str = ""
    identity: str = ""
    issuer: str = ""
    signed_at: datetime | None = None
    builder_id: str = ""
    source_uri: str = ""
    base_digests: tuple[str, ...] = ()  # images that a verified provenance names as its materials
