"""A box that was proved once is not tried again; a failure is tried again, because it may not last."""

from __future__ import annotations

import pytest

from lifecycle.rebuild.builders import box
from lifecycle.rebuild.types import NoBuildBox


@pytest.fixture
def answers(monkeypatch):
    """The answers of the next trials, in order."""
    box._prove.cache_clear()
    waiting: list[str] = []
    monkeypatch.setattr(box, "_problem", lambda: waiting.pop(0))
    yield waiting
    box._prove.cache_clear()


def test_failure_is_tried_again_and_success_is_kept(answers):
    answers += ["the disk is full.", "", "never asked."]
    assert [box.problem() for _ in range(4)] == ["the disk is full.", "", "", ""]
    assert answers == ["never asked."]


def test_builder_refuses_without_a_box_unless_the_operator_accepts_it(answers, settings):
    answers += ["crun is not installed."] * 2
    settings.BUILD_UNCONFINED = False
    with pytest.raises(NoBuildBox, match="cannot confine recipes on this machine: crun is not installed"):
        box.is_confined()
    settings.BUILD_UNCONFINED = True
    assert box.is_confined() is False


def test_builder_uses_the_box_where_there_is_one_although_the_operator_accepts_none(answers, settings):
    answers += [""]
    settings.BUILD_UNCONFINED = True
    assert box.is_confined() is True
