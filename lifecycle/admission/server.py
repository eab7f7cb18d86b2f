"""`/admission/<cluster>/<secret>`: a plain WSGI callable that answers from the snapshot. It needs no Django.

Reads nothing but the snapshot that is mapped into memory, so that PostgreSQL, Redis and the rest of Gravingdock can be
away. A thread swaps the snapshot and writes what was decided.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from lifecycle.admission import messages
from lifecycle.admission.bodies import Bodies
from lifecycle.admission.carrying import Entries, is_entry, key_of, text_hash
from lifecycle.admission.constants import BIG_BYTES, BODY_MAX_BYTES, READ_S, THREADS
from lifecycle.admission.judging import is_carried, judge_review, pinned
from lifecycle.admission.recording import Recorder
from lifecycle.admission.reviews import parse_review
from lifecycle.admission.snapshot import NAME, BadSnapshot, ClusterEntry, Snapshot, look_at
from lifecycle.admission.types import BadReview, Outcome, Review

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX: Final = "/admission/"
_LOOK_EVERY_S: Final = 0.2
_LOOKED_S: Final = 2.0  # an answer is not from before this
_PARTS: Final = frozenset({2, 3})
_NOT_FOUND: Final = b"Not found.\n"
_CHUNK: Final = 64 * 1024


class _Refused(Exception):
    """An HTTP error: the review is not answered, and the webhook's failurePolicy decides."""

    def __init__(self, status: str, text: bytes) -> None:
        self.status = status
        self.text = text


class Application:
    """Answers reviews from the newest whole snapshot in a folder."""

    def __init__(self, folder: Path, public_url: str, *, threads: int = THREADS) -> None:
        self.folder = folder
        self.public_url = public_url.rstrip("/")
        self.recorder = Recorder(folder)
        self._entries = Entries()
        for row in self.recorder.waiting_breakglass():
            if is_entry(row):
                for key in _entry_keys(row):
                    self._entries.add(row["cluster"], key, row["at"])
        self.problem = ""  # why the newest file is not used; "" when it is
        self._seen: tuple[int, bytes] | None = None
        self._snapshot: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._bodies = Bodies(threads)
        self._big = threading.Lock()
        self._looking = threading.Lock()
        self._looked_at = 0.0
        self.look()

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in use; None before the first."""
        return self._snapshot

    def look(self) -> None:
        """Take up the file of the folder if it is another one. A broken file keeps the present snapshot."""
        self._looked_at = time.monotonic()
        try:
            seen, at = look_at(self.folder / NAME)
        except OSError:
            return
        if seen == self._seen:
            if self._snapshot is not None and not self.problem:
                self._snapshot.written_at = at  # the writer renewed it
                self._entries.forget_before(at)
            return
        try:
            self._snapshot, self.problem = Snapshot(self.folder / NAME), ""
        except (BadSnapshot, OSError, ValueError, KeyError, TypeError) as error:
            if not self.problem:
                log("snapshot_refused", problem=str(error))
            self.problem = str(error) or type(error).__name__
        self._seen = seen

    def tend(self) -> None:
        """Swap snapshots and write decisions until the process ends. It runs in a thread of its own."""
        stopped = threading.Event()
        while not stopped.wait(_LOOK_EVERY_S):
            try:
                self.look()
                self.recorder.flush()
            except Exception as error:  # noqa: BLE001 -- the edge of the thread: it must go on
                log("admission_thread", problem=repr(error)[:300])

    def _start(self) -> None:
        """Start the thread in the process that answers: servers fork after they have loaded this."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self.tend, name="admission", daemon=True)
                self._thread.start()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if self._thread is None:
            self._start()
        if time.monotonic() - self._looked_at > _LOOKED_S:
            # The first review of this process, or one after it stood still: what it knows can be hours old.
            with self._looking:
                if time.monotonic() - self._looked_at > _LOOKED_S:
                    self.look()
        try:
            content = self._answer(environ)
        except _Refused as refused:
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(refused.text)))]
            if refused.status.startswith("405"):
                headers.append(("Allow", "POST"))
            start_response(refused.status, [*headers, *_SAFE_HEADERS])
            return [refused.text]
        start_response(
            "200 OK",
            [("Content-Type", "application/json"), ("Content-Length", str(len(content))), *_SAFE_HEADERS],
        )
        return [content]

    def _answer(self, environ: WSGIEnvironment) -> bytes:
        if environ["REQUEST_METHOD"] != "POST":
            raise _Refused("405 Method Not Allowed", b"Send a POST.\n")
        parts = environ.get("PATH_INFO", "")[len(PREFIX) :].rstrip("/").split("/")
        is_mutating = len(parts) == max(_PARTS) and parts[2] == "mutate"
        snapshot = self._snapshot
        if snapshot is None:
            raise _Refused("503 Service Unavailable", b"There is no snapshot yet.\n")
        is_shaped = len(parts) == min(_PARTS) or is_mutating
        cluster = snapshot.cluster_for(parts[0], parts[1]) if is_shaped else None
        if cluster is None:
            raise _Refused("404 Not Found", _NOT_FOUND)
        address = str(environ.get("REMOTE_ADDR") or "")[:45]
        with self._bodies.place(cluster.slug, address) as is_free:
            if not is_free:
                raise _Refused("429 Too Many Requests", b"Too many bodies are on their way.\n")
            body = _body(environ)
        with self._big if len(body) > BIG_BYTES else nullcontext():
            try:
                review = parse_review(body)
            except BadReview as error:
                raise _Refused("400 Bad Request", f"{error}\n".encode()) from None
            if is_mutating:
                return self._mutation(snapshot, cluster, review)
            return self._judgement(snapshot, cluster, review, address)

    def _judgement(self, snapshot: Snapshot, cluster: ClusterEntry, review: Review, address: str) -> bytes:
        now = time.time()
        outcome = judge_review(snapshot, cluster, review, now, entries=self._entries)
        answer: dict[str, Any] = {"uid": review.uid, "allowed": outcome.is_allowed}
        if outcome.mode == "off" or not review.is_judged:
            return _rendered(answer)
        key = messages.new_id() if outcome.refused or outcome.opened else ""
        if key:
            self._explain(answer, outcome, review, key, snapshot.number)
        if not review.is_dry_run and (outcome.images or outcome.refused or outcome.opened):
            is_kept = self.recorder.keep(
                key, cluster.pk, review, outcome, number=snapshot.number, address=address, at=now
            )  # fmt: skip
            if not is_kept:
                raise _Refused("503 Service Unavailable", b"A break-glass cannot be recorded now.\n")
            if outcome.opened and outcome.mode == "enforce" and outcome.is_allowed and not is_carried(review):
                sha256 = text_hash(outcome.breakglass)
                for name in outcome.opened_names:
                    self._entries.add(cluster.pk, key_of(review.namespace, review.workload, sha256, name), now)
        return _rendered(answer)

    def _explain(self, answer: dict[str, Any], outcome: Outcome, review: Review, key: str, number: int) -> None:
        page = f"{self.public_url}/why/{key}/"
        if not outcome.is_allowed:
            text = messages.message_of(outcome, review, page)
            answer["status"] = {"code": 403, "reason": "Forbidden", "message": text}
        elif outcome.refused and outcome.mode == "warn":
            answer["warnings"] = messages.warnings_of(outcome, page)
        answer["auditAnnotations"] = {
            "decision": key,
            "mode": outcome.mode,
            "code": (*outcome.refused, *outcome.opened)[0].code.value,
            "snapshot": str(number),
        }

    def _mutation(self, snapshot: Snapshot, cluster: ClusterEntry, review: Review) -> bytes:
        """Return a patch that names the images of a new Pod by the digests of their tags; what may not run stays.

        A cluster that does not want it gets none, whatever its webhooks are.
        """
        answer: dict[str, Any] = {"uid": review.uid, "allowed": True}
        binding = cluster.binding_for(review.namespace)
        is_off = "off" in {cluster.mode, binding.mode if binding else ""}
        is_new_pod = review.is_pod and review.operation == "CREATE"
        if cluster.mutate and binding is not None and is_new_pod and review.images and not is_off:
            changes = [(image.path, pinned(snapshot, binding, image)) for image in review.images if image.path]
            patch = [{"op": "replace", "path": path, "value": value} for path, value in changes if value]
            if patch:
                answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(patch)).decode()}
        return _rendered(answer)


_SAFE_HEADERS: Final = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


def _entry_keys(row: Mapping[str, Any]) -> list[str]:
    workload, sha256 = (row["workload_kind"], row["workload_name"]), text_hash(row["breakglass"])
    return [key_of(row["namespace"], workload, sha256, name) for name in row.get("digests", ())]


def _rendered(response: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response},
        default=str,
    )


def _body(environ: WSGIEnvironment) -> bytes:
    """Return the body; reads at most one byte more than BODY_MAX_BYTES."""
    length = environ.get("CONTENT_LENGTH") or ""
    stream = environ["wsgi.input"]
    if length:
        if not length.isascii() or not length.isdigit():
            raise _Refused("400 Bad Request", b"The Content-Length is not a number.\n")
        if len(length) > len(str(BODY_MAX_BYTES)) or int(length) > BODY_MAX_BYTES:
            raise _Refused("413 Content Too Large", b"The body is larger than 8 MiB.\n")
        return _read(stream, int(length))
    if not environ.get("wsgi.input_terminated"):
        return b""
    pieces, size = [], 0
    while piece := stream.read(min(_CHUNK, BODY_MAX_BYTES + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > BODY_MAX_BYTES:
            raise _Refused("413 Content Too Large", b"The body is larger than 8 MiB.\n")
    return b"".join(pieces)


def _read(stream: Any, length: int) -> bytes:
    """Return a body of known length; a sender that takes longer than READ_S for it is refused at the next piece."""
    if length <= _CHUNK:
        return bytes(stream.read(length))
    pieces, until = [], time.monotonic() + READ_S
    while length > 0 and (piece := stream.read(min(_CHUNK, length))):
        pieces.append(piece)
        length -= len(piece)
        if time.monotonic() > until:
            raise _Refused("408 Request Timeout", b"The body came too slowly.\n")
    return b"".join(pieces)


def log(event: str, **fields: str) -> None:
    """Write one line of JSON to standard error, as the rest of Gravingdock logs; structlog is set up by Django only."""
    sys.stderr.write(json.dumps({"event": event, **fields}) + "\n")
