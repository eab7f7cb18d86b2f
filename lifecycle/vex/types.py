"""A VEX document as typed statements. What cannot be used is kept with its position and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Product:
    """What a statement is about: images by digest, or what a package URL names; and the packages in it.

    Without `digests` and `purl`, it is whatever the document is attached to. Without `packages`, it is all of it.
    """

    digests: tuple[str, ...] = ()  # "sha256:<hex>"; one of them must match
    purl: str = ""
    packages: tuple[str, ...] = ()  # package URLs

    def as_json(self) -> dict[str, object]:
        """Return it without its empty parts."""
        parts = {"digests": list(self.digests), "purl": self.purl, "packages": list(self.packages)}
        return {name: value for name, value in parts.items() if value}


@dataclass(frozen=True, slots=True)
class Said:
    """One statement about one vulnerability."""

    position: str  # in the document: "statements[3]"
    names: tuple[str, ...]  # of the vulnerability; the first one is its main name
    status: str  # one of STATUSES
    justification: str  # one of JUSTIFICATIONS; "" when the text says it
    text: str  # impact, action or notes
    said_at: datetime | None  # None: the document has no time either
    products: tuple[Product, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A statement that cannot be used, and why."""

    position: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A VEX document."""

    format: str  # "openvex", "cyclonedx" or "csaf"
    name: str  # its own id; the next version has the same
    author: str
    version: str
    issued_at: datetime | None
    statements: tuple[Said, ...]
    refused: tuple[Refused, ...]
