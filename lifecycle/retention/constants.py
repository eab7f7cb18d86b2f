"""Limits and periods of retention."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

PLAN_VALID: Final = timedelta(hours=24)  # an older plan is planned anew
RESTORABLE: Final = timedelta(days=7)
SEEN: Final = timedelta(days=30)  # what ran in this time is kept
ROLLBACKS: Final = 10  # images of each environment that are kept for a rollback
NUMBER_MAX: Final = 10_000  # of keep_last, and of days
PATTERNS_MAX: Final = 50
DIGESTS_MAX: Final = 20_000  # of one plan
PLANS_MAX: Final = 10  # plans of a team or repository that nobody confirmed; older ones are removed
BATCH: Final = 20  # images that are judged again, then deleted
COLLECT: Final = (
    "The registry still stores the layers. To free the space: `manage.py registry_gc` for the registry that `make up`"
    " runs. Let another one accept no push, and run its collector, for example:"
    " registry garbage-collect /etc/distribution/config.yml"
)
