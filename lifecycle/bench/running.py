"""Run one bench in its own environment, and return its results."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
from django.conf import settings

from lifecycle.bench.measuring import Unusable, peak_rss_mb
from lifecycle.bench.scratch import scratch
from lifecycle.bench.types import Figures

IMAGES_DEFAULT: Final = 10_000
NAMES: Final = ("ingest", "lineage", "api", "token", "audit", "rescan", "match", "promote", "admission", "runtime")
# Each has a module `measure_<name>`.
BUILT: Final = ("ingest", "lineage", "api", "token", "audit", "match", "rescan", "promote", "admission", "runtime")

Note = Callable[[str], None]


def run_apart(name: str, images: int) -> dict[str, Any]:
    """Create an environment, run the bench in it in a separate process, remove it, and return the report.

    Raises NoPlace, or Unusable when the bench failed (its errors are on standard error).
    """
    with scratch() as environment:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "bench", name, "--images", str(images), "--here"],
            cwd=settings.BASE_DIR,
            env=environment,
            stdin=subprocess.PIPE,  # never written to; it closes when this process ends, see _end_with_parent
            stdout=subprocess.PIPE,
            start_new_session=True,  # one group for all processes of the bench, not reached by Ctrl-C
        )
        try:
            assert process.stdout is not None  # noqa: S101 -- a pipe, three lines above
            out = process.stdout.read()
            process.wait()
        except BaseException:
            _end(process, signal.SIGTERM, 20)
            raise
        finally:
            _end(process, signal.SIGKILL, 5)
    if process.returncode:
        raise Unusable(f"The bench {name} failed (exit {process.returncode}).")
    report: dict[str, Any] = orjson.loads(out)
    return report


def run_here(name: str, images: int, *, note: Note) -> dict[str, Any]:
    """Measure in an environment created by `run_apart`; return the object that `--json` prints."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    measure: Callable[..., Figures] = importlib.import_module(f"lifecycle.bench.measure_{name}").measure
    started = time.monotonic()
    figures = measure(images, note=note)
    return {
        "bench": name,
        "images": images,
        "figures": {title: figure.as_json() for title, figure in figures.items()},
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def _end_with_parent() -> None:
    """End this process and its children when the parent, which removes the environment, has ended."""
    os.read(0, 1)
    os.killpg(os.getpgrp(), signal.SIGTERM)


def _end(process: subprocess.Popen[bytes], number: int, timeout_s: float) -> None:
    """Send a signal to the group of the bench, which may outlive its leader, and wait for the leader."""
    try:
        os.killpg(process.pid, number)
        process.wait(timeout=timeout_s)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        return
