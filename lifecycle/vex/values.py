"""Read values out of documents that anybody could have written. Each function raises Malformed with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from packageurl import PackageURL

from lifecycle.core.errors import Malformed
from lifecycle.vex.constants import JUSTIFICATIONS, NAME_MAX, NAMES_MAX, NOT_AFFECTED, TEXT_MAX

PURL_MAX: Final = 4096
_HEX256: Final = re.compile(r"[0-9a-f]{64}")
_HEX512: Final = re.compile(r"[0-9a-f]{128}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+/-]*")
_FRACTION: Final = re.compile(r"\.(\d{6})\d+")  # Go writes nanoseconds, Python reads microseconds
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|[\ud800-\udfff]")
_SHOWN: Final = 60  # characters of a wrong value in a message


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object.")
    return value


def listed(value: Any, what: str, limit: int) -> list[Any]:
    """Return a list with at most `limit` entries; empty for null."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{what} is not a list.")
    if len(value) > limit:
        raise Malformed(f"{what} has {len(value):,} entries. The limit is {limit:,}.")
    return value


def text(value: Any, what: str, limit: int = TEXT_MAX) -> str:
    """Return a text, cut to `limit` characters, without control characters; "" for null."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{what} is not a text.")
    return _CONTROL.sub("", value).strip()[:limit]


def shown(value: Any) -> str:
    """Return a wrong value as it can stand in a message."""
    return _CONTROL.sub("", str(value))[:_SHOWN]


def moment(value: Any, what: str) -> datetime | None:
    """Return a time of RFC 3339; None for null or "". A time without a zone is in UTC."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 64:
        raise Malformed(f"{what} is not a time.")
    try:
        found = datetime.fromisoformat(_FRACTION.sub(r".\1", value))
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed(f"{what} {shown(value)!r} is not a time.") from None


def vulnerability_names(names: list[Any]) -> tuple[str, ...]:
    """Return the names of a vulnerability, each once. The first one is its main name."""
    found: dict[str, None] = {}
    if len(names) > NAMES_MAX:
        raise Malformed(f"The vulnerability has more than {NAMES_MAX} names.")
    for name in names:
        if not isinstance(name, str) or len(name) > NAME_MAX or not _NAME.fullmatch(name.strip()):
            raise Malformed(f"{shown(name)!r} is no name of a vulnerability.")
        found[name.strip()] = None
    if not found:
        raise Malformed("The vulnerability has no name.")
    return tuple(found)


def purl(value: Any, what: str = "The package URL") -> str:
    """Return a package URL in its canonical form."""
    if not isinstance(value, str) or len(value) > PURL_MAX or "\0" in value:
        raise Malformed(f"{what} is not a text of at most {PURL_MAX} characters.")
    try:
        found = PackageURL.from_string(value)
        return _CONTROL.sub("", found.to_string())
    except (ValueError, UnicodeError):
        raise Malformed(f"{what} {shown(value)!r} cannot be read.") from None


def hashes(value: Any) -> tuple[str, ...]:
    """Return the digests in an object of hashes ({"sha-256": hex}). Other algorithms name no image, so they are left
    out.
    """
    found = []
    for key, hex_text in mapping(value, "hashes").items():
        name = str(key).lower().replace("-", "").replace("_", "")
        if digest := digest_of(name, hex_text):
            found.append(digest)
    return tuple(found)


def digest_of(algorithm: str, hex_text: Any) -> str:
    """Return "sha256:<hex>" or "sha512:<hex>"; "" for another algorithm. Raises Malformed for a wrong value."""
    pattern = {"sha256": _HEX256, "sha512": _HEX512}.get(algorithm)
    if pattern is None:
        return ""
    if not isinstance(hex_text, str) or not pattern.fullmatch(hex_text.lower()):
        raise Malformed(f"The {algorithm} {shown(hex_text)!r} is not a digest.")
    return f"{algorithm}:{hex_text.lower()}"


def check_reasoned(status: str, justification: str, reason: str) -> None:
    """Raise Malformed for an unknown justification, or when "not affected" has neither a justification nor a text."""
    if justification and justification not in JUSTIFICATIONS:
        raise Malformed(f"Unknown justification {shown(justification)!r}. Known are: {', '.join(JUSTIFICATIONS)}.")
    if status == NOT_AFFECTED and not justification and not reason:
        raise Malformed("not_affected needs a justification or an impact statement.")
