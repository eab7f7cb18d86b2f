"""CEL expressions, evaluated in a process of their own with a limit of time and memory (docs/adr/0015).

The library cannot be interrupted and has no limit of its own. An expression with five nested loops would otherwise hang
a worker for hours.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from lifecycle.policy.expressions import Answer

log = structlog.get_logger(__name__)

CPU_S: Final = 1.0  # processor time of one expression
WALL_S: Final = 20.0  # on a busy machine
MEMORY_BYTES: Final = 1024**3  # address space of the process
_AHEAD: Final = 16  # texts; the answers to these, of at most 4 KiB each, fit into a pipe of 64 KiB
_ROOT: Final = Path(__file__).resolve().parents[2]
TOO_LONG: Final = f"it takes longer than {CPU_S:.0f} s or too much memory"


class _Died(Exception):
    """The process ended, or did not answer in time."""


class Evaluator:
    """One child process, started when it is needed, and again after an expression that it did not survive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0  # a forked worker must not talk to the child of its parent
        self._buffer = b""

    def evaluate(self, texts: list[str], values: Mapping[str, Any]) -> list[Answer]:
        """Return one answer for each text. A text without a value has a problem instead; no text stops another one."""
        with self._lock:
            return self._each(texts, values)

    def _each(self, texts: list[str], values: Mapping[str, Any]) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < len(texts):
            try:
                self._ask(texts[len(answers) :], values)
                while len(answers) < len(texts):
                    answers.append(self._next())
            except (_Died, OSError) as error:
                log.warning("cel_process_ended", problem=str(error))
                self.close()
                answers.append(Answer(None, TOO_LONG))
        return answers

    def evaluate_many(self, requests: Sequence[tuple[list[str], Mapping[str, Any]]]) -> list[list[Answer]]:
        """Return the answers for each (texts, values), like `evaluate` for each of them.

        The child works on one while the next ones wait in its pipe, so that neither process waits for the other. At
        most _AHEAD texts are under way: the answers of more could fill the other pipe, and stop both.
        """
        found: list[list[Answer]] = []
        start = 0
        with self._lock:
            while start < len(requests):
                end, count = start, 0
                while end < len(requests) and (end == start or count + len(requests[end][0]) <= _AHEAD):
                    count += len(requests[end][0])
                    end += 1
                found += self._together(requests[start:end])
                start = end
        return found

    def _together(self, requests: Sequence[tuple[list[str], Mapping[str, Any]]]) -> list[list[Answer]]:
        found: list[list[Answer]] = []
        try:
            for texts, values in requests:
                self._ask(texts, values)
            for texts, _ in requests:
                found.append([self._next() for _ in texts])
        except (_Died, OSError):  # one of them was too much: each on its own says which
            self.close()
            return [self._each(texts, values) for texts, values in requests]
        return found

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child, self._buffer = self._child, None, b""
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be written to a process that is gone
                    continue
        child.wait()

    def _ask(self, texts: list[str], values: Mapping[str, Any]) -> None:
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            self.close()
            self._child = _start()
            self._owner = os.getpid()
        if self._child.stdin is None:
            raise _Died("no pipe")
        self._child.stdin.write(orjson.dumps({"values": values, "texts": texts}) + b"\n")
        self._child.stdin.flush()

    def _next(self) -> Answer:
        record = orjson.loads(self._line())
        return Answer(record.get("value"), record.get("problem", ""))

    def _line(self) -> bytes:
        child = self._child
        if child is None or child.stdout is None:
            raise _Died("no child")
        until = time.monotonic() + WALL_S
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise _Died("no answer in time")
                if not (more := os.read(child.stdout.fileno(), 65536)):
                    raise _Died("ended")
                self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lifecycle.policies.cel_child", str(CPU_S), str(MEMORY_BYTES)]
    environment = {"PYTHONPATH": str(_ROOT), "PATH": os.environ.get("PATH", "")}  # no secret of ours
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", env=environment
    )


_EVALUATOR: Final = Evaluator()


def evaluate(texts: list[str], values: Mapping[str, Any]) -> list[Answer]:
    """Return one answer for each text: `policy.images.Evaluate` for this process."""
    return _EVALUATOR.evaluate(texts, values)


def evaluate_many(requests: Sequence[tuple[list[str], Mapping[str, Any]]]) -> list[list[Answer]]:
    """Return the answers for each (texts, values)."""
    return _EVALUATOR.evaluate_many(requests)
