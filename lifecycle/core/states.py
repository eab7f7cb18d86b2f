"""State machines: `NEXT` of a model lists all legal moves, and a state that is not a key of it is final."""

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
    """Raise IllegalTransition unless the row can move to `state` now. The caller must have locked the row."""
    if state not in row.NEXT.get(row.state, frozenset()):
        raise IllegalTransition(f"{row} is {row.state} and cannot become {state}.", state=row.state)
