"""Recipes that attack the machine. In the box, every known way out is closed; without it, the same program gets out."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import pytest

from lifecycle.rebuild.builders import box, buildah, hosts, keeper
from lifecycle.rebuild.types import BuildFailed, BuildRequest, NoBuildBox, NoBuildSpace
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Registry

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the embedded builder needs root for its namespaces"),
]
PROGRAM = Path(__file__).parents[2] / "data" / "builds" / "escapes.py"
TEXT = "marker of the machine"
NOT_NEEDED = ("test", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "site-packages", "dist-packages",
              "config-*", "__pycache__", "turtledemo", "distutils", "asyncio", "unittest", "*.a")  # fmt: skip


@pytest.fixture
def client(services, settings):
    services.need_registry()
    (services.home / "scratch").mkdir(exist_ok=True)
    settings.SCRATCH = str(services.home / "scratch")
    registry = Registry.objects.create(name="managed", endpoint=services.registry.url, is_managed=True)
    return client_for(registry)


@pytest.fixture(scope="session")
def python_folder(tmp_path_factory):
    """A build context with this machine's Python: the program, its libraries and its modules."""
    folder = tmp_path_factory.mktemp("python")
    program = Path(sys.executable).resolve()
    modules = Path(sysconfig.get_paths()["stdlib"])
    copied = folder / "root"
    target = copied / str(modules).lstrip("/")
    shutil.copytree(modules, target, ignore=shutil.ignore_patterns(*NOT_NEEDED), symlinks=False)
    (copied / "usr/bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(program, copied / "usr/bin/python")
    needed = [program, *target.glob("lib-dynload/_ctypes*.so")]
    for file in needed:
        listed = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
        for path in re.findall(r"(/\S+)", listed):
            place = copied / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    (copied / "tmp").mkdir()
    return folder


class Machine:
    """What exists outside of a build: a file, a service on the loopback address, and an abstract socket."""

    def __init__(self, folder):
        self.marker = folder / "marker"
        self.marker.write_text(TEXT)
        folder.chmod(0o755)
        self.heard = 0
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._unix = socket.socket(socket.AF_UNIX)
        self.abstract = f"gravingdock-test-{os.getpid()}-{time.monotonic_ns()}"
        self._unix.bind("\0" + self.abstract)
        self._unix.listen()
        for listening in (self._tcp, self._unix):
            threading.Thread(target=self._answer, args=(listening,), daemon=True).start()

    @property
    def port(self):
        return self._tcp.getsockname()[1]

    def _answer(self, listening):
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            self.heard += 1
            with client, contextlib.suppress(OSError):
                client.sendall(f"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{TEXT}".encode())

    def close(self):
        for listening in (self._tcp, self._unix):
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()


@pytest.fixture
def machine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("machine"))
    yield made
    made.close()


def attack(client, machine, python_folder, tmp_path, *, argument="", only=()):
    """Build an image whose RUN is the program, and return the lines of its log."""
    context = tmp_path / "context"
    shutil.copytree(python_folder, context)
    shutil.copy(PROGRAM, context / "root" / "escapes.py")
    targets = {"marker": str(machine.marker), "text": TEXT, "port": machine.port, "abstract": machine.abstract,
               "outside": "192.0.2.1", "allowed": "allowed.example", "rebound": "rebound.example",
               "only": list(only)}  # fmt: skip
    (context / "root" / "targets.json").write_text(json.dumps(targets))
    command = argument or "/escapes.py"
    words = json.dumps(["/usr/bin/python", *command.split(" ", 1)] if argument else ["/usr/bin/python", command])
    text = f"FROM scratch\nCOPY root /\nENV PYTHONHOME={sysconfig.get_config_var('prefix')}\nRUN {words}\n"
    lines: list[str] = []
    request = BuildRequest(
        containerfile=text, context=context, build_args={}, bases={}, repository="shop/attack", tag="1", annotations={}
    )
    try:
        buildah.build(request, client, log=lines.append, check=lambda: None)
    except BuildFailed as error:
        lines.append(f"failed: {error.message}")
    return lines


@pytest.fixture
def names_resolve(monkeypatch):
    """The list names one host that leads outside and one that leads to this machine."""
    monkeypatch.setattr(hosts, "allowed", lambda: {("allowed.example", 80), ("rebound.example", 80)})


@pytest.mark.usefixtures("names_resolve")
def test_every_known_way_out_of_the_box_is_closed(client, machine, python_folder, tmp_path):
    lines = attack(client, machine, python_folder, tmp_path)
    tried = [line for line in lines if line.startswith(("open ", "closed "))]
    assert len(tried) > 80, lines[-20:]
    assert [line for line in tried if line.startswith("open ")] == []
    # It stays in the image: the root that it sees is the one of the recipe.
    root = next(line for line in lines if line.startswith("root after double chroot:")).split()
    assert {"escapes.py", "targets.json"} < set(root)
    assert not {"build", "in", "inside.sh", "work"} & set(root)
    assert (machine.marker.read_text(), machine.heard) == (TEXT, 0)
    refused = {line for line in lines if line.startswith("Network: ")}
    assert (
        f"Network: 127.0.0.1:{machine.port} is not on the list of hosts. An operator can allow it with BUILD_HOSTS."
        in (refused)
    )


@pytest.fixture
def no_box(monkeypatch, settings):
    settings.BUILD_UNCONFINED = True
    monkeypatch.setattr(box, "problem", lambda: "it is a test.")


@pytest.mark.usefixtures("no_box")
def test_same_program_finds_the_marker_without_the_box(client, machine, python_folder, tmp_path):
    # Only these: some of the others would change this machine.
    wanted = {"double chroot", "write after double chroot", "loopback service", "abstract socket of the machine"}
    lines = attack(client, machine, python_folder, tmp_path, only=wanted)
    assert "Warning: this build is not confined (BUILD_UNCONFINED=1)." in lines
    ways = {line.removeprefix("open ").strip() for line in lines if line.startswith("open ")}
    assert ways == wanted
    assert machine.heard >= 2
    assert machine.marker.read_text().startswith("overwritten")


FORK_BOMB = """-c
import os, time
count = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        count += 1
    except OSError as error:
        print('forked', count, error, flush=True)
        break
"""
FULL_DISK = """-c
import os
written = 0
try:
    with open('/big', 'wb') as stream:
        while True:
            written += stream.write(bytes(1 << 20))
            stream.flush()
except OSError as error:
    print('wrote', written >> 20, error, flush=True)
os.unlink('/big')
"""
MEMORY = "-c\nkept = []\nwhile True: kept.append(bytearray(os.urandom(16) if 0 else b'x' * (1 << 24)))\n"


def test_fork_bomb_ends_at_its_limit_and_leaves_nothing(client, machine, python_folder, tmp_path, settings):
    settings.BUILD_PROCESSES = 128
    lines = attack(client, machine, python_folder, tmp_path, argument=FORK_BOMB.replace("-c\n", "-c ", 1))
    forked = next(line for line in lines if line.startswith("forked "))
    assert 20 < int(forked.split()[1]) < 128
    assert "Resource temporarily unavailable" in forked
    mine = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"count = 0" in read(path)]
    assert mine == []


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_full_disk_ends_at_its_size_and_leaves_the_machine_alone(client, machine, python_folder, tmp_path, settings):
    settings.BUILD_DISK_MB = 512
    free = shutil.disk_usage(settings.SCRATCH).free
    lines = attack(client, machine, python_folder, tmp_path, argument=FULL_DISK.replace("-c\n", "-c ", 1))
    wrote = next(line for line in lines if line.startswith("wrote "))
    assert 200 < int(wrote.split()[1]) < 512
    assert "No space left on device" in wrote
    assert shutil.disk_usage(settings.SCRATCH).free > free - 1500 * 2**20


def test_memory_ends_at_its_limit(client, machine, python_folder, tmp_path, settings):
    settings.BUILD_MEMORY_MB = 300
    lines = attack(client, machine, python_folder, tmp_path, argument=MEMORY.replace("-c\n", "-c ", 1))
    assert lines[-1].startswith("failed: buildah build failed")


def test_machine_without_a_box_builds_nothing_unless_the_operator_accepts_it(client, monkeypatch, settings, tmp_path):
    monkeypatch.setattr(box, "problem", lambda: "crun is not installed. Run: make system")
    request = BuildRequest(containerfile="FROM scratch\nCOPY a /a\n", context=tmp_path, build_args={}, bases={},
                           repository="shop/any", tag="1", annotations={})  # fmt: skip
    (tmp_path / "a").write_text("a")
    with pytest.raises(NoBuildBox, match=r"cannot confine recipes on this machine: crun .* BUILD_UNCONFINED=1"):
        buildah.build(request, client, log=print, check=lambda: None)
    settings.BUILD_UNCONFINED = True
    lines: list[str] = []
    buildah.build(request, client, log=lines.append, check=lambda: None)
    assert lines[0] == "Warning: this build is not confined (BUILD_UNCONFINED=1)."


def test_this_machine_gives_the_box():
    box._prove.cache_clear()
    assert box.problem() == ""


def test_disk_that_does_not_fit_is_a_named_error(client, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(keeper.Refused, match="needs 512 MB of disk in SCRATCH") as refused:
        keeper._make_disk(tmp_path / "disk", 512)
    assert refused.value.code == keeper.NO_SPACE
    assert NoBuildSpace.http_status == 507
