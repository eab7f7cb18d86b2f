"""From bytes to a VEX document: the format is recognised, and everything that is too large is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from lifecycle.core.errors import Malformed
from lifecycle.vex import csaf, cyclonedx, openvex
from lifecycle.vex.constants import DEPTH_MAX, DOCUMENT_MAX_BYTES
from lifecycle.vex.types import Parsed

# A text that never ends goes to the end: looking for its end again at each of its quotes took quadratic time.
_TEXTS: Final = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[{}\[\]]")


def load(content: bytes) -> Mapping[str, Any]:
    """Return the JSON object in `content`. Raises Malformed for one that is too large, too deep, or none."""
    if len(content) > DOCUMENT_MAX_BYTES:
        raise Malformed(f"The document is larger than {DOCUMENT_MAX_BYTES // 1024 // 1024} MiB.")
    _check_depth(content)
    try:
        document = orjson.loads(content)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise Malformed(f"The document is not JSON: {str(error)[:200]}.") from None
    if not isinstance(document, dict):
        raise Malformed("The document is not a JSON object.")
    return document


def _check_depth(content: bytes) -> None:
    """Raise Malformed for objects and lists that are nested too deeply, before anything is built from them."""
    depth = 0
    for found in _BRACKETS.finditer(_TEXTS.sub(b"", content)):
        depth += 1 if found[0] in {b"{", b"["} else -1
        if depth > DEPTH_MAX:
            raise Malformed(f"The document is nested deeper than {DEPTH_MAX} levels.")


def parse(content: bytes) -> Parsed:
    """Return the VEX document in `content`. Raises Malformed with the reason why it cannot be used at all."""
    return parse_document(load(content))


def parse_document(document: Mapping[str, Any], *, is_attached: bool = False) -> Parsed:
    """Return a VEX document that is JSON already, in any of the three formats."""
    context = document.get("@context")
    if isinstance(context, str) and context.startswith(openvex.CONTEXT):
        return openvex.parse(document, is_attached=is_attached)
    if document.get("bomFormat") == "CycloneDX":
        return cyclonedx.parse(document, is_attached=is_attached)
    if isinstance(document.get("document"), dict):
        return csaf.parse(document, is_attached=is_attached)
    raise Malformed("The document is neither OpenVEX, CycloneDX nor CSAF.")
