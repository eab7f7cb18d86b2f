"""Actions of several users at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection

from lifecycle.core.errors import LifecycleError


class Race:
    """Actions that start at the same moment, each in its own thread and connection."""

    def __init__(self, *acts: Callable[[], Any]) -> None:
        self.done: list[int] = []
        self.refused: list[LifecycleError] = []
        self.crashed: list[BaseException] = []
        barrier = threading.Barrier(len(acts))
        threads = [threading.Thread(target=self._run, args=(number, act, barrier)) for number, act in enumerate(acts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert self.crashed == []

    def _run(self, number: int, act: Callable[[], Any], barrier: threading.Barrier) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=20)
            act()
            self.done.append(number)
        except LifecycleError as error:
            self.refused.append(error)
        except BaseException as error:  # noqa: BLE001 -- raised again in the test's own thread
            self.crashed.append(error)
        finally:
            connection.close()
