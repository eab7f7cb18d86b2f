"""A registry that answers with the worst: each job ends with a named limit or refusal, and the others go on."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lifecycle.core.http import HttpClient
from lifecycle.core.types import Digest
from lifecycle.ingest import services as ingest
from lifecycle.ingest.models import Delivery
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.oci.authorization import SelfIssued
from lifecycle.oci.constants import MediaType
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.registry.models import Image
from lifecycle.registry.services import ensure_managed_registry
from tests.factories import dock, oci
from tests.factories.deliveries import event

pytestmark = pytest.mark.django_db

Pieces = Callable[[], Iterator[bytes]]


class Worst(ThreadingHTTPServer):
    """A registry on a loopback port: what it serves under which path, piece by piece."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.served: dict[str, tuple[str, Pieces]] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what these tests want."""

    def put(self, digest: str, pieces: Pieces, media_type: str = MediaType.OCI_MANIFEST) -> None:
        self.served[f"/v2/shop/api/manifests/{digest}"] = (media_type, pieces)

    def put_document(self, raw: bytes, media_type: str = MediaType.OCI_MANIFEST) -> str:
        digest = Digest.of(raw).text
        self.put(digest, lambda: iter([raw]), media_type)
        return digest


class Answering(BaseHTTPRequestHandler):
    server: Worst
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        media_type, pieces = self.server.served.get(self.path, ("", None))
        self.send_response(200 if pieces else 404)
        self.send_header("Content-Type", media_type or "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces() if pieces else ():
            self.wfile.write(piece)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def worst(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Worst]:
    server = Worst()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = f"127.0.0.1:{server.server_address[1]}"
    settings.OUTBOUND_ALLOW = [address]
    http = HttpClient(sleep=lambda seconds: None)
    client = HttpRegistryClient(f"http://{address}", http=http, authorizer=SelfIssued())
    monkeypatch.setattr(ingest, "client_for", lambda row: client)
    dock.user("anna", "owner", of=dock.team("shop"))
    yield server
    http.close()
    server.shutdown()
    thread.join()
    server.server_close()


def index_over(*children: str, media_type: str = MediaType.OCI_MANIFEST) -> bytes:
    entries = [{"mediaType": media_type, "digest": child, "size": 2} for child in children]
    return json.dumps({"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}).encode()


def endless() -> Iterator[bytes]:
    while True:
        yield b" " * 65536


def drip() -> Iterator[bytes]:
    for _ in range(200):
        yield b" "
        time.sleep(0.05)


def nested(worst: Worst, levels: int) -> str:
    digest = worst.put_document(oci.image("x").manifest.content)
    for _ in range(levels):
        digest = worst.put_document(index_over(digest, media_type=MediaType.OCI_INDEX), MediaType.OCI_INDEX)
    return digest


def circle(worst: Worst) -> str:
    """Return an index that names itself; no hash can, so the bytes are not the digest's."""
    digest = oci.sha(b"circle")
    worst.put(digest, lambda: iter([index_over(digest, media_type=MediaType.OCI_INDEX)]), MediaType.OCI_INDEX)
    return digest


def under(worst: Worst, pieces: Pieces) -> str:
    digest = oci.sha(b"whatever")
    worst.put(digest, pieces)
    return digest


CASES: dict[str, tuple[Callable[[Worst], str], str]] = {
    "a manifest of 100 MB": (lambda w: under(w, lambda: iter([b" " * 1_000_000] * 100)), "limit_exceeded"),
    "a body without end": (lambda w: under(w, endless), "limit_exceeded"),
    "other bytes than the digest's": (lambda w: under(w, lambda: iter([b"{}"])), "digest_mismatch"),
    "an index that names itself": (circle, "digest_mismatch"),
    "indexes in indexes": (lambda w: nested(w, 7), "limit_exceeded"),
    "10,000 children": (
        lambda w: w.put_document(index_over(*(oci.sha(str(n).encode()) for n in range(10_000))), MediaType.OCI_INDEX),
        "limit_exceeded",
    ),
    "a key twice": (
        lambda w: w.put_document(b'{"schemaVersion":2,' + oci.image("x").manifest.content[1:]),
        "malformed_manifest",
    ),
    "no UTF-8": (lambda w: w.put_document(b'{"schemaVersion":2,"annotations":{"a":"\xff"}}'), "malformed_manifest"),
    "JSON too deep": (lambda w: w.put_document(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), "malformed_manifest"),
    "no JSON": (lambda w: w.put_document(b"\x00" * 100), "malformed_manifest"),
}


def ingest_digest(digest: str, number: int = 1) -> Job:
    ingest.receive(ensure_managed_registry(), json.dumps({"events": [event(number, digest)]}).encode())
    job = Job.objects.filter(kind="ingest").latest("pk")
    running.run(job.pk)
    job.refresh_from_db()
    return job


@pytest.mark.parametrize("what", sorted(CASES))
def test_the_job_ends_named_and_soon_and_others_go_on(worst: Worst, what: str) -> None:
    make, code = CASES[what]
    before_kb, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    job = ingest_digest(make(worst))
    assert (job.state, job.error_code, job.attempts) == (Job.State.FAILED, code, 1)
    assert Delivery.objects.get().problem
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100 * 1024
    assert not Image.objects.exists()

    good = oci.image("good")
    worst.put_document(good.manifest.content)
    for digest, blob in good.blobs.items():
        worst.served[f"/v2/shop/api/blobs/{digest}"] = ("application/octet-stream", lambda blob=blob: iter([blob]))
    job = ingest_digest(good.manifest.digest.text, 2)
    assert (job.state, job.last_error) == (Job.State.SUCCEEDED, "")
    assert Image.objects.get().layer_count == 1


def test_a_drip_is_cut_and_tried_again_later(worst: Worst, monkeypatch: pytest.MonkeyPatch) -> None:
    real = HttpClient.request
    monkeypatch.setattr(HttpClient, "request", lambda *a, **more: real(*a, **{**more, "deadline_s": 0.3}))
    job = ingest_digest(under(worst, drip))
    assert (job.state, job.error_code) == (Job.State.WAITING, "registry_unavailable")
    assert job.not_before is not None
