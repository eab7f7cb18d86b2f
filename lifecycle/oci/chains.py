"""Chain ids identify a layer and all layers below it. A prefix test is then one comparison (image-spec, config.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

# Layers without content. Unrelated images contain them, so two images that share only these are not related. They are
# the tar of 1,024 zero bytes and its usual gzip forms, and the 32-byte gzip layer of .NET's images.
TRAPS: Final = frozenset(
    {
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1",
        "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",
    }
)
_STORED_MAX: Final = 71  # characters of a sha256 digest


def chain_ids(layer_ids: Sequence[str | None]) -> list[str]:
    """Return the chain id of every prefix of `layer_ids`, base first: C0 = D0, Cn = sha256("C(n-1) Dn").

    A layer without a known id ends the chain. From there on, the chain ids are "", which matches nothing.
    """
    chain: list[str] = []
    below = ""
    for position, layer_id in enumerate(layer_ids):
        if not layer_id or (position and not below):
            below = ""
        elif not position:
            below = layer_id
        else:
            below = "sha256:" + hashlib.sha256(f"{below} {layer_id}".encode()).hexdigest()
        chain.append(below)
    return chain


def as_stored(chain_id: str) -> str:
    """Return `chain_id`, or "" when it is longer than its column, as for a single layer with a sha512 digest."""
    return chain_id if len(chain_id) <= _STORED_MAX else ""
