"""The system user of PostgreSQL: processes that start at once create it once."""

from __future__ import annotations

import pwd
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from config.embedded import account


def test_processes_that_start_at_once_create_the_user_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two test processes on a clean machine did: the second `useradd` gave the user of the first another number."""
    created: list[str] = []
    me = pwd.getpwall()[0]

    def getpwnam(name: str) -> pwd.struct_passwd:
        if not created:
            raise KeyError(name)
        return me

    def useradd(command: list[str], **_options: Any) -> None:
        time.sleep(0.05)  # long enough for all others to look
        created.append(command[-1])

    monkeypatch.setattr(account, "_LOCK", tmp_path / "lock")
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(subprocess, "run", useradd)
    found: list[pwd.struct_passwd | None] = []
    threads = [threading.Thread(target=lambda: found.append(account._system_user())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [account.SYSTEM_USER]
    assert found == [me] * 4


def test_user_that_exists_is_used_even_where_no_lock_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.getpwall()[0]
    monkeypatch.setattr(account, "_LOCK", Path("/nonexistent/lock"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: me)
    assert account._system_user() == me
