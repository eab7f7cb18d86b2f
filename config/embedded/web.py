"""The web process: granian serving Django and the token service as WSGI, one master over some workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from config.embedded import ports

_WORKERS_MAX: Final = 4  # some 120 MB each
_THREADS: Final = 8  # of each worker: requests wait for PostgreSQL and the registry most of their time


def command(port: int, *, workers: int | None = None) -> list[str]:
    """Return the command that serves on a loopback port: as many workers as there are cores, up to four."""
    count = workers or min(len(os.sched_getaffinity(0)), _WORKERS_MAX)
    return [
        str(Path(sys.executable).with_name("granian")), "--interface", "wsgi", "--no-ws",
        "--host", ports.LOOPBACK, "--port", str(port),
        "--workers", str(count), "--blocking-threads", str(_THREADS), "config.wsgi:application",
    ]  # fmt: skip
