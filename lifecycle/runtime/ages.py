"""Whether an image that runs is older than the rules of its environment allow. Pure.

Gates judge the age when an image is promoted; it grows while the image runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lifecycle.policy.rulesets import Rule

_CREATED: Final = "image_age"
_PUSHED: Final = "rebuilt_within"
KINDS: Final = frozenset({_CREATED, _PUSHED})


@dataclass(frozen=True, slots=True)
class Dates:
    """When a platform was created, as its configuration says (None: it does not), and when it was first pushed."""

    created_at: datetime | None
    first_seen_at: datetime


def age_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules about the age of images that warn or enforce at any point."""
    return tuple(rule for rule in rules if rule.kind in KINDS and rule.decides)


def why_too_old(dates: Iterable[Dates], rules: Iterable[Rule], now: datetime) -> str:
    """Return why an image with these platforms is too old, in a sentence; "" when it is not, or nobody knows."""
    known = list(dates)
    for rule in rules:
        limit = timedelta(days=rule.parameters["max_days"])
        is_created = rule.kind == _CREATED
        moments = [each.created_at if is_created else each.first_seen_at for each in known]
        ages = [now - moment for moment in moments if moment is not None]
        if ages and max(ages) > limit:
            verb = "created" if is_created else "first pushed"
            return f"It was {verb} {max(ages).days} days ago; {rule.words} allows {limit.days}."
    return ""
