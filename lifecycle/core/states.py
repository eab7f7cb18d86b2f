"""Moves of a state machine: the row's `NEXT` lists every legal one, and a state that is no key there is final."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lifecycle.core.errors import IllegalTransition


class HasStates(Protocol):
    """A model row with a `state` and the `NEXT` of its class."""

    state: str

    @property
    def NEXT(self) -> Mapping[str, frozenset[str]]: ...  # noqa: N802 -- a class constant of the models


def check_move(row: HasStates, state: str) -> None:
    """Raise IllegalTransition unless the row may move to `state` now. The caller holds the row's lock."""
    if state not in row.NEXT.get(row.state, frozenset()):
        raise IllegalTransition(f"{row} is {row.state} and cannot become {state}.", state=row.state)
