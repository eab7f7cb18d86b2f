"""Calls from a lower package to a function of a higher package, without an upward import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Question(Generic[P, R]):
    """A function that a lower package declares and calls. A higher package registers it with `answered_by`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._answer: Callable[P, R] | None = None

    def answered_by(self, function: Callable[P, R]) -> Callable[P, R]:
        """Register the function that answers; raises RuntimeError when another one is registered."""
        if self._answer is not None and self._answer is not function:
            raise RuntimeError(f"Two functions are registered for: {self.text}")
        self._answer = function
        return function

    def ask(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the answer; raises RuntimeError when no function is registered."""
        if self._answer is None:
            raise RuntimeError(f"No function is registered for: {self.text}")
        return self._answer(*args, **kwargs)
