"""Measuring tools of the benches: timers, percentiles, memory, and HTTP over a persistent connection."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from lifecycle.core.errors import LifecycleError

REPEATS: Final = 30  # measured calls of one action, after two calls that warm the caches
_WARM_UPS: Final = 2
_LOAD_S: Final = 3.0  # duration of the load with parallel clients
TRIAL: Final = 1000  # images; a run with fewer is only a trial, and its figures mean nothing


class Unusable(LifecycleError):
    """The measured action failed, so there is no figure."""

    code = "bench_unusable"
    http_status = 500


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def seconds_of(action: Callable[[], Any]) -> float:
    """Return the duration of `action` in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def timings_ms(actions: Iterable[Callable[[], Any]]) -> list[float]:
    """Return the duration of each action in milliseconds."""
    return [1000 * seconds_of(action) for action in actions]


def repeats_for(images: int, repeats: int = REPEATS) -> int:
    """Return the number of repeats, which is smaller for a trial."""
    return repeats if images >= TRIAL else 3


def load_s_for(images: int) -> float:
    """Return the duration of a load test in seconds."""
    return _LOAD_S if images >= TRIAL else 0.3


def repeated_ms(action: Callable[[], Any], *, repeats: int) -> list[float]:
    """Return the durations of a repeated action in milliseconds, without the warm-up calls."""
    return timings_ms([action] * (repeats + _WARM_UPS))[_WARM_UPS:]


def peak_rss_mb() -> float:
    """Return the peak memory of this process in MB."""
    # Not getrusage: it includes the peak of the parent process.
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


class Caller:
    """One client with a persistent connection, like a browser or a script."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._headers = dict(headers)
        self.database_ms: list[float] = []  # of each response, from its Server-Timing

    def get(self, path: str) -> bytes:
        """Return the body of a 200 response; raises Unusable for any other status."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Unusable(f"GET {path} returned {answer.status}: {body[:300]!r}")
        timing = re.search(r"db;dur=([0-9.]+)", answer.headers.get("Server-Timing", ""))
        if timing is not None:
            self.database_ms.append(float(timing[1]))
        return body

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Send a JSON body; raises Unusable for any status that is not 2xx."""
        self.post_bytes(path, orjson.dumps(body), {"Idempotency-Key": os.urandom(8).hex()})

    def post_bytes(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a body as it is; raises Unusable for any status that is not 2xx."""
        sent = {**self._headers, "Content-Type": "application/json", **headers}
        self._connection.request("POST", path, body=body, headers=sent)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status // 100 != 2:
            raise Unusable(f"POST {path} returned {answer.status}: {content[:300]!r}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def requests_per_s(
    make: Callable[[], Caller], path: str, *, seconds: float, clients: int = 4, body: Mapping[str, Any] | None = None
) -> float:
    """Return the responses per second of `clients` that each send a request after each response (closed loop).

    It is a POST with a `body`. Raises Unusable when a request fails.
    """
    counts = [0] * clients
    problems: list[Exception] = []
    deadline = time.monotonic() + seconds

    def send_requests(number: int) -> None:
        caller = make()
        try:
            while time.monotonic() < deadline:
                if body is None:
                    caller.get(path)
                else:
                    caller.post(path, body)
                counts[number] += 1
        except (OSError, http.client.HTTPException, Unusable) as error:
            problems.append(error)
        finally:
            caller.close()

    threads = [threading.Thread(target=send_requests, args=(number,)) for number in range(clients)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Unusable(f"A request failed under load: {problems[0]}")
    return sum(counts) / (time.monotonic() - started)
