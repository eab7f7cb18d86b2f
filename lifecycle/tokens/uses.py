"""The last uses of tokens, written a moment later and several at once, so that no pull waits for the disk."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Final

import structlog
from django.db import Error, connection

from accounts import tokens
from lifecycle.tokens.holders import Holder

log = structlog.get_logger(__name__)
AFTER_S: Final = 0.5  # a process that is killed loses the uses of this time
_EVERY_S: Final = tokens.LAST_USED_EVERY.total_seconds()


class Uses:
    """The uses of one process that are not written yet."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[datetime, str | None]] = {}

    def note(self, holder: Holder, address: str | None, now: float) -> None:
        """Note a use at `now`, at most once a minute for each token. Inside a transaction it is written at once."""
        if now - holder.used_at < _EVERY_S:
            return
        holder.used_at = now
        use = (datetime.fromtimestamp(now, UTC), address)
        if connection.in_atomic_block:
            tokens.note_uses({holder.token_id: use})
            return
        with self._lock:
            is_first = not self._waiting
            self._waiting[holder.token_id] = use
        if is_first:
            timer = threading.Timer(AFTER_S, self.write)
            timer.daemon = True
            timer.start()

    def write(self) -> None:
        """Write what waits, over a connection of this thread."""
        with self._lock:
            uses, self._waiting = self._waiting, {}
        try:
            if uses:
                tokens.note_uses(uses)
        except Error as error:
            log.warning("token_uses_lost", count=len(uses), error=type(error).__name__)
        finally:
            connection.close()
