"""Two installations on one machine never share a port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.embedded import ports, settings_file, web
from tests.services import ROOT, wait_until

CHOOSE = """
import sys
from pathlib import Path
from config.embedded import settings_file
values = settings_file.choose(Path(sys.argv[1]), running=False)
print(*[values[name] for name in settings_file.PREFERRED_PORTS], flush=True)
sys.stdin.read()  # as `make up`, which starts its servers a minute later
"""
SERVE = """
import sys
from config.embedded import web
web._granian = lambda port, workers: [sys.executable, "-c", '''
import socket, sys, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as granian
server.bind(("127.0.0.1", %d))
server.listen()
print("serving", flush=True)
time.sleep(60)
''' % port]
web.take.__kwdefaults__["wait_s"] = 0.5
web.main()
"""


def python(code: str, *words: str, **more: str) -> subprocess.Popen[str]:
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env=plain | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def port() -> int:
    return ports.scratch(1)[0]


def test_first_starts_at_the_same_time_choose_different_ports(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    for number in range(4):
        home = tmp_path / str(number)
        (home / "registry").mkdir(parents=True)
        started.append(python(CHOOSE, str(home)))
    chosen = []
    for process in started:
        assert process.stdout is not None
        chosen += process.stdout.readline().split()
    assert len(chosen) == len(set(chosen)) == 20


def test_stored_port_that_another_start_holds_is_taken(
    started: list[subprocess.Popen[str]], tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = dict(zip(settings_file.PREFERRED_PORTS, map(str, [port, *ports.scratch(4)]), strict=True))
    (tmp_path / "other" / "registry").mkdir(parents=True)
    (tmp_path / "ours" / "registry").mkdir(parents=True)
    other = python(CHOOSE, str(tmp_path / "other"), **numbers)
    started.append(other)
    assert other.stdout is not None
    assert other.stdout.readline().split() == list(numbers.values())
    settings_file.write(tmp_path / "ours" / "env", {"WEB_PORT": str(port)})
    with pytest.raises(ports.PortTaken, match="another installation that is starting"):
        settings_file.choose(tmp_path / "ours", running=False)
    other.kill()
    other.wait()
    assert settings_file.choose(tmp_path / "ours", running=False)["WEB_PORT"] == str(port)
    ports.release()


def test_second_web_server_on_a_port_ends_and_the_first_serves_alone(
    started: list[subprocess.Popen[str]], port: int
) -> None:
    first = python(SERVE, str(port), "1")
    started.append(first)
    assert first.stdout is not None
    assert first.stdout.readline() == "serving\n"
    second = python(SERVE, str(port), "1")
    started.append(second)
    output = second.communicate(timeout=30)
    assert second.returncode == 1, output
    assert f"Port {port} is used by" in output[1]
    assert f"(process {first.pid})" in output[1]
    assert ports.listeners(port) == {first.pid}
    first.kill()
    first.wait()
    third = python(SERVE, str(port), "1")
    started.append(third)
    assert third.stdout is not None
    assert third.stdout.readline() == "serving\n"


def test_web_server_does_not_share_the_port_of_another_program(started: list[subprocess.Popen[str]], port: int) -> None:
    with socket.socket() as other:  # the kernel would let granian listen beside it
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((ports.LOOPBACK, port))
        other.listen()
        server = python(SERVE, str(port), "1")
        started.append(server)
        assert server.wait(timeout=30) == 1
        assert ports.listeners(port) == {os.getpid()}


def test_worker_left_over_from_our_previous_web_server_is_ended(
    started: list[subprocess.Popen[str]], port: int
) -> None:
    code = f"""
import socket, time
from config.embedded import ports
assert ports.hold_as_server({port})  # as granian's workers, which inherit it
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", {port}))
server.listen()
print("serving", flush=True)
time.sleep(60)
"""
    worker = python(code, GRAVINGDOCK_PART_OF="/here")
    started.append(worker)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "serving\n"
    foreign = python(SERVE, str(port), "1", GRAVINGDOCK_PART_OF="/elsewhere")
    started.append(foreign)
    assert foreign.wait(timeout=30) == 1
    assert worker.poll() is None
    ours = python(SERVE, str(port), "1", GRAVINGDOCK_PART_OF="/here")
    started.append(ours)
    assert ours.stdout is not None
    assert ours.stdout.readline() == "serving\n"
    assert worker.wait(timeout=10) != 0


def test_listener_of_another_program_on_our_port_is_seen(port: int) -> None:
    assert ports.listeners(port) == set()
    with socket.socket() as other:
        other.bind((ports.LOOPBACK, port))
        other.listen()
        assert ports.listeners(port) == {os.getpid()}
        assert ports.holder(port).endswith(f"(process {os.getpid()})")
    wait_until(lambda: not ports.listeners(port), 5)
    assert web.command(port, workers=2)[-2:] == [str(port), "2"]
