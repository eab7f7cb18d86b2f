"""Which PostgreSQL client programs a backup uses."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from config.embedded import backup


@pytest.fixture
def without_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_program_on_path_is_used_without_the_wheel(
    without_wheel: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backup._client("pg_dump") == program


def test_error_names_package_when_no_program_is_found(
    without_wheel: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(backup.NotPossible, match="postgresql-client"):
        backup._client("pg_dump")
