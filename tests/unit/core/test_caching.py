"""Values in the cache are JSON: anything else reads as absent, and nothing that is read is run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

from config.celery import app
from lifecycle.core.caching import JsonSerializer


class Planted:
    """Something that writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("value", [None, True, 0, 7, -3, 1.5, "text", ["a", 1], {"a": {"b": None}}])
def test_value_survives_as_json(value: object) -> None:
    stored = JsonSerializer().dumps(value)
    assert JsonSerializer().loads(str(stored).encode() if isinstance(stored, int) else stored) == value


def test_pickled_value_is_absent_and_not_run(tmp_path: Path) -> None:
    planted = pickle.dumps(Planted(tmp_path / "ran"))
    assert JsonSerializer().loads(planted) is None
    assert not (tmp_path / "ran").exists()
    pickle.loads(planted)  # what a cache with pickles does
    assert (tmp_path / "ran").exists()


def test_value_that_is_not_json_is_refused_when_written() -> None:
    with pytest.raises(TypeError):
        JsonSerializer().dumps(object())


def test_nothing_that_we_configure_uses_pickle() -> None:
    serializer = settings.CACHES["default"].get("OPTIONS", {}).get("serializer")
    assert serializer in {None, "lifecycle.core.caching.JsonSerializer"}  # None: tests without Redis
    assert import_string(settings.SESSION_SERIALIZER).__name__ == "JSONSerializer"
    assert (app.conf.task_serializer, app.conf.result_serializer, app.conf.accept_content) == (
        "json", "json", ["json"],
    )  # fmt: skip
    assert app.conf.result_backend is None
