"""The web process: granian serves Django and the token endpoint as WSGI, with one main process and some workers.

`python -m config.embedded.web PORT WORKERS` holds the port, checks that no other program listens on it, and becomes
granian.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from config.embedded import ports
from config.embedded.supervisor import MARK

_WORKERS_MAX: Final = 4  # about 120 MB each
THREADS: Final = 8  # per worker; requests mostly wait for PostgreSQL and the registry
_WAIT_S: Final = 10.0  # for the end of our previous web process


def command(port: int, *, workers: int | None = None) -> list[str]:
    """Return the command of the web server on a loopback port. The default is one worker per core, up to four."""
    count = workers or min(len(os.sched_getaffinity(0)), _WORKERS_MAX)
    return [sys.executable, "-m", "config.embedded.web", str(port), str(count)]


def _granian(port: int, workers: int) -> list[str]:
    return [
        str(Path(sys.executable).with_name("granian")), "--interface", "wsgi", "--no-ws",
        "--host", ports.LOOPBACK, "--port", str(port),
        "--workers", str(workers), "--blocking-threads", str(THREADS), "config.wsgi:application",
    ]  # fmt: skip


def take(port: int, *, wait_s: float = _WAIT_S) -> None:
    """Hold the port for the server that this process becomes; raises PortTaken when another program uses it.

    A worker that outlived our previous web process is ended: it would share the port with the new one.
    """
    deadline = time.monotonic() + wait_s
    is_held = False
    while True:
        is_held = is_held or ports.hold_as_server(port)
        if is_held and ports.is_free(port):
            return
        if time.monotonic() > deadline:
            raise ports.PortTaken(f"Port {port} is used by {ports.holder(port)}.")
        for pid in ports.listeners(port):  # it can also still have the socket with which its parent held the port
            if pid and _is_of_our_home(pid):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _is_of_our_home(pid: int) -> bool:
    home = os.environ.get(MARK)
    try:
        return bool(home) and f"{MARK}={home}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def main() -> NoReturn:
    """Become the web server; ends with status 1 and a message when another program uses the port."""
    port, workers = map(int, sys.argv[1:3])
    try:
        take(port)
    except ports.PortTaken as problem:
        raise SystemExit(f"gravingdock: {problem}") from None
    words = _granian(port, workers)
    os.execv(words[0], words)  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    main()
