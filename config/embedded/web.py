"""The web process: granian serves Django and the token endpoint as WSGI, with one main process and some workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from config.embedded import ports

_WORKERS_MAX: Final = 4  # about 120 MB each
_THREADS: Final = 8  # per worker; requests mostly wait for PostgreSQL and the registry


def command(port: int, *, workers: int | None = None) -> list[str]:
    """Return the command of the web server on a loopback port. The default is one worker per core, up to four."""
    count = workers or min(len(os.sched_getaffinity(0)), _WORKERS_MAX)
    return [
        str(Path(sys.executable).with_name("granian")), "--interface", "wsgi", "--no-ws",
        "--host", ports.LOOPBACK, "--port", str(port),
        "--workers", str(count), "--blocking-threads", str(_THREADS), "config.wsgi:application",
    ]  # fmt: skip
