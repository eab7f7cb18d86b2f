"""Free TCP ports, and the processes that use the others.

Granian listens with SO_REUSEPORT: the kernel lets a second server of the same user listen too, and gives each of them
a part of the requests. So a port is held from its choice until a server listens on it, and the server then holds it.
"""

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
# Addresses in /proc/net/tcp and tcp6 that take connections to the loopback: 127.0.0.1, ::1, mapped, and all.
_LOOPBACK_OR_ANY: Final = frozenset(
    {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F", "00000000", "0" * 32}
)


class PortTaken(RuntimeError):
    """Another program uses a port of this installation."""


_held: Final[dict[int, socket.socket]] = {}  # by this process


def hold(port: int) -> bool:
    """Hold the port against other installations until this process ends; return False when another one holds it.

    The name of an abstract socket has the scope of a port, the network namespace. It needs no file, and the kernel
    releases it with the process.
    """
    if port in _held:
        return True
    claim = _claim(f"choice-{port}")
    if claim is None:
        return False
    _held[port] = claim
    return True


def release(*chosen: int) -> None:
    """Release ports that this process holds; all of them without arguments."""
    for port in chosen or tuple(_held):
        if (claim := _held.pop(port, None)) is not None:
            claim.close()


def hold_as_server(port: int) -> bool:
    """Hold the port for a server that this process becomes by exec; return False when another server holds it."""
    claim = _claim(f"server-{port}")
    if claim is None:
        return False
    claim.set_inheritable(True)
    claim.detach()  # stays open in the program that replaces this one
    return True


def _claim(name: str) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0gravingdock-{name}")
    except OSError:
        claim.close()
        return None
    return claim


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
    """Return `preferred`, or the next free port above it, and hold it; raises OSError when none of `tries` is free."""
    for port in range(preferred, preferred + tries):
        if port in taken or not hold(port):
            continue
        if is_free(port):  # checked while it is held, so no other start chooses it
            return port
        release(port)
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
    for pid in listeners(port):
        if pid:
            return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (process {pid})"
    return "another process"


def listeners(port: int) -> set[int]:
    """Return the IDs of the processes that listen on the loopback port; 0 stands for processes of other users."""
    inodes = _listening_inodes(port)
    seen: set[str] = set()
    pids: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    seen.add(target[8:-1])
                    pids.add(int(entry.name))
        except OSError:
            continue
    return pids | ({0} if inodes - seen else set())


def _listening_inodes(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            address, _, number = columns[1].rpartition(":")
            if columns[3] == "0A" and int(number, 16) == port and address in _LOOPBACK_OR_ANY:  # 0A: LISTEN
                inodes.add(columns[9])
    return inodes
