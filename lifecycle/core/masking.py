"""Secrets in text from outside: found by their form or by the word before them, and replaced."""

from __future__ import annotations

import re
from typing import Any, Final

MASK: Final = "***"
_FORMS: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bsk_live_[A-Za-z0-9]{16,}|\bgd[a-z]{1,3}_[A-Za-z0-9_-]{16,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*",
    re.DOTALL,
)
_IN_URL: Final = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,200}:)[^\s/@]{1,500}(?=@)", re.IGNORECASE)
_WORDS: Final = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|private[_-]?key"
    r"|client[_-]?secret|credentials?|auth"
)
_VALUE: Final = r"""("[^"]{1,2000}"|'[^']{1,2000}'|[^\s,;&"'()]{1,2000})"""
# password=x, "apiKey": "x", MYSQL_PASSWORD='x y'
_NAMED: Final = re.compile(rf"""((?:{_WORDS})["']?\s{{0,3}}[=:]\s{{0,3}}){_VALUE}""", re.IGNORECASE)
# --db-password x
_OPTION: Final = re.compile(
    rf"((?<![\w-])--?(?:[a-z0-9]{{1,20}}[_-]){{0,3}}(?:{_WORDS})\s{{1,3}})(?!-){_VALUE}", re.IGNORECASE
)
_HEADER: Final = re.compile(
    r"(\b(?:authorization|cookie|set-cookie)\s{0,3}[:=]\s{0,3})[^\r\n\"']{1,4000}", re.IGNORECASE
)
_BEARER: Final = re.compile(r"(\b(?:bearer|basic)\s{1,3})[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_SECRET_NAME: Final = re.compile(rf"(?:^|[._-])(?:{_WORDS}|authorization|cookie)$", re.IGNORECASE)
_DEPTH_MAX: Final = 16


def masked(text: str) -> str:
    """Return `text` with what looks like a secret replaced by `***`. It rather masks too much than too little."""
    text = _FORMS.sub(MASK, text)
    text = _IN_URL.sub(rf"\1{MASK}", text)
    text = _HEADER.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _OPTION.sub(rf"\1{MASK}", text)
    return _NAMED.sub(rf"\1{MASK}", text)


def masked_json(value: Any, *, depth: int = 0) -> Any:
    """Return a JSON value with all its texts masked, and the values of names such as `password`."""
    if isinstance(value, str):
        return masked(value)
    if depth >= _DEPTH_MAX:
        return MASK
    if isinstance(value, dict):
        return {
            name: MASK
            if isinstance(inner, str) and inner and _SECRET_NAME.search(name)
            else masked_json(inner, depth=depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [masked_json(inner, depth=depth + 1) for inner in value]
    return value
