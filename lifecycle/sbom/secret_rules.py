"""The rules that find private keys and credentials, kept in `secret_rules.json`. What they match is never stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from lifecycle.core.patterns import matches

_FILE: Final = Path(__file__).with_name("secret_rules.json")


@dataclass(frozen=True, slots=True)
class SecretRule:
    """One rule: a file with a path of `paths` (any without them) that has a keyword, and then matches `pattern`.

    Without a pattern, the path alone is enough.
    """

    id: str
    kind: str  # private_key or credential
    title: str
    paths: tuple[str, ...]
    keywords: tuple[bytes, ...]
    pattern: re.Pattern[bytes] | None


@dataclass(frozen=True, slots=True)
class SecretRules:
    """All rules of the file."""

    version: int
    ignored_paths: tuple[str, ...]
    ignored_values: tuple[bytes, ...]
    rules: tuple[SecretRule, ...]

    def is_ignored(self, path: str) -> bool:
        """Return whether files at this path are known to be examples."""
        return any(matches(pattern, path) for pattern in self.ignored_paths)

    def found_in(self, path: str, content: bytes) -> Iterator[SecretRule]:
        """Yield each rule that a file breaks; `content` is its beginning."""
        is_text = b"\0" not in content[:8192]
        for rule in self.rules:
            if rule.paths and not any(matches(pattern, path) for pattern in rule.paths):
                continue
            if rule.pattern is None:
                yield rule
            elif is_text and any(keyword in content for keyword in rule.keywords):
                values = (match[0] for match in rule.pattern.finditer(content))
                if any(not any(known in value for known in self.ignored_values) for value in values):
                    yield rule


@lru_cache(maxsize=1)
def secret_rules() -> SecretRules:
    """Return the rules, read once."""
    document: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    return SecretRules(
        version=document["version"],
        ignored_paths=tuple(document["ignored_paths"]),
        ignored_values=tuple(value.encode() for value in document["ignored_values"]),
        rules=tuple(_rule(entry) for entry in document["rules"]),
    )


def _rule(entry: dict[str, Any]) -> SecretRule:
    pattern = entry.get("pattern")
    return SecretRule(
        id=entry["id"],
        kind=entry["kind"],
        title=entry["title"],
        paths=tuple(entry.get("paths", ())),
        keywords=tuple(keyword.encode() for keyword in entry.get("keywords", ())),
        pattern=re.compile(pattern.encode()) if pattern else None,
    )
