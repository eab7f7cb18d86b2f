"""Parser for the body of a registry's notification. The body is untrusted, and the parser never raises an error."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from lifecycle.core.errors import LimitExceeded, MalformedManifest
from lifecycle.ingest.constants import EVENTS_MAX, NAME_MAX
from lifecycle.ingest.types import RegistryEvent
from lifecycle.oci.constants import INDEX_TYPES, MANIFEST_TYPES
from lifecycle.oci.manifests import clean, load_json

_WORD_MAX: Final = 300


def parse_notification(body: bytes) -> tuple[list[RegistryEvent], str]:
    """Return (events, problem): the readable events, and the reason why others were skipped ("" when none was)."""
    try:
        envelope = load_json(body, "notification")
    except (MalformedManifest, LimitExceeded) as error:
        return [], error.message
    entries = envelope.get("events") if isinstance(envelope, dict) else None
    if not isinstance(entries, list):
        return [], "The notification has no list of events."
    if len(entries) > EVENTS_MAX:
        return [], f"The notification has more than {EVENTS_MAX} events."
    events, problem = [], ""
    for entry in entries:
        if isinstance(entry, dict):
            events.append(_event(entry))
        else:
            problem = "An event is not a JSON object."
    return events, problem


def is_about_a_manifest(event: RegistryEvent, media_type: str) -> bool:
    """Return whether an event can have changed tags or manifests. Blob events and pulls cannot."""
    if event.action == "delete":
        return bool(event.repository)
    is_manifest = not media_type or media_type in MANIFEST_TYPES | INDEX_TYPES
    return event.action == "push" and is_manifest and bool(event.repository) and bool(event.digest)


def media_type_of(event: RegistryEvent) -> str:
    """Return the media type of the event's target, "" when it has none."""
    entry = json.loads(event.raw)
    return _text(_object(entry.get("target")).get("mediaType"))


def _event(entry: dict[str, Any]) -> RegistryEvent:
    raw = json.dumps(entry, sort_keys=True).encode()
    target, source, actor = (_object(entry.get(key)) for key in ("target", "source", "actor"))
    return RegistryEvent(
        event_id=_name(entry.get("id")) or "sha256:" + hashlib.sha256(raw).hexdigest(),
        instance=_name(source.get("instanceID")),
        action=_text(entry.get("action"))[:40],
        repository=_text(target.get("repository")),
        digest=_text(target.get("digest")),
        tag=_text(target.get("tag")),
        actor_name=_text(actor.get("name")),
        raw=raw,
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return clean(value)[:_WORD_MAX] if isinstance(value, str) else ""


def _name(value: object) -> str:
    """Return an id of at most NAME_MAX characters. A longer id is replaced by its hash, so that it stays unique."""
    text = clean(value) if isinstance(value, str) else ""
    if len(text) <= NAME_MAX:
        return text
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
