"""JSON with one spelling for each value: the JSON Canonicalization Scheme, RFC 8785."""

from __future__ import annotations

import json
import math
from typing import Any

_quote = json.encoder.encode_basestring  # escapes what RFC 8785 (3.2.2.2) escapes, in lower case, and nothing else


def canonical(value: Any) -> bytes:
    """Return `value` as canonical JSON in UTF-8. Raises ValueError for a number that JSON cannot hold."""
    return _text(value).encode()


def _text(value: Any) -> str:  # noqa: PLR0911 -- one return for each type of JSON
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))  # RFC 8785 (3.2.3) sorts by UTF-16 code units
        return "{" + ",".join(f"{_quote(key)}:{_text(value[key])}" for key in keys) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(item) for item in value) + "]"
    raise ValueError(f"{type(value).__name__} is not a type of JSON")


def _number(value: float) -> str:
    """Return a number as ECMAScript spells it (Number::toString), whose shortest digits are those of `repr`."""
    if not math.isfinite(value):
        raise ValueError("JSON has no infinite numbers")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if power > 0 else '-'}{abs(power)}"
