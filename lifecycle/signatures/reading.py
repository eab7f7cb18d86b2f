"""Read JSON, base64 and times out of documents that nobody has verified yet."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, NoReturn

from lifecycle.signatures.constants import BUNDLE_MAX_BYTES, JSON_DEPTH_MAX
from lifecycle.signatures.types import SignatureRefused


def json_object(content: bytes, what: str, *, max_bytes: int = BUNDLE_MAX_BYTES) -> dict[str, Any]:
    """Return a JSON object. Raises SignatureRefused: too large, too deep, not JSON, or with a key twice.

    A key that stands twice is read differently by different tools, and so can hide what was signed.
    """
    if len(content) > max_bytes:
        raise SignatureRefused(f"The {what} is larger than {max_bytes} bytes.")
    try:
        value = json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SignatureRefused(f"The {what} is not valid JSON: {str(error)[:120]}") from error
    if not isinstance(value, dict):
        raise SignatureRefused(f"The {what} is not a JSON object.")
    _check_depth(value, what)
    return value


def only(value: dict[str, Any], allowed: Collection[str], where: str) -> None:
    """Raise SignatureRefused when `value` has a field that we do not know, and so cannot check."""
    unknown = sorted(set(value) - set(allowed))
    if unknown:
        raise SignatureRefused(f"{where} has the unknown field {unknown[0][:60]!r}.")


def get_object(value: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return the object at `key`; raises SignatureRefused."""
    found = value.get(key)
    if not isinstance(found, dict):
        raise SignatureRefused(f"{where} has no {key}.")
    return found


def get_list(value: dict[str, Any], key: str, where: str, *, limit: int) -> list[dict[str, Any]]:
    """Return the list of objects at `key`, empty when absent; raises SignatureRefused."""
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise SignatureRefused(f"{key} in {where} is not a list of objects.")
    if len(found) > limit:
        raise SignatureRefused(f"{key} in {where} has more than {limit} entries.")
    return found


def get_text(value: dict[str, Any], key: str, where: str) -> str:
    """Return the text at `key`; raises SignatureRefused when it is absent or empty."""
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise SignatureRefused(f"{where} has no {key}.")
    return found


def get_bytes(value: dict[str, Any], key: str, where: str) -> bytes:
    """Return the decoded base64 at `key`; raises SignatureRefused."""
    return decode_base64(get_text(value, key, where), f"{key} in {where}")


def get_number(value: dict[str, Any], key: str, where: str) -> int:
    """Return the number at `key`, which protobuf JSON writes as a text. Raises SignatureRefused below 0."""
    found = value.get(key, 0)
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 20:
        return int(found)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**63:
        return found
    raise SignatureRefused(f"{key} in {where} is not a number from 0 on.")


def decode_base64(text: str, where: str) -> bytes:
    """Return `text` decoded, from standard or URL-safe base64, with or without padding; raises SignatureRefused."""
    plain = text.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureRefused(f"{where} is not valid base64.") from error


def parse_time(text: object, where: str) -> datetime:
    """Return an RFC 3339 time; raises SignatureRefused."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise SignatureRefused(f"{where} is not a time.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def at_second(seconds: int, where: str) -> datetime:
    """Return the moment `seconds` after 1970; raises SignatureRefused."""
    try:
        return datetime.fromtimestamp(seconds, tz=UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise SignatureRefused(f"{where} is not a time.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _check_depth(value: object, what: str) -> None:
    level: list[object] = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [
            child
            for entry in level
            for child in (entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise SignatureRefused(f"The {what} is nested deeper than {JSON_DEPTH_MAX}.")
