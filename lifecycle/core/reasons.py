"""Reasons for a refusal: a service raises them, and a page shows them beside the disabled button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lifecycle.core.errors import LifecycleError, NotPermitted


@dataclass(frozen=True, slots=True)
class Reason:
    """One refusal: a text with the reason and the next step, and the error that the service raises."""

    text: str
    error: type[LifecycleError] = NotPermitted

    def __str__(self) -> str:
        return self.text


def refuse_if(reason: Reason | None, **details: Any) -> None:
    """Raise the error of `reason` with `details`; do nothing when `reason` is None."""
    if reason is not None:
        raise reason.error(reason.text, **details)
