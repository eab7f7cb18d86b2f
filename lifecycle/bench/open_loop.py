"""Load on a server over kept connections: at a fixed rate, or without a pause."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from config.embedded import ports

_CONNECTIONS: Final = 8
_COARSE_S: Final = 0.0015  # a timer of asyncio is late by up to a millisecond: the rest is waited for actively


@dataclass
class Times:
    """What an open loop found."""

    times_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@contextmanager
def without_pauses() -> Iterator[None]:
    """Keep the garbage collector of this process, which has loaded everything, out of the times that are measured."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def offered(port: int, request: bytes, seconds: float, *, rate: int, expected: bytes) -> Times:
    """Send `rate` requests a second, whatever the answers take; each time counts from when it was due.

    An answer without `expected` in its body is a problem.
    """
    found = Times()
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(_CONNECTIONS * 4):
        free.put_nowait(await asyncio.open_connection(ports.LOOPBACK, port))

    async def send(due: float) -> None:
        reader, writer = await free.get()
        try:
            content = await _ask(reader, writer, request)
            found.times_ms.append(1000 * (time.perf_counter() - due))
            if expected not in content:
                found.problems.append(content.decode(errors="replace"))
        except (OSError, asyncio.IncompleteReadError) as error:
            found.problems.append(repr(error))
        free.put_nowait((reader, writer))

    started = time.perf_counter()
    tasks = []
    for number in range(int(seconds * rate)):
        due = started + number / rate
        if (wait := due - time.perf_counter() - _COARSE_S) > 0:
            await asyncio.sleep(wait)
        while time.perf_counter() < due:
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(send(due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait()[1].close()
    return found


def per_core_s(pid: int, port: int, request: bytes, seconds: float) -> float:
    """Return the answers per CPU second of the server `pid` and its workers, asked without a pause."""
    asyncio.run(_closed(port, request, min(seconds, 0.5)))
    used = _cpu_s(pid)
    count = asyncio.run(_closed(port, request, seconds))
    return count / max(_cpu_s(pid) - used, 0.01)


def rss_mb(pid: int) -> float:
    """Return the memory of the largest process of a server."""
    sizes = []
    for one in _pids(pid):
        status = Path(f"/proc/{one}/status").read_text()
        sizes.append(int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]))
    return max(sizes) / 1024


def _pids(pid: int) -> list[int]:
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def _cpu_s(pid: int) -> float:
    total = 0
    for one in _pids(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


async def _closed(port: int, request: bytes, seconds: float) -> int:
    counts = [0] * _CONNECTIONS
    deadline = time.perf_counter() + seconds

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection(ports.LOOPBACK, port)
        while time.perf_counter() < deadline:
            await _ask(reader, writer, request)
            counts[number] += 1
        writer.close()

    await asyncio.gather(*(ask(number) for number in range(_CONNECTIONS)))
    return sum(counts)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Send one request over an open connection, and return the body of the answer."""
    writer.write(request)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    return await reader.readexactly(length)
