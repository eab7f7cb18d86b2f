"""Job kinds: each has a queue that workers consume, a handler and a reason when it cannot be cancelled."""

from __future__ import annotations

import pytest

from config.celery import QUEUES
from lifecycle.jobs import handlers
from lifecycle.jobs.kinds import Kind, all_kinds, kind_called, names, register


@pytest.mark.parametrize("name", names())
def test_kind_is_complete(name):
    kind = kind_called(name)
    assert kind.queue in QUEUES
    assert handlers.handler_of(name)
    assert kind.label[0].isupper()
    assert len(kind.name) <= 12  # the length of the column


def test_every_handler_has_a_kind():
    assert set(handlers._HANDLERS) == {kind.name for kind in all_kinds()}


def test_kind_names_are_unique_and_give_reason_against_cancelling():
    with pytest.raises(ValueError, match="scan"):
        register(Kind("scan", queue="scan", label="Again", is_cancellable=True))
    with pytest.raises(ValueError, match="why_not_cancelled"):
        Kind("other", queue="scan", label="Other")
