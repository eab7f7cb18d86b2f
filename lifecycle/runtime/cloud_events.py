"""Reads CloudEvents 1.0 over HTTP: structured, batched, and binary (the attributes are headers `ce-...`)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import orjson

from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.core.image_names import digest_in
from lifecycle.core.masking import masked
from lifecycle.core.severities import SEVERITIES
from lifecycle.runtime.falco import SEVERITY_OF, TEXT_MAX, fields_of, short_id, text_of
from lifecycle.runtime.times import read_time
from lifecycle.runtime.types import SeenEvent

BATCH_MAX: Final = 1000  # events
_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_REQUIRED: Final = ("id", "source", "type")


def read_cloud_events(content_type: str, headers: Mapping[str, str], body: bytes) -> list[SeenEvent]:
    """Return the events of a request, with secrets masked; raises Malformed with the place, LimitExceeded."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == _BATCH:
        events = _json(body)
        if not isinstance(events, list):
            raise Malformed("A batch of CloudEvents is a JSON list.")
        if len(events) > BATCH_MAX:
            raise LimitExceeded(f"A batch has at most {BATCH_MAX} events.", limit=BATCH_MAX)
        return [_event(each, f"/{at}") for at, each in enumerate(events)]
    if media_type == _STRUCTURED:
        return [_event(_json(body), "")]
    if "ce-specversion" not in {name.lower() for name in headers}:
        raise Malformed(
            f"This is no CloudEvent. Use Content-Type {_STRUCTURED} or {_BATCH}, or the headers ce-specversion, ce-id,"
            " ce-source and ce-type."
        )
    attributes: dict[str, Any] = {
        name.lower().removeprefix("ce-"): unquote(value)
        for name, value in headers.items()
        if name.lower().startswith("ce-")
    }
    is_json = media_type == "application/json" or media_type.endswith("+json")
    return [_event(attributes | {"data": _json(body) if is_json and body else None}, "")]


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None


def _event(given: Any, place: str) -> SeenEvent:
    if not isinstance(given, dict):
        raise Malformed(f"{place or '/'}: a CloudEvent is a JSON object.")
    if given.get("specversion") != "1.0":
        raise Malformed(f'{place}/specversion: must be "1.0".')
    for name in _REQUIRED:
        value = given.get(name)
        if not isinstance(value, str) or not value or len(value) > 500 or not value.isprintable():
            raise Malformed(f"{place}/{name}: enter a text of 1 to 500 characters.")
    data = _data(given, place)
    subject = text_of(given.get("subject"), 1000)
    levels = (text_of(value, 40) for value in (data.get("severity"), data.get("priority"), given.get("severity")))
    level = next((value for value in levels if value), "").lower()
    named = digest_in(subject) if "@" in subject else ""
    text = next((data[name] for name in ("message", "text", "output", "summary", "description") if data.get(name)), "")
    return SeenEvent(
        kind="event",
        rule=text_of(data.get("rule"), 200) or text_of(given["type"], 200),
        severity=level if level in SEVERITIES else SEVERITY_OF.get(level, "unknown"),
        at=read_time(given.get("time")),
        text=text_of(masked(text_of(text, TEXT_MAX)), TEXT_MAX),
        fields=fields_of(data) | {"type": given["type"], "source": masked(given["source"]), "subject": masked(subject)},
        event_id=f"{given['source']}\n{given['id']}",
        digest=digest_in(text_of(data.get("digest"), 1000)) or named,
        container_id=short_id(text_of(data.get("container_id"), 200)),
        namespace=text_of(data.get("namespace"), 253),
        pod=text_of(data.get("pod"), 253),
        image=text_of(data.get("image"), 1000) or (subject if named else ""),
    )


def _data(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    data = given.get("data")
    if data is None and isinstance(given.get("data_base64"), str):
        try:
            data = orjson.loads(base64.b64decode(given["data_base64"], validate=True))
        except ValueError:  # not base64, not ASCII, or not JSON
            return {}
    if isinstance(data, str):
        return {"message": data}
    return data if isinstance(data, dict) else {}
