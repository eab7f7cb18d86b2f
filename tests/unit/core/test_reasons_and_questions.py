"""Reasons for refusals, questions that a higher package answers, and allowed state changes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lifecycle.core.errors import IllegalTransition, NotPermitted
from lifecycle.core.providers import Question
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import check_move, move_row


def test_refuse_if_raises_only_for_a_reason_with_its_error():
    refuse_if(None)
    with pytest.raises(NotPermitted, match="Ask an owner") as refused:
        refuse_if(Reason("You need x. Ask an owner."), state="open")
    assert refused.value.details == {"state": "open"}
    with pytest.raises(IllegalTransition):
        refuse_if(Reason("It is over.", IllegalTransition))


def test_question_has_exactly_one_answer():
    question: Question[[int], str] = Question("what is it called?")
    with pytest.raises(RuntimeError, match="what is it called"):
        question.ask(1)

    @question.answered_by
    def name(number: int) -> str:
        return f"number {number}"

    assert question.ask(7) == "number 7"
    question.answered_by(name)  # a module that is imported again registers the same function
    with pytest.raises(RuntimeError):
        question.answered_by(lambda number: "another")


class Lamp:
    NEXT = {"off": frozenset({"on"})}

    def __init__(self, state: str) -> None:
        self.state = state
        self.watts = 40
        self.saved: Iterable[str] | None = None

    def __str__(self) -> str:
        return "The lamp"

    def save(self, *, update_fields: Iterable[str] | None = None) -> None:
        self.saved = update_fields


def test_only_listed_state_changes_are_allowed():
    check_move(Lamp("off"), "on")
    for state, target in (("off", "off"), ("on", "off"), ("broken", "on")):
        with pytest.raises(IllegalTransition, match=f"The lamp is {state} and cannot become {target}"):
            check_move(Lamp(state), target)


def test_move_saves_the_state_and_the_changes_or_nothing():
    lamp = Lamp("off")
    move_row(lamp, "on", watts=60)
    assert (lamp.state, lamp.watts, lamp.saved) == ("on", 60, ["state", "watts"])
    with pytest.raises(IllegalTransition):
        move_row(lamp, "off", watts=10)
    assert (lamp.state, lamp.watts) == ("on", 60)
