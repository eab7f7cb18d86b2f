"""Runs the program of a build: its output as clean lines, its time limit, and regular checks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from django.conf import settings

from lifecycle.rebuild.types import BuildFailed

Log = Callable[[str], None]
Check = Callable[[], None]

_ANSI: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
CHECK_EVERY_S: Final = 2.0
LOG_LINES_MAX: Final = 20_000  # of one build
LOG_LINE_MAX: Final = 64 * 1024  # bytes without a line end


class Output:
    """The log of one build. `secrets` are texts that never reach it."""

    def __init__(self, *, secrets: Sequence[str], log: Log, check: Check) -> None:
        self._secrets, self._log, self._check = secrets, log, check
        self._deadline = time.monotonic() + settings.BUILD_TIMEOUT_S
        self._lines_left = LOG_LINES_MAX

    def run(
        self, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path | None = None
    ) -> tuple[int, str]:
        """Run a program to its end; return its exit code and its last line.

        Kills it, with all its processes, after the time limit (BuildFailed) and when `check` raises an error.
        """
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        last = ""
        try:
            for line in self._lines(process):
                last = line or last
                self._write(line)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        return process.returncode, last

    def say(self, line: str) -> None:
        """Log a line of our own."""
        self._write(line)

    def _write(self, line: str) -> None:
        """Log a line, up to the maximum for one build."""
        self._lines_left -= 1
        if self._lines_left > 0:
            self._log(line)
        elif self._lines_left == 0:
            self._log(f"The log has more than {LOG_LINES_MAX} lines. The rest is not stored.")

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[str]:
        """Yield cleaned lines as they arrive, and call `check` regularly; raises BuildFailed after the time limit."""
        if process.stdout is None:
            return
        os.set_blocking(process.stdout.fileno(), False)
        rest = b""
        next_check = time.monotonic() + CHECK_EVERY_S
        while True:
            has_ended = process.poll() is not None  # before the read, so that the last output is in the pipe
            chunk = process.stdout.read()
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield self._clean(line)
                if len(rest) > LOG_LINE_MAX:
                    yield self._clean(rest)
                    rest = b""
            elif has_ended:
                break
            else:
                time.sleep(0.1)
            if time.monotonic() > self._deadline:
                raise BuildFailed(
                    f"The build took longer than {settings.BUILD_TIMEOUT_S} s, the limit of BUILD_TIMEOUT_S."
                )
            if time.monotonic() > next_check:
                self._check()
                next_check = time.monotonic() + CHECK_EVERY_S
        if rest:
            yield self._clean(rest)

    def _clean(self, line: bytes) -> str:
        text = _ANSI.sub("", line.decode(errors="replace"))
        for secret in self._secrets:
            text = text.replace(secret, "<mirror>")
        return "".join(c for c in text if c.isprintable() or c == "\t").rstrip()
