"""Reads events of Falco, as it and falcosidekick send them. Each field is optional: operators choose them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.core.image_names import digest_in
from lifecycle.core.masking import masked, masked_json
from lifecycle.runtime.times import read_time
from lifecycle.runtime.types import SeenEvent

TEXT_MAX: Final = 4000  # characters of one text
RULE_MAX: Final = 200
FIELDS_MAX: Final = 60
_EMPTY: Final = frozenset({"", "<NA>", "N/A", "null", "<none>"})
_HEX: Final = re.compile(r"[a-f0-9]{12,64}")
# falco_engine/falco_common.h: emergency, alert, critical, error, warning, notice, informational, debug.
SEVERITY_OF: Final[Mapping[str, str]] = {
    "emergency": "critical", "alert": "critical", "critical": "critical", "error": "high", "warning": "medium",
    "notice": "low", "informational": "none", "info": "none", "debug": "none",
}  # fmt: skip


def read_falco(document: Any) -> SeenEvent:
    """Return what an event says, with secrets masked; raises Malformed."""
    if not isinstance(document, dict):
        raise Malformed("An event of Falco is a JSON object.")
    given = document.get("output_fields")
    fields = given if isinstance(given, dict) else {}
    repository, tag = _field(fields, "container.image.repository"), _field(fields, "container.image.tag")
    image = repository or _field(fields, "container.image")
    if repository and tag:
        image = f"{repository}:{tag}"
    rule = text_of(document.get("rule"), RULE_MAX) or "(no rule)"
    return SeenEvent(
        kind="falco",
        rule=rule,
        severity=SEVERITY_OF.get(text_of(document.get("priority"), 40).lower(), "unknown"),
        at=read_time(document.get("time")),
        text=text_of(masked(text_of(document.get("output"), TEXT_MAX)), TEXT_MAX),
        fields=fields_of(fields | {name: document.get(name) for name in ("source", "hostname")}),
        event_id=text_of(document.get("uuid"), 200),
        digest=digest_in(_field(fields, "container.image.digest")),
        container_id=short_id(_field(fields, "container.id")),
        namespace=_field(fields, "k8s.ns.name") or _field(fields, "ka.target.namespace"),
        pod=_field(fields, "k8s.pod.name")
        or (_field(fields, "ka.target.name") if _field(fields, "ka.target.resource") == "pods" else ""),
        image=image[:1000],
        target="/".join(
            part for part in (_field(fields, "ka.target.resource"), _field(fields, "ka.target.name")) if part
        ),
    )


def short_id(text: str) -> str:
    """Return the first 12 hex digits of a container's id; "" for another text, such as `host`."""
    bare = text.rpartition("//")[2]
    return bare[:12] if _HEX.fullmatch(bare) else ""


def text_of(value: Any, limit: int) -> str:
    """Return a text that can be stored, at most `limit` characters long; "" for what is no text."""
    if not isinstance(value, str):
        return ""
    clean = "".join(char if char.isprintable() or char in "\n\t" else " " for char in value[: limit * 2])
    return clean.strip()[:limit]


def fields_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return up to FIELDS_MAX fields that say something, masked and cut, to be shown."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or (isinstance(value, str) and value.strip() in _EMPTY):
            continue
        if len(kept) == FIELDS_MAX:
            break
        # Masking much more than is kept costs time.
        shown = masked_json({name: value[:TEXT_MAX] if isinstance(value, str) else value})[name]
        kept[text_of(name, 100)] = shown if isinstance(shown, (bool, int, float)) else text_of(str(shown), 1000)
    return kept


def _field(fields: Mapping[str, Any], name: str) -> str:
    value = text_of(fields.get(name), 1000)
    return "" if value in _EMPTY else value
