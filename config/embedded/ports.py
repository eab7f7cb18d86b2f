"""Free TCP ports, and the processes that use the others."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
# Below Linux's ephemeral range (from 32768), so that no outgoing connection takes a port before we use it.
_SCRATCH: Final = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now. Also checks ::1, which browsers try first."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return not is_listening(port, host="::1")


def is_listening(port: int, host: str = LOOPBACK, timeout_s: float = 1.0) -> bool:
    """Return whether a process accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def choose(preferred: int, *, taken: Collection[int] = (), tries: int = 200) -> int:
    """Return `preferred`, or the next free port above it; raises OSError when none of `tries` ports is free."""
    for port in range(preferred, preferred + tries):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free TCP port between {preferred} and {preferred + tries - 1}")


def scratch(count: int) -> list[int]:
    """Return `count` different free ports for short-lived servers, outside the well-known and ephemeral ranges."""
    free_ports: list[int] = []
    for port in random.SystemRandom().sample(_SCRATCH, k=2_000):
        if is_free(port):
            free_ports.append(port)
            if len(free_ports) == count:
                return free_ports
    raise OSError(f"fewer than {count} free TCP ports between {_SCRATCH.start} and {_SCRATCH.stop - 1}")


def holder(port: int) -> str:
    """Return "name (process ID)" of the process that listens on the port, or "another process" if it is not visible."""
    inodes = _listening_inodes(port)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    return f"{(entry / 'comm').read_text().strip()} (process {entry.name})"
        except OSError:
            continue
    return "another process"


def _listening_inodes(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:  # 0A: LISTEN
                inodes.add(columns[9])
    return inodes
