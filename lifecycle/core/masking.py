"""Secrets in text from outside: found by their form or by the word before them, and replaced."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

MASK: Final = "***"
_FORMS: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bsk_live_[A-Za-z0-9]{16,}|\bgd[a-z]{1,3}_[A-Za-z0-9_-]{16,}"
    # A JWT: tried once for each run of these letters, and only where a dot follows the run.
    r"|(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]++\.)(?>[A-Za-z0-9_-]*?\beyJ[A-Za-z0-9_-]{8,})"
    r"\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?",
    re.DOTALL,
)
_IN_URL: Final = re.compile(r"(://[^\s/:@]{0,200}+:)[^\s/@]{1,500}+(?=@)")
_WORDS: Final = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|private[_-]?key"
    r"|client[_-]?secret|credentials?|auth"
)
# A quote that nothing closes: the text was cut there.
_VALUE: Final = (
    r"""("(?:[^"\\]|\\.){1,2000}+"?|'(?:[^'\\]|\\.){1,2000}+'?|\\{1,3}"[^"\\]{1,2000}+|[^\s,;&"'()]{1,2000}+)"""
)
_NAME: Final = rf"""(?:{_WORDS})\\{{0,3}}["']?\s{{0,3}}[=:]\s{{0,3}}"""
# password=x, "apiKey": "x", MYSQL_PASSWORD='x y', \"token\": \"x\"
_NAMED: Final = re.compile(rf"({_NAME}){_VALUE}", re.IGNORECASE | re.DOTALL)
# "tokens": ["x"], auth: {"a": "x"}
_BLOCK: Final = re.compile(rf"(?:{_WORDS})s?\\{{0,3}}[\"']?\s{{0,3}}[=:]\s{{0,3}}(?=[\[{{])", re.IGNORECASE)
_BRACKET: Final = re.compile(r"""[\[{]|[\]}]|"(?:[^"\\]|\\.)*+"?""", re.DOTALL)
# --db-password x
_OPTION: Final = re.compile(
    rf"((?<![\w-])--?(?:[a-z0-9]{{1,20}}[_-]){{0,3}}(?:{_WORDS})\s{{1,3}})(?!-){_VALUE}", re.IGNORECASE | re.DOTALL
)
_HEADER: Final = re.compile(
    r"(\b(?:authorization|cookie|set-cookie)\s{0,3}[:=]\s{0,3})[^\r\n\"']{1,4000}", re.IGNORECASE
)
_BEARER: Final = re.compile(r"(\b(?:bearer|basic)\s{1,3})[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_SECRET_NAME: Final = re.compile(rf"(?:{_WORDS}|authorization|cookie)s?$", re.IGNORECASE)
# Programs that take a secret after a short option: the line from the program on, and the options.
_WORD: Final = r"""(?:"[^"]{1,2000}+"?|'[^']{1,2000}+'?|[^\s"']{1,2000}+)"""
_GAP: Final = r"""(?:\s{1,3}|=|["']\s?,\s?["'])?"""
_COMMANDS: Final = tuple(
    (
        tuple(program.split()),
        re.compile(rf"\b(?:{'|'.join(program.split())})\w{{0,10}}{after}\b[^\r\n]*+"),
        re.compile(rf"((?<![\w-])(?:{option})){_WORD}"),
    )
    for program, after, option in (
        ("mysql mariadb", "", "-p"),
        ("sshpass mongo", "", f"-p{_GAP}"),
        ("docker podman nerdctl buildah skopeo helm oras crane", r"\s{1,3}(?:registry\s{1,3})?login", f"-p{_GAP}"),
        ("curl lftp smbclient rpcclient", "", rf"(?:-[a-zA-Z]{{0,8}}[uU]|--user|--proxy-user){_GAP}"),
        ("redis-cli", "", f"-a{_GAP}"),
        ("ldap", "", f"-w{_GAP}"),
    )
)
# Words without which a pattern finds nothing: looking for them is much faster.
_HINTS_OF_FORMS: Final = (
    "-----begin", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "sk_live_",
    "eyj", "gd",
)  # fmt: skip
_HINTS_OF_WORDS: Final = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
_DEPTH_MAX: Final = 16


def masked(text: str) -> str:
    """Return `text` with what looks like a secret replaced by `***`. It rather masks too much than too little.

    The time grows with the length only, whatever is in the text.
    """
    low = text.lower()
    if any(hint in low for hint in _HINTS_OF_FORMS):
        text = _FORMS.sub(MASK, text)
    if "://" in low:
        text = _IN_URL.sub(rf"\1{MASK}", text)
    if "authorization" in low or "cookie" in low:
        text = _HEADER.sub(rf"\1{MASK}", text)
    if "bearer" in low or "basic" in low:
        text = _BEARER.sub(rf"\1{MASK}", text)
    for hints, line, option in _COMMANDS:
        if any(hint in low for hint in hints):
            text = line.sub(partial(_without_options, option), text)
    if any(hint in low for hint in _HINTS_OF_WORDS):
        text = _OPTION.sub(rf"\1{MASK}", text)
        text = _NAMED.sub(rf"\1{MASK}", _without_blocks(text))
    return text


def _without_options(option: re.Pattern[str], line: re.Match[str]) -> str:
    return option.sub(rf"\1{MASK}", line[0])


def _without_blocks(text: str) -> str:
    """Return `text` with lists and objects under the name of a secret masked, to the bracket that closes them."""
    found, at = [], 0
    while (start := _BLOCK.search(text, at)) is not None:
        found += [text[at : start.end()], MASK]
        depth, at = 0, len(text)
        for bracket in _BRACKET.finditer(text, start.end()):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket[0], 0)
            if depth == 0:
                at = bracket.end()
                break
    return "".join([*found, text[at:]]) if found else text


def masked_json(value: Any, *, depth: int = 0) -> Any:
    """Return a JSON value with all its texts masked, and whatever is under names such as `password`."""
    if isinstance(value, str):
        return masked(value)
    if depth >= _DEPTH_MAX:
        return MASK
    if isinstance(value, dict):
        return {
            name: MASK
            if inner and not isinstance(inner, bool) and _SECRET_NAME.search(name[-100:])
            else masked_json(inner, depth=depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [masked_json(inner, depth=depth + 1) for inner in value]
    return value
