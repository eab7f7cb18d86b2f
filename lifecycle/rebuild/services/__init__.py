"""Actions on recipes, watches, waves and jobs. Each checks, locks, changes, audits and queues in one transaction."""

from lifecycle.rebuild.services.builder import turn_builder_off, turn_builder_on
from lifecycle.rebuild.services.progress import OPEN_STATES
from lifecycle.rebuild.services.recipes import CONTAINERFILE_MAX, checked_arguments, put_recipe
from lifecycle.rebuild.services.results import begin, built, fail, finish, may_replace, stop_if_cancelled, unchanged
from lifecycle.rebuild.services.watches import queue_plans, unwatch, watch_base
from lifecycle.rebuild.services.waves import (
    cancel_wave,
    confirm_wave,
    require_right,
    resume_waves,
    retry_wave,
    supersede_plans,
)

__all__ = [
    "CONTAINERFILE_MAX",
    "OPEN_STATES",
    "begin",
    "built",
    "cancel_wave",
    "checked_arguments",
    "confirm_wave",
    "fail",
    "finish",
    "may_replace",
    "put_recipe",
    "queue_plans",
    "require_right",
    "resume_waves",
    "retry_wave",
    "stop_if_cancelled",
    "supersede_plans",
    "turn_builder_off",
    "turn_builder_on",
    "unchanged",
    "unwatch",
    "watch_base",
]
