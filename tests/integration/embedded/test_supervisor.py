"""The supervisor of `make up`, with parts that only sleep."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.embedded.supervisor import Part, Supervisor


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with tempfile.TemporaryDirectory(prefix="gdsv-") as folder:
        supervisor = Supervisor(Path(folder), Path(folder))
        yield supervisor
        supervisor.shut_down(["one"])


def command_of(supervisor: Supervisor, name: str) -> list[str]:
    pid = next(row["pid"] for row in supervisor._call("getAllProcessInfo") if row["name"] == name)
    return Path(f"/proc/{pid}/cmdline").read_text().strip("\0").split("\0")


def test_stopped_part_restarts_with_its_changed_command(supervisor: Supervisor) -> None:
    supervisor.write([Part("one", ["sleep", "1000"], Path("/")), Part("two", ["sleep", "3000"], Path("/"))])
    supervisor.start()
    supervisor.start_parts(["one", "two"])
    untouched = command_of(supervisor, "two")

    supervisor.write([Part("one", ["sleep", "2000"], Path("/")), Part("two", ["sleep", "3000"], Path("/"))])
    supervisor.ask_to_stop(["one"])
    supervisor.await_stopped(["one"])
    supervisor.reload_configuration(["one"])
    supervisor.start_parts(["one"])
    assert command_of(supervisor, "one") == ["sleep", "2000"]
    assert (command_of(supervisor, "two"), supervisor.states()["two"]) == (untouched, "RUNNING")
