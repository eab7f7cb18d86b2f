"""Refusals that pages show and services raise, and questions that a higher package answers."""

from __future__ import annotations

import pytest

from lifecycle.core.errors import IllegalTransition, NotPermitted
from lifecycle.core.providers import Question
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import check_move


def test_no_reason_refuses_nothing_and_a_reason_raises_its_own_error():
    refuse_if(None)
    with pytest.raises(NotPermitted, match="Ask an owner") as refused:
        refuse_if(Reason("You need x. Ask an owner."), state="open")
    assert refused.value.details == {"state": "open"}
    with pytest.raises(IllegalTransition):
        refuse_if(Reason("It is over.", IllegalTransition))


def test_a_question_has_exactly_one_answer():
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

    def __str__(self) -> str:
        return "The lamp"


def test_a_move_that_the_state_machine_lists_is_legal_and_no_other():
    check_move(Lamp("off"), "on")
    for state, wanted in (("off", "off"), ("on", "off"), ("broken", "on")):
        with pytest.raises(IllegalTransition, match=f"The lamp is {state} and cannot become {wanted}"):
            check_move(Lamp(state), wanted)
