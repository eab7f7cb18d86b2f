"""Canonical JSON (RFC 8785), and the salted hashes of an event's texts."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

FIELDS = ("actor_name", "token_lookup", "address", "request_id", "reason", "details")
SALT_BYTES = 16
NO_SALT = bytes(SALT_BYTES)


def canonical(value: Any) -> str:
    """Return a value as canonical JSON."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Return a number as ECMAScript does, by way of its shortest decimal digits."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("JSON has no such number")
    text = "".join(map(str, digits))
    if text == "0":
        return "0"
    point = len(text) + exponent
    if exponent >= 0 and point <= 21:
        text += "0" * exponent
    elif 0 < point <= 21:
        text = f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{text}"
    else:
        power = f"{point - 1:+d}"
        text = f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e{power}"
    return ("-" if sign else "") + text


def text_hash(name: str, value: Any, salt: bytes) -> str:
    """Return the salted hash of one text."""
    return hashlib.sha256(salt + name.encode() + b"\0" + canonical(value).encode()).hexdigest()
