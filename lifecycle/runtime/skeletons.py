"""Skeletons of pod specs: their settings without values of variables, arguments and commands.

All pods of a workload have the same one: what differs between them, such as their node, is left out.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import orjson

_DEPTH_MAX: Final = 24
# Text that people write freely, and that can hold secrets. `exec` and `httpGet` are in probes and life cycle hooks.
_DROPPED: Final = frozenset(
    (
        "args", "command", "httpHeaders", "volumeAttributes", "options", "managedFields", "stringData", "userData",
        # What differs between the pods of a StatefulSet or DaemonSet, and decides nothing.
        "nodeName", "hostname", "affinity",
    )
)  # fmt: skip
_TOKEN_VOLUME: Final = re.compile(r"\A(kube-api-access)-[a-z0-9]{5}\Z")  # the rest is random, for each pod
_KEPT_ANNOTATIONS: Final = ("gravingdock.io/", "container.apparmor.security.beta.kubernetes.io/")
SET: Final = {"set": True}


def skeleton(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a pod spec without what can hold secrets. A skeleton stays as it is."""
    return {name: _without(name, value, 0) for name, value in spec.items() if name not in _DROPPED}


def _without(name: str, value: Any, depth: int) -> Any:
    if depth >= _DEPTH_MAX:
        return None
    if name == "annotations":
        kept = value.items() if isinstance(value, dict) else ()
        return {key: text for key, text in kept if key.startswith(_KEPT_ANNOTATIONS)}
    if name == "env" and isinstance(value, list):
        return [_variable(item) for item in value if isinstance(item, dict)]
    if isinstance(value, dict):
        return {key: _without(key, inner, depth + 1) for key, inner in value.items() if key not in _DROPPED}
    if isinstance(value, list):
        return [_without("", inner, depth + 1) for inner in value]
    return _TOKEN_VOLUME.sub(r"\1", value) if name == "name" and isinstance(value, str) else value


def _variable(item: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: item[name] for name in ("name", "valueFrom") if name in item}
    if "value" in item:
        kept["value"] = SET if item["value"] != "" else ""  # an empty one is no secret
    return kept


def digest_of(spec: dict[str, Any]) -> str:
    """Return the sha256 of a skeleton, in hex."""
    return hashlib.sha256(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)).hexdigest()
