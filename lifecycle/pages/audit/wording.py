"""Audit events in words: the subject, the details, and what changed from before to after."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from lifecycle.audit.subjects import NUMBERED, numbered

_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}")
_DIGEST: Final = re.compile(r"(sha(?:256|512):[0-9a-f]{12})[0-9a-f]+")
_LABELS: Final[Mapping[str, str]] = {
    "again": "new job",
    "by": "replaced by wave",
    "code": "error code",
    "evaluation": "evidence",
    "expires_at": "expiry",
    "forgotten": "failed sign-ins cleared",
    "is_admin": "admin",
    "kept": "moved back to",
    "lookup": "token",
    "old": "old image",
    "patterns": "protected tags",
    "placed": "entries in repositories",
    "prefix": "repository prefix",
    "replaced": "replaced image",
    "scanned": "images with packages",
    "tombstoned": "no longer listed",
    "via": "detected by",
}
# Details that read better as a phrase of their own than as "label: value". None hides the detail.
_PHRASES: Final[Mapping[str, Callable[[Any], str]]] = {
    "days": lambda value: f"valid for {value:g} days",
    "expires_at": lambda value: "never expires" if value == "never" else f"expires {text_of(value)}",
    "images": lambda value: f"{value} image{'' if value == 1 else 's'}",
    "is_blocking": lambda value: "the request waits for it" if value else "the request does not wait for it",
    "is_certificate_changed": lambda value: "other authorities are trusted" if value else "the same authorities",
    "is_password_changed": lambda value: "another password" if value else "the same password",
    "is_admin": lambda value: "an admin" if value else "not an admin",
    "lookup": lambda value: f"token {value}…",
    "repositories": lambda value: "all repositories" if value == "*" else f"repositories {text_of(value)}",
    "required_approvals": lambda value: f"{value} approval{'' if value == 1 else 's'} required",
    "revision": lambda value: f"revision {value}",
    "tag": lambda value: f"tag {value}",
    "via": lambda value: f"by {value}",
    "vote": lambda value: "it was an objection" if value == "object" else "it was an approval",
    "voter": lambda value: f"vote of {value}",
}


def subject_of(event: Any) -> str:
    """Return the subject of an event: a repository, a user and a role, or the name and number of a row."""
    details = event.details
    if event.subject_kind == "environment" and event.environment:
        return f"environment {event.environment}"
    if event.subject_kind in NUMBERED and event.subject_id:
        subject = numbered(event.subject_kind, event.subject_id)
        subject = f"{subject}, {event.repository}" if event.repository else subject
    elif event.repository:
        subject = event.repository
    elif details.get("user"):
        subject = f"{details['user']}, {details['role']}" if details.get("role") else str(details["user"])
    elif details.get("role"):
        subject = f"role {details['role']}"
    elif event.subject_kind == "registry" and details.get("registry"):
        subject = f"registry {details['registry']}"
    elif event.subject_kind == "cluster" and details.get("slug"):
        subject = f"cluster {details['slug']}"
    elif event.subject_kind == "team" and event.team:
        subject = f"team {event.team.slug}"
    else:
        subject = f"{event.subject_kind} {event.subject_id}" if event.subject_id else event.subject_kind
    return f"{subject} in {event.environment}" if event.environment else str(subject)


def label_of(name: str) -> str:
    """Return the name of a detail, as people read it."""
    return _LABELS.get(name, name.replace("_", " "))


def text_of(value: Any) -> str:
    """Return a stored value as people read it: yes and no, times, short digests, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{label_of(name)} {text_of(item)}" for name, item in sorted(value.items())) or "none"
    return _time(str(value)) or _DIGEST.sub(r"\1…", str(value)) if value else "none"


def _time(text: str) -> str:
    """Return an ISO 8601 time as people read it; "" for other text."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%d %b %Y %H:%M} UTC" if _TIME.match(text) else ""
    except ValueError:
        return ""


def note_of(event: Any) -> str:
    """Return the reason of an event, or else its details and changes as one line."""
    if event.reason:
        return str(event.reason)
    plain, before, after = split(event.details)
    phrases = [
        _PHRASES[name](value) if name in _PHRASES else f"{label_of(name)}: {text_of(value)}"
        for name, value in plain
        if name not in {"user", "role"} and value not in {"", None}
    ]
    return "; ".join([*phrases, *differences(before, after)])


def split(details: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], Any, Any]:
    """Return (plain details, before, after). Protected tags store the new value as `patterns`."""
    rest = dict(details)
    before, after = rest.pop("before", None), rest.pop("after", None)
    if isinstance(before, list) and "patterns" in rest:
        after = rest.pop("patterns")
    return sorted((name, _hashable(value)) for name, value in rest.items()), before, after


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else text_of(value) if isinstance(value, dict) else value


def changes_of(before: Any, after: Any) -> list[tuple[str, str, str]]:
    """Return (name, before, after) of each field that differs; "" for a missing value."""
    old, new = _fields(before), _fields(after)
    return [
        (label_of(name), text_of(old[name]) if name in old else "", text_of(new[name]) if name in new else "")
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def differences(before: Any, after: Any) -> list[str]:
    """Return a phrase for each field that differs: "added image.scan, removed image.view", "expiry: never → ..."."""
    old, new = _fields(before), _fields(after)
    phrases = []
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        if isinstance(was, list) and isinstance(now, list):
            added = [text_of(item) for item in now if item not in was]
            removed = [text_of(item) for item in was if item not in now]
            parts = [f"added {', '.join(added)}" if added else "", f"removed {', '.join(removed)}" if removed else ""]
            words = ", ".join(part for part in parts if part) or "order changed"
            phrases.append(words if name == "verbs" else f"{label_of(name)}: {words}")
        elif name not in old:
            phrases.append(f"{label_of(name)}: {text_of(now)}")
        elif name not in new:
            phrases.append(f"{label_of(name)} was {text_of(was)}")
        else:
            phrases.append(f"{label_of(name)} changed from {text_of(was)} to {text_of(now)}")
    return phrases


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {"patterns": value} if isinstance(value, list) else {"text": value} if isinstance(value, str) else {}
