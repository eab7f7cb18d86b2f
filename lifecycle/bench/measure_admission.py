"""Admission bench: how many reviews one core answers, how long each takes, also while snapshots are swapped."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from accounts.queries import system_user
from config.embedded import ports
from lifecycle.admission import snapshot
from lifecycle.admission.constants import THREADS
from lifecycle.admission.queries import snapshot_of_one_moment
from lifecycle.authority.services.environments import create_environment
from lifecycle.bench import loading, open_loop
from lifecycle.bench.measuring import Unusable, load_s_for, percentile, seconds_of
from lifecycle.bench.types import Figure, Figures
from lifecycle.clusters import services as clusters
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import RepositoryImage

_RATE_TARGET: Final = 4000.0  # reviews/s on one core
_RATIO_TARGET: Final = 10.0  # to a Django view that asks the database
_P99_TARGET_MS: Final = 3.0
_P99_SWAP_TARGET_MS: Final = 5.0
_RSS_TARGET_MB: Final = 150.0
_OFFERED: Final = 1000  # reviews/s of the open loop
_PROMOTED_MAX: Final = 2000
_SWAP_EVERY_S: Final = 0.5
# Puts files in place of the snapshot in turn, until it is killed. A process of its own: a thread would hold back the
# reviews that are sent, and its time would look like the server's.
_SWAPPER: Final = """
import os, shutil, sys, time
target, every_s, *sources = sys.argv[1:]
number = 0
while True:
    time.sleep(float(every_s))
    number += 1
    shutil.copyfile(sources[number % len(sources)], target + ".draft")
    os.replace(target + ".draft", target)
"""


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load images and promote some, write a snapshot, and send reviews to a server that knows no database."""
    dock = loading.load(images, note=note)
    loading.complete(dock, note=note)
    team = RepositoryImage.objects.select_related("repository__team").earliest("pk").repository.team
    actor = system_user()
    place = create_environment(team, actor=actor, slug="bench-live", name="Live", prefix="bench-live")
    clusters.create_cluster(team, "bench", actor=actor, mode="enforce", unbound="deny")
    clusters.set_bindings("bench", [BindingWish("prod*", "bench-live")], actor=actor)
    _, secret = clusters.create_secret("bench", "admission", actor=actor)
    rows = RepositoryImage.objects.select_related("image", "repository").order_by("pk")[:_PROMOTED_MAX]
    now = clock.now()
    PromotionRequest.objects.bulk_create(
        [
            PromotionRequest(
                image=row.image, repository=row.repository, environment=place, tag="1.0", state="succeeded",
                requested_by=actor, reason="bench", approve_by=now, finished_at=now,
            )
            for row in {row.image_id: row for row in rows}.values()
        ]
    )  # fmt: skip
    digests = [row.image.digest for row in rows]
    host = rows[0].repository.registry.host
    folder = Path(settings.HOME) / "admission"
    note("writing the snapshot")
    contents: list[bytes] = []
    build_s = seconds_of(lambda: contents.append(snapshot_of_one_moment(1)[0]))
    contents.append(snapshot_of_one_moment(2)[0])
    snapshot.write(folder, contents[0])
    body = _review(f"{host}/bench/app@{digests[0]}")
    seconds = load_s_for(images)
    note("calling a plain Django view")
    view = _view_per_s(body, seconds)
    with _server(folder) as server:
        note("sending reviews")
        path = f"/admission/bench/{secret}"
        core = server.per_core_s(path, body, seconds)
        with open_loop.without_pauses():
            steady = server.offered(path, body, seconds)
            with _swapping(folder, contents):
                swapped = server.offered(path, body, seconds)
        rss = server.rss_mb()
    errors = len(steady.problems) + len(swapped.problems)
    if errors:
        note(f"first error: {(steady.problems + swapped.problems)[0][:300]}")
    return {
        "reviews_per_s_core": Figure(core, "reviews/s", _RATE_TARGET),
        "times_a_django_view": Figure(core / view, "x", _RATIO_TARGET),
        "p99_ms_at_1000": Figure(percentile(steady.times_ms, 0.99), "ms", _P99_TARGET_MS),
        "p99_ms_during_swap": Figure(percentile(swapped.times_ms, 0.99), "ms", _P99_SWAP_TARGET_MS),
        "errors": Figure(errors, "errors", 0),
        "server_rss": Figure(rss, "MB", _RSS_TARGET_MB),
        "snapshot_written": Figure(build_s, "s", 2.0),
        "snapshot_size": Figure(len(contents[0]) / 1e6, "MB"),
    }


def _review(reference: str) -> bytes:
    """Return the review of a Pod of the usual size, about 3.4 KB."""
    managed = [{"manager": "kubectl", "fieldsV1": {"f:metadata": {f"f:label-{n}": {} for n in range(100)}}}]
    container = {"name": "app", "image": reference, "env": [{"name": f"V{n}", "value": "x"} for n in range(30)]}
    request = {
        "uid": "0f0e7c1e-9d0e-4e1c-8a35-9a2f0a0f0f0f", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "namespace": "prod-shop", "operation": "CREATE", "userInfo": {"username": "kim", "groups": ["a", "b"]},
        "object": {"metadata": {"generateName": "web-", "managedFields": managed}, "spec": {"containers": [container]}},
    }  # fmt: skip
    return orjson.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})


def _view_per_s(body: bytes, seconds: float) -> float:
    """Return the reviews per CPU second of a view that asks the database, with the middleware of the product."""
    with override_settings(ROOT_URLCONF="lifecycle.bench.plain_view"):
        handler = WSGIHandler()

        def ask() -> None:
            environ = {
                "REQUEST_METHOD": "POST", "PATH_INFO": "/review", "QUERY_STRING": "",
                "CONTENT_TYPE": "application/json",
                "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "wsgi.url_scheme": "http",
                "SERVER_NAME": "localhost", "SERVER_PORT": "80", "HTTP_HOST": settings.ALLOWED_HOSTS[0],
                "REMOTE_ADDR": "127.0.0.1", "wsgi.errors": io.StringIO(),
            }  # fmt: skip
            statuses: list[str] = []

            def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], object]:
                statuses.append(status)
                return lambda content: None

            answer = handler(environ, start)
            content = b"".join(answer)
            answer.close()
            if not statuses[0].startswith("200") or b'"allowed":true' not in content:
                raise Unusable(f"The plain view returned {statuses[0]}: {content[:200]!r}")

        ask()
        count, started, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            ask()
            count += 1
        return count / (time.process_time() - used)


class _Server:
    """The admission application in granian, without TLS: the load would otherwise cost more than the answers."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        words = [
            str(Path(sys.executable).with_name("granian")), "--interface", "wsgi", "--no-ws", "--host", ports.LOOPBACK,
            "--port", str(port), "--workers", "1", "--blocking-threads", str(THREADS),
            "config.admission:application",
        ]  # fmt: skip
        # No address of a database, of Redis or of a registry: it answers without them.
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "GRAVINGDOCK_HOME") if name in os.environ}
        environment = {**kept, "ADMISSION_FOLDER": str(folder), "PUBLIC_URL": "http://localhost:1"}
        self._process = subprocess.Popen(
            words, cwd=settings.BASE_DIR, env=environment, stdin=subprocess.DEVNULL, stdout=2
        )
        deadline = time.monotonic() + 60
        while not ports.is_listening(port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise Unusable("The admission server did not start.")
            time.sleep(0.05)

    def rss_mb(self) -> float:
        """Return the memory of the largest process of the server."""
        return open_loop.rss_mb(self._process.pid)

    def per_core_s(self, path: str, body: bytes, seconds: float) -> float:
        """Return the reviews per CPU second of the server, asked without a pause."""
        return open_loop.per_core_s(self._process.pid, self.port, _request(path, body), seconds)

    def offered(self, path: str, body: bytes, seconds: float) -> open_loop.Times:
        """Send _OFFERED reviews a second, whatever the answers take; each time counts from when it was due."""
        return asyncio.run(
            open_loop.offered(self.port, _request(path, body), seconds, rate=_OFFERED, expected=b'"allowed":true')
        )

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(20)


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path}?timeout=3s HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def _server(folder: Path) -> Iterator[_Server]:
    (port,) = ports.scratch(1)
    made = _Server(folder, port)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def _swapping(folder: Path, contents: list[bytes]) -> Iterator[None]:
    """Put another snapshot in place twice a second."""
    sources = []
    for number, content in enumerate(contents):
        sources.append(folder / f"bench-{number}")
        sources[-1].write_bytes(content)
    words = [sys.executable, "-c", _SWAPPER, str(folder / snapshot.NAME), str(_SWAP_EVERY_S), *map(str, sources)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield
        if process.poll() is not None:
            raise Unusable("The snapshots were not swapped.")
    finally:
        process.kill()
        process.wait()
