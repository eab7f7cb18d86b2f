"""Progress output of the demonstration: one line for each finished step, with its duration."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class DemonstrationFailed(Exception):
    """The demonstration cannot continue. The message is for the user who started it."""


class Line:
    """The output line of a running step, which the step can extend."""

    def __init__(self, text: str) -> None:
        self.text = text

    def add(self, more: str) -> None:
        """Append text to the line."""
        self.text += more


class Teller:
    """Prints acts and steps from any thread. Setting `stop` ends the other threads."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.stop = threading.Event()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self._started, 1)

    def say(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            self._write(text)

    def act(self, title: str) -> None:
        """Print a heading, with the time since the start."""
        minutes, seconds = divmod(int(self.seconds), 60)
        self.say(f"\n[{minutes}:{seconds:02}] {title}")

    @contextmanager
    def step(self, text: str) -> Iterator[Line]:
        """Print the line with its duration when the block has finished. Failures are reported by the caller."""
        started, line = time.monotonic(), Line(text)
        yield line
        self.say(f"  {time.monotonic() - started:6.1f} s  {line.text}")

    def check(self) -> None:
        """Raise DemonstrationFailed after a failure in another thread or an interrupt. Long steps must call it."""
        if self.stop.is_set():
            raise DemonstrationFailed("The demonstration was stopped.")
