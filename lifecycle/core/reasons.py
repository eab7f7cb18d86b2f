"""Reasons for a refusal: a service raises them, and a page shows them beside the disabled button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from lifecycle.core.errors import LifecycleError, NotPermitted


class Denial(str):
    """The sentence of a missing right, which also says what is missing: pages offer to ask for it, problems name it.

    It is a text everywhere else: a reason, a message and an error can carry it without knowing.
    """

    verb: str  # "promotion.approve"
    team: str  # short name
    repository: str  # family name; "" for the whole team
    environment: str  # short name; "" for none

    def __new__(cls, text: str, *, verb: str, team: str, repository: str = "", environment: str = "") -> Self:
        denial = super().__new__(cls, text)
        denial.verb, denial.team, denial.repository, denial.environment = verb, team, repository, environment
        return denial

    @property
    def missing(self) -> dict[str, str]:
        """What is missing, without empty fields: verb, team, repository, environment."""
        found = {name: getattr(self, name) for name in ("verb", "team", "repository", "environment")}
        return {name: value for name, value in found.items() if value}


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
