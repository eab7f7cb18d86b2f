"""What people see while it runs: a line for each step that ended, with its seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class DemonstrationFailed(Exception):
    """The story cannot go on; the message is for the person who started it."""


class Line:
    """The line of a step that is under way; what happens may add to it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def add(self, more: str) -> None:
        """Say more at the end of the line."""
        self.text += more


class Teller:
    """Prints acts and steps, from any thread; `stop` ends what other threads do."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.stop = threading.Event()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
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
        """Print the line when its work is done, with the seconds that took; a failure is told by who catches it."""
        started, line = time.monotonic(), Line(text)
        yield line
        self.say(f"  {time.monotonic() - started:6.1f} s  {line.text}")

    def check(self) -> None:
        """Raise when another thread has failed, or the person has interrupted: for what runs long."""
        if self.stop.is_set():
            raise DemonstrationFailed("It was stopped.")
