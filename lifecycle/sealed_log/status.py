"""How the sealed log stands: its size, its anchors, and what somebody must look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lifecycle.core import clock
from lifecycle.sealed_log.constants import ANCHOR_LATE, UNSEALED_LATE_S
from lifecycle.sealed_log.models import Anchor, LogCheck, LogCheckpoint, LogOrigin
from lifecycle.sealed_log.queries import current_origin, last_checkpoint, oldest_unsealed_s


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The log that grows. `anchored_size` and `anchored_at` are those of the anchor that has most of it."""

    origin: LogOrigin | None
    checkpoint: LogCheckpoint | None
    unsealed_s: float | None
    anchored_size: int
    anchored_at: datetime | None
    is_same_machine: bool  # every anchor is on the machine of the log
    check: LogCheck | None  # the last time that the whole log was derived again
    problems: tuple[str, ...]


def status() -> LogStatus:
    """Return how the log stands now. Six queries."""
    origin = current_origin()
    checkpoint = last_checkpoint(origin) if origin is not None else None
    unsealed_s = oldest_unsealed_s()
    anchors = list(Anchor.objects.order_by("-size"))
    best = next((row for row in anchors if origin is not None and row.origin == origin.name), None)
    problems = []
    if unsealed_s is not None and unsealed_s > UNSEALED_LATE_S:
        problems.append(f"An event waits for {unsealed_s / 60:.0f} minutes to be sealed. Is the sealer running?")
    if origin is not None and _is_late(origin, best.size if best is not None else 0):
        problems.append("No anchor got a checkpoint for more than an hour.")
    check = LogCheck.objects.order_by("-at").first()
    if check is not None and check.problem:
        problems.append(f"The last check found: {check.problem}")
    return LogStatus(
        origin=origin,
        checkpoint=checkpoint,
        unsealed_s=unsealed_s,
        anchored_size=best.size if best is not None else 0,
        anchored_at=best.anchored_at if best is not None else None,
        is_same_machine=all(row.kind == Anchor.Kind.OCI for row in anchors),
        check=check,
        problems=tuple(problems),
    )


def _is_late(origin: LogOrigin, anchored_size: int) -> bool:
    """Return whether a checkpoint that is older than ANCHOR_LATE is larger than what any anchor has."""
    old = LogCheckpoint.objects.filter(origin=origin, size__gt=anchored_size, at__lt=clock.now() - ANCHOR_LATE)
    return old.exists()
