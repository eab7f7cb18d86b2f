"""State machines: `NEXT` of a model lists all legal moves, and a state that is not a key of it is final."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from lifecycle.core.errors import IllegalTransition


class HasStates(Protocol):
    """A model row with a `state` and the `NEXT` of its class."""

    state: str

    @property
    def NEXT(self) -> Mapping[str, frozenset[str]]: ...  # noqa: N802 -- a class constant of the models


class HasStatesAndSave(HasStates, Protocol):
    """A model row with states that can be saved."""

    def save(self, *, update_fields: Iterable[str] | None = None) -> None: ...


def check_move(row: HasStates, state: str) -> None:
    """Raise IllegalTransition unless the row can move to `state` now. The caller must have locked the row."""
    if state not in row.NEXT.get(row.state, frozenset()):
        raise IllegalTransition(f"{row} is {row.state} and cannot become {state}.", state=row.state)


def move_row(row: HasStatesAndSave, state: str, **changes: object) -> None:
    """Move a locked row to `state` and save it with other changed fields. Raises IllegalTransition, as `check_move`."""
    check_move(row, state)
    row.state = state
    for name, value in changes.items():
        setattr(row, name, value)
    row.save(update_fields=["state", *changes])
