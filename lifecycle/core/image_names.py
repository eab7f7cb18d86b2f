"""Names of images as people and machines write them: `nginx`, `host:5000/team/app:v1`, `app@sha256:...`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lifecycle.core.errors import MalformedDigest, MalformedReference
from lifecycle.core.types import Digest, parse_repository_name, parse_tag

DOCKER_HUB: Final = "docker.io"
_HUB_NAMES: Final = frozenset({"index.docker.io", "registry-1.docker.io"})
_SCHEME: Final = re.compile(r"[a-z][a-z0-9-]*://")
_BARE: Final = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class ImageName:
    """An image name with nothing left out. A digest wins over a tag."""

    host: str  # with its port: "registry.example.com:5000"
    repository: str
    tag: str  # "latest" when the text has neither tag nor digest
    digest: str  # "" without one

    @property
    def place(self) -> str:
        """`host/repository`."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.place}{tag}{'@' if self.digest else ''}{self.digest}"


def parse_image_name(text: str) -> ImageName:
    """Return `text` with host, repository, tag and digest; raises MalformedReference.

    The first part is a host only with a dot, a colon, or as `localhost`. Without one it is Docker Hub, whose official
    images are in `library/` (distribution/reference, normalize.go).
    """
    rest, _, digest = text.partition("@")
    if digest:
        try:
            Digest.parse(digest)
        except MalformedDigest:
            raise MalformedReference("The digest of the image name is invalid.", got=text[:150]) from None
    elif "@" in text:
        raise MalformedReference("The image name ends with @ and has no digest.", got=text[:150])
    first, slash, after = rest.partition("/")
    host = DOCKER_HUB
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, rest = first, after
    if host in _HUB_NAMES:
        host = DOCKER_HUB
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    elif not tag:
        raise MalformedReference("The image name ends with a colon and has no tag.", got=text[:150])
    if host == DOCKER_HUB and "/" not in name:
        name = f"library/{name}"
    if tag:
        parse_tag(tag)
    return ImageName(host.lower(), parse_repository_name(name), tag or ("" if digest else "latest"), digest)


def digest_in(text: str) -> str:
    """Return the digest in what a container runtime calls an image; "" without one.

    Nodes report `host/name@sha256:...`, `docker-pullable://...@sha256:...`, `sha256:...`, or 64 hex digits alone. The
    last two are the digest of the configuration.
    """
    bare = _SCHEME.sub("", text.strip(), count=1).rpartition("@")[2]
    if _BARE.fullmatch(bare):
        bare = f"sha256:{bare}"
    try:
        return Digest.parse(bare).text
    except MalformedDigest:
        return ""
