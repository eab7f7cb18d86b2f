"""Reads `gravingdock.report.v1`: the envelope strictly, and of the rest all that can be read."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.core.image_names import digest_in
from lifecycle.runtime.skeletons import skeleton
from lifecycle.runtime.times import read_time
from lifecycle.runtime.types import (
    CONTAINERS_MAX,
    MIB,
    REPORT_MAX_BYTES,
    Content,
    Header,
    Refused,
    SeenContainer,
    Sent,
)

SCHEMA: Final = "gravingdock.report.v1"
SEQUENCE_MAX: Final = 2**53  # whole numbers that every JSON reader keeps
_KINDS: Final = frozenset({"init", "main", "ephemeral", "volume"})
# States of Kubernetes, of Docker and Podman, and of ECS.
_STATES: Final[Mapping[str, str]] = {
    "running": "running", "waiting": "waiting", "terminated": "terminated", "paused": "running", "created": "waiting",
    "initialized": "waiting", "configured": "waiting", "restarting": "waiting", "exited": "terminated",
    "dead": "terminated", "removing": "terminated", "stopping": "running", "stopped": "terminated",
    "pending": "waiting", "provisioning": "waiting", "activating": "waiting", "deactivating": "running",
    "deprovisioning": "terminated", "deleted": "terminated",
}  # fmt: skip
_UNSTORABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_SPEC_SHA: Final = re.compile(r"[a-f0-9]{64}")
_BUNDLE_SHA: Final = re.compile(r"([a-f0-9]{64})?")
_LISTS: Final = ("containers", "gone", "namespaces", "templates")
_PSS: Final = frozenset({"privileged", "baseline", "restricted"})
NAME_MAX: Final = 253  # characters, as of names in Kubernetes
KEY_MAX: Final = 600
IMAGE_MAX: Final = 1000
IDS_MAX: Final = 16  # names of one image
_POLICIES_MAX: Final = 1_000_000
SPEC_MAX_BYTES: Final = 256 * 1024
WAITING, RUNNING, TERMINATED = "waiting", "running", "terminated"


def inflate(body: bytes, *, limit: int = REPORT_MAX_BYTES) -> bytes:
    """Return what a gzip body holds; raises LimitExceeded beyond `limit` bytes, Malformed for what is no gzip."""
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(body, limit + 1)
        if len(content) <= limit and reader.eof and not reader.unused_data:
            return content
    except zlib.error:
        raise Malformed("The body is not gzip, although Content-Encoding says so.") from None
    if len(content) > limit:
        raise too_large(limit)
    raise Malformed("The gzip body is cut off, or something follows it.")


def too_large(limit: int = REPORT_MAX_BYTES) -> LimitExceeded:
    """Return the error of a body that is too large."""
    return LimitExceeded(f"A report has at most {limit // MIB} MiB, uncompressed. Send it in parts.", limit=limit)


def read_json(body: bytes) -> Any:
    """Return the JSON in a body; raises Malformed, LimitExceeded."""
    if len(body) > REPORT_MAX_BYTES:
        raise too_large()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None


def read_header(document: Any) -> Header:
    """Return the envelope of a report; raises Malformed with the field, LimitExceeded for too many containers."""
    if not isinstance(document, dict):
        raise Malformed("A report is a JSON object.")
    if document.get("schema") != SCHEMA:
        raise Malformed(f'schema: must be "{SCHEMA}".', field="schema")
    sequence = document.get("sequence")
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 0 <= sequence <= SEQUENCE_MAX:
        raise Malformed("sequence: enter a whole number from 0.", field="sequence")
    observed_at = read_time(document.get("observed_at"))
    if observed_at is None:
        raise Malformed("observed_at: enter a time such as 2026-11-30T12:00:00Z.", field="observed_at")
    try:
        kind = Sent(str(document.get("kind")))
    except ValueError:
        raise Malformed("kind: choose one of full, delta, heartbeat.", field="kind") from None
    for name in _LISTS:
        if not isinstance(document.get(name), (list, type(None))):
            raise Malformed(f"{name}: must be a list.", field=name)
    if not isinstance(document.get("specs"), (dict, type(None))):
        raise Malformed("specs: must be an object.", field="specs")
    if max(len(document.get(name) or []) for name in _LISTS) > CONTAINERS_MAX:
        raise LimitExceeded(f"A report has at most {CONTAINERS_MAX} containers.", limit=CONTAINERS_MAX)
    bundle = document.get("bundle_sha256")
    if bundle is not None and not (isinstance(bundle, str) and _BUNDLE_SHA.fullmatch(bundle)):
        raise Malformed("bundle_sha256: must be a sha256 in 64 hex digits, or empty.", field="bundle_sha256")
    return Header(
        _envelope_text(document, "report_id", 200), _envelope_text(document, "boot", 200), sequence, kind, observed_at,
        _envelope_text(document, "reporter", NAME_MAX), bundle,
    )  # fmt: skip


def _envelope_text(document: Mapping[str, Any], name: str, limit: int) -> str:
    value = document.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > limit or _UNSTORABLE.search(value):
        raise Malformed(f"{name}: enter 1 to {limit} characters without control characters.", field=name)
    return value


def read_content(document: Mapping[str, Any]) -> Content:
    """Return the content of a report whose envelope was read. Bad entries are refused, each with its pointer."""
    refused: list[Refused] = []
    seen: dict[str, SeenContainer] = {}
    for at, entry in enumerate(document.get("containers") or []):
        try:
            container = _container(entry)
            if container.key in seen:
                raise _Bad("key", "Another entry of this report has the same key.")
            seen[container.key] = container
        except _Bad as bad:
            refused.append(Refused(f"/containers/{at}{bad.pointer}", bad.why))
    gone: list[str] = []
    for at, key in enumerate(document.get("gone") or []):
        if isinstance(key, str) and 0 < len(key) <= KEY_MAX and not _UNSTORABLE.search(key):
            gone.append(key)
        else:
            refused.append(Refused(f"/gone/{at}", f"Enter a key: 1 to {KEY_MAX} characters."))
    specs = _specs(document.get("specs") or {}, refused)
    namespaces = _namespaces(document.get("namespaces") or [], refused)
    templates = _templates(document.get("templates"), refused)
    return Content(list(seen.values()), gone, specs, namespaces, refused, templates)


class _Bad(Exception):
    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.pointer = f"/{name}" if name else ""
        self.why = why


def _container(entry: Any) -> SeenContainer:
    if not isinstance(entry, dict):
        raise _Bad("", "An entry is an object.")
    get = entry.get
    workload = get("workload") or {}
    if not isinstance(workload, dict):
        raise _Bad("workload", "Must be an object with kind and name.")
    kind = get("kind", "main")
    if kind not in _KINDS:
        raise _Bad("kind", "Choose one of init, main, ephemeral, volume.")
    state = _STATES.get(str(get("state", RUNNING)).lower())
    if state is None:
        raise _Bad("state", "Choose one of waiting, running, terminated.")
    spec = get("spec") or ""
    if spec and not (isinstance(spec, str) and _SPEC_SHA.fullmatch(spec)):
        raise _Bad("spec", "Must be a sha256 in 64 hex digits, a key of specs.")
    started = get("started_at")
    started_at = read_time(started) if started else None
    if started and started_at is None and not str(started).startswith("0001-"):
        raise _Bad("started_at", "Enter a time such as 2026-11-30T12:00:00Z.")
    return SeenContainer(
        key=_text(entry, "key", KEY_MAX, is_required=True),
        namespace=_text(entry, "namespace", NAME_MAX),
        workload_kind=_text(workload, "kind", 63, "workload/kind"),
        workload_name=_text(workload, "name", NAME_MAX, "workload/name"),
        pod=_text(entry, "pod", NAME_MAX),
        node=_text(entry, "node", NAME_MAX),
        arch=_text(entry, "arch", 40),
        kind=kind,
        name=_text(entry, "name", NAME_MAX),
        image=_text(entry, "image", IMAGE_MAX, is_required=True),
        digests=_digests(entry),
        container_id=_text(entry, "container_id", 200),
        state=state,
        started_at=started_at,
        spec=spec,
    )


def _text(entry: Mapping[str, Any], name: str, limit: int, pointer: str = "", *, is_required: bool = False) -> str:
    value = entry.get(name)
    if value is None:
        value = ""
    if isinstance(value, str) and not value.isprintable():
        raise _Bad(pointer or name, "Control characters are not allowed.")
    # Bytes: an index over several of these texts holds about 2,700 of them.
    if not isinstance(value, str) or len(value.encode()) > limit or (is_required and not value):
        least = 1 if is_required else 0
        raise _Bad(pointer or name, f"Enter a text of {least} to {limit} bytes in UTF-8.")
    return value


def _digests(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the digests in `image_id`, and in `image_ids` of runtimes that know several names of one image."""
    given = entry.get("image_id")
    more = entry.get("image_ids") or []
    if given is not None and not isinstance(given, str):
        raise _Bad("image_id", "Must be a text.")
    if not isinstance(more, list) or len(more) > IDS_MAX or not all(isinstance(each, str) for each in more):
        raise _Bad("image_ids", f"Must be a list of at most {IDS_MAX} texts.")
    found = (digest_in(each[:IMAGE_MAX]) for each in ([given] if given else []) + more)
    return tuple(dict.fromkeys(digest for digest in found if digest))


def storable(text: str, limit: int = 300) -> str:
    """Return a text of a document as it can be stored and shown: without control characters, and cut."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[:limit]


def _specs(given: Mapping[str, Any], refused: list[Refused]) -> dict[str, dict[str, Any]]:
    specs = {}
    for sha, spec in given.items():
        pointer = f"/specs/{sha.replace('~', '~0').replace('/', '~1')[:200]}"
        if not _SPEC_SHA.fullmatch(sha):
            refused.append(Refused(pointer, "The name must be a sha256 in 64 hex digits."))
        elif not isinstance(spec, dict):
            refused.append(Refused(pointer, "A pod spec is an object."))
        else:
            bare = skeleton(spec)  # again: a reporter may have left values in
            text = orjson.dumps(bare)
            if len(text) > SPEC_MAX_BYTES:
                refused.append(Refused(pointer, f"A pod spec has at most {SPEC_MAX_BYTES // 1024} KiB."))
            elif b"\\u0000" in text:
                refused.append(Refused(pointer, "Null characters are not allowed."))
            else:
                specs[sha] = bare
    return specs


def _templates(given: list[Any] | None, refused: list[Refused]) -> dict[tuple[str, str, str], str] | None:
    """Return the pod templates of controllers that have no Pod now; None when the report names none."""
    if given is None:
        return None
    found = {}
    for at, entry in enumerate(given):
        try:
            if not isinstance(entry, dict):
                raise _Bad("", "An entry is an object.")
            spec = entry.get("spec")
            if not (isinstance(spec, str) and _SPEC_SHA.fullmatch(spec)):
                raise _Bad("spec", "Must be a sha256 in 64 hex digits, a key of specs.")
            place = (
                _text(entry, "namespace", NAME_MAX),
                _text(entry, "kind", 63, is_required=True),
                _text(entry, "name", NAME_MAX, is_required=True),
            )
            found[place] = spec
        except _Bad as bad:
            refused.append(Refused(f"/templates/{at}{bad.pointer}", bad.why))
    return found


def _namespaces(given: list[Any], refused: list[Refused]) -> list[dict[str, Any]]:
    namespaces = []
    for at, entry in enumerate(given):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or not name.isprintable():
            refused.append(Refused(f"/namespaces/{at}/name", f"Enter a text of 1 to {NAME_MAX} characters."))
            continue
        policies, pss = entry.get("network_policies"), entry.get("pss") or ""
        if isinstance(policies, list):
            policies = len(policies)
        is_count = isinstance(policies, int) and not isinstance(policies, bool) and 0 <= policies <= _POLICIES_MAX
        if policies is not None and not is_count:
            refused.append(Refused(f"/namespaces/{at}/network_policies", f"Enter a number from 0 to {_POLICIES_MAX}."))
            continue
        level = str(pss.get("enforce", "")) if isinstance(pss, dict) else str(pss)
        namespaces.append({"name": name, "network_policies": policies, "pss": level if level in _PSS else ""})
    return namespaces
