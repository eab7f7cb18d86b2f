"""A question that a lower package asks and one higher package answers, without an import that runs upwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Question(Generic[P, R]):
    """Declared by the package that asks; `answered_by` decorates the function of the package that knows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._answer: Callable[P, R] | None = None

    def answered_by(self, function: Callable[P, R]) -> Callable[P, R]:
        """Register the one function that answers; raises RuntimeError for a second one."""
        if self._answer is not None and self._answer is not function:
            raise RuntimeError(f"Two functions answer: {self.text}")
        self._answer = function
        return function

    def ask(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the answer; raises RuntimeError when no package answers."""
        if self._answer is None:
            raise RuntimeError(f"Nothing answers: {self.text}")
        return self._answer(*args, **kwargs)
