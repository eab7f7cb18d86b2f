"""The work of the sealer process: seal what waits, and publish the files of the log."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings

from lifecycle.sealed_log import keys
from lifecycle.sealed_log.anchoring import seen_elsewhere
from lifecycle.sealed_log.publishing import publish, seen_in
from lifecycle.sealed_log.queries import current_origin, last_checkpoint
from lifecycle.sealed_log.sealer import BATCH, Step, seal
from lifecycle.sealed_log.types import Seen

log = structlog.get_logger(__name__)
_READ_AGAIN_S: Final = 5.0
TICK_S: Final = 0.25  # between two looks for events: half of the second in which an event is sealed


class AnchorsUnread(RuntimeError):
    """An anchor could not be read, so nobody knows whether the database lacks what was signed. Nothing is signed."""


class Sealer:
    """Seals with the key in `key_file`, and publishes below `folder`. Both are only for this process."""

    def __init__(self, folder: Path, key_file: Path) -> None:
        self.folder = folder
        self.key = keys.load_or_make(key_file)
        self.reads_anchors = True  # False: a measurement, whose log nobody has seen
        self._elsewhere: list[Seen] | None = None  # heads in anchors; None until they were read

    def step(self, *, limit: int = BATCH, at: Step = lambda name: None) -> int:
        """Seal and publish once; return how many events were sealed. Raises LogBroken, AnchorsUnread and OSError."""
        seen = [*seen_in(self.folder, self.key.public_key()), *self._seen_elsewhere()]
        sealed = seal(self.key, seen=seen, limit=limit, step=at)
        origin = current_origin()
        checkpoint = sealed.checkpoint or (last_checkpoint(origin) if origin is not None else None)
        if origin is not None and checkpoint is not None:
            publish(self.folder, origin, checkpoint, step=at)
        return sealed.events

    def _seen_elsewhere(self) -> list[Seen]:
        """Return what anchors had when this process started; raises AnchorsUnread until each of them was read.

        A restored database without them could sign a second history under the same name. The operator can say that it
        must go on without: SEAL_WITHOUT_ANCHORS.
        """
        if not self.reads_anchors:
            return []
        if self._elsewhere is None:
            found, problems = seen_elsewhere(self.key.public_key())
            if problems and not settings.SEAL_WITHOUT_ANCHORS:
                raise AnchorsUnread("; ".join(problems))
            if problems:
                log.error("sealing_without_anchors", problems=problems)
            self._elsewhere = found
        return self._elsewhere

    def run(self, stop: threading.Event) -> None:
        """Seal until `stop` is set. Full batches follow each other without a pause."""
        while not stop.is_set():
            started = time.monotonic()
            try:
                count = self.step()
            except AnchorsUnread as problem:
                log.error("anchors_not_read", problem=str(problem))
                stop.wait(_READ_AGAIN_S)
                continue
            if count < BATCH:
                stop.wait(max(0.0, TICK_S - (time.monotonic() - started)))
