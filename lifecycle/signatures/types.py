"""What was verified, and by whom it was signed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest
from lifecycle.signatures.constants import MIB, PATTERN_MAX

_CHUNK: Final = MIB
_CONTENT_MAX: Final = 256 * MIB  # a larger file is verified by its digests only


class SignatureRefused(Malformed):
    """A signature does not verify, for the reason in the message."""

    code: ClassVar[str] = "signature_refused"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed: a key by its fingerprint, or a certificate's identity with the issuer that vouches for it."""

    key_fingerprint: str = ""  # "sha256:<hex>" of the public key (SPKI, DER)
    identity: str = ""  # e-mail address or URI of the certificate; of notation: its subject
    issuer: str = ""  # OIDC issuer of a keyless certificate

    def __str__(self) -> str:
        if self.identity:
            return f"{self.identity} ({self.issuer})" if self.issuer else self.identity
        return f"key {self.key_fingerprint[:19]}"


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """Which keyless identities count: the issuer exactly, and the subject exactly or by a pattern over all of it."""

    issuer: str
    subject: str
    is_pattern: bool = False

    def matches(self, signer: Signer) -> bool:
        """Return whether this rule covers the signer. A pattern must match the whole identity, never a part of it."""
        if not signer.identity or not signer.issuer or signer.issuer != self.issuer:
            return False
        if self.is_pattern:
            return compile_pattern(self.subject).fullmatch(signer.identity) is not None
        return signer.identity == self.subject


def compile_pattern(text: str) -> re.Pattern[str]:
    """Return a pattern for whole identities: `*` is any text without `/`, `@` and spaces, `**` any text without spaces.

    No regular expression: an anchor that somebody forgot, or a dot that matches everything, lets in strangers, and some
    expressions take forever. Raises Malformed.
    """
    if len(text) > PATTERN_MAX or not text.strip():
        raise Malformed(f"A pattern has 1 to {PATTERN_MAX} characters.")
    parts = re.split(r"(\*{1,2})", text)
    if sum(part.startswith("*") for part in parts) > 5:
        raise Malformed("A pattern has at most five stars.")
    return re.compile("".join({"*": r"[^/@\s]*", "**": r"\S*"}.get(part, re.escape(part)) for part in parts))


@dataclass(frozen=True, slots=True)
class Statement:
    """An in-toto statement, parsed from exactly the bytes that were signed."""

    predicate_type: str
    subjects: tuple[Mapping[str, str], ...]  # digests by algorithm, one mapping per subject
    predicate: Any

    def names(self, digest: str) -> bool:
        """Return whether a subject has this digest, `<algorithm>:<value>`. Names of subjects are advice only."""
        algorithm, _, value = digest.partition(":")
        return any(subject.get(algorithm) == value for subject in self.subjects)


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a successful verification."""

    signer: Signer
    signed_at: datetime | None = None  # proven by a log or a time stamp
    statement: Statement | None = None  # of an envelope with an in-toto payload
    payload: bytes = b""  # the signed bytes of an envelope or a simple signing payload
    annotations: Mapping[str, str] = field(default_factory=dict)  # what the signer added, simple values only


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a signature is about: a file, or only its digest."""

    digests: Mapping[str, bytes]  # by hashlib's name; sha256 is always there
    content: bytes | None = None

    @classmethod
    def of(cls, content: bytes) -> Self:
        return cls({name: hashlib.new(name, content).digest() for name in _ALGORITHMS}, content)

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read a file once, in parts. Raises OSError."""
        hashers = {name: hashlib.new(name) for name in _ALGORITHMS}
        size, kept = 0, bytearray()
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                for hasher in hashers.values():
                    hasher.update(chunk)
                if size <= _CONTENT_MAX:
                    kept += chunk
        digests = {name: hasher.digest() for name, hasher in hashers.items()}
        return cls(digests, bytes(kept) if size <= _CONTENT_MAX else None)

    @classmethod
    def of_digest(cls, digest: Digest) -> Self:
        return cls({digest.algorithm: bytes.fromhex(digest.encoded)})

    @property
    def digest(self) -> Digest:
        """The digest by which statements name it."""
        algorithm = "sha256" if "sha256" in self.digests else next(iter(self.digests))
        return Digest(f"{algorithm}:{self.digests[algorithm].hex()}")


_ALGORITHMS: Final = ("sha256", "sha384", "sha512")
