"""How often checkpoints leave the machine, and when somebody must look."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

ANCHOR_EVERY: Final = timedelta(minutes=5)
ANCHOR_LATE: Final = timedelta(hours=1)  # a checkpoint that no anchor has by then is an alarm
UNSEALED_LATE_S: Final = 60  # an event that waits longer is an alarm
ANCHORS_MAX: Final = 20
CHECKPOINT_TYPE: Final = "application/vnd.gravingdock.checkpoint.v1"  # of the artifacts in the managed registry
