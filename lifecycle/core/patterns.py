"""Patterns for repositories and tags: `*` matches any characters, including slashes."""

from __future__ import annotations


def matches(pattern: str, name: str | None) -> bool:
    """Return whether `pattern` matches `name`. None means everything, and only `*` matches it."""
    if name is None:
        return pattern == "*"
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if not name.startswith(first) or not name[len(first) :].endswith(last):
        return False
    rest = name[len(first) : len(name) - len(last)] if last else name[len(first) :]
    for part in middle:
        position = rest.find(part)
        if position < 0:
            return False
        rest = rest[position + len(part) :]
    return True
