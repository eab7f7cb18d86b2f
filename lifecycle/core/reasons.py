"""Why something is refused: a service raises it, and a page shows it beside the disabled button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lifecycle.core.errors import LifecycleError, NotPermitted


@dataclass(frozen=True, slots=True)
class Reason:
    """One refusal: the sentence that says why and what to do, and the error that the service raises."""

    text: str
    error: type[LifecycleError] = NotPermitted

    def __str__(self) -> str:
        return self.text


def refuse_if(reason: Reason | None, **details: Any) -> None:
    """Raise the reason's error, with `details`, when there is a reason."""
    if reason is not None:
        raise reason.error(reason.text, **details)
