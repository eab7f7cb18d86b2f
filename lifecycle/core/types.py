"""Small frozen types for input from outside, parsed once where the input arrives."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from lifecycle.core.errors import MalformedDigest, MalformedReference

# The algorithms we accept, as registered in the OCI image-spec, descriptor.md.
_DIGEST: Final = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
# OCI distribution-spec, "Pulling manifests": <name> and <reference> as a tag.
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# Fallback tags of the referrers API and cosign's legacy tags. They belong to another manifest, their subject. Other
# tags can end in a hash too, such as `deps-<sha256 of a lock file>`.
_REFERRER_TAG: Final = re.compile(r"(?:sha256|sha512)-[a-f0-9]{64}(?:\.(?:sig|att|sbom))?")

REPOSITORY_NAME_MAX: Final = 255  # characters, host included: distribution-spec


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest of a content. Unlike a tag, it always refers to the same content."""

    text: str  # "<algorithm>:<lower-case hex>", as in a manifest

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return `text` as a digest; raises MalformedDigest."""
        if not _DIGEST.fullmatch(text):  # not match() with "$", which accepts a trailing newline
            raise MalformedDigest("Invalid digest. Use sha256:<64 hex> or sha512:<128 hex>.", got=text[:150])
        return cls(text)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return the sha256 digest of `content`."""
        return cls("sha256:" + hashlib.sha256(content).hexdigest())

    @property
    def algorithm(self) -> str:
        return self.text.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The hex part."""
        return self.text.partition(":")[2]

    def __str__(self) -> str:
        return self.text


def parse_repository_name(text: str) -> str:
    """Return `text` if it is a repository name of the distribution-spec; raises MalformedReference otherwise."""
    if len(text) > REPOSITORY_NAME_MAX or not _REPOSITORY.fullmatch(text):
        raise MalformedReference(
            "Invalid repository name. Use lower-case letters and digits, with single . _ - / between them.",
            got=text[:150],
        )
    return text


def parse_tag(text: str) -> str:
    """Return `text` if it is a tag of the distribution-spec; raises MalformedReference otherwise."""
    if not _TAG.fullmatch(text):
        raise MalformedReference(
            "Invalid tag. Use up to 128 letters, digits, _ . or -. The first must not be . or -.", got=text[:150]
        )
    return text


def is_referrer_tag(tag: str) -> bool:
    """Return whether `tag` only contains the referrers or signatures of another manifest."""
    return _REFERRER_TAG.fullmatch(tag) is not None


def subject_of_tag(tag: str) -> str:
    """Return the digest of the manifest that a referrer tag belongs to; "" when the tag is another one, or cut off."""
    algorithm, _, rest = tag.partition("-")
    text = f"{algorithm}:{rest.partition('.')[0]}"
    return text if is_referrer_tag(tag) and _DIGEST.fullmatch(text) else ""
