"""What `make up` promises, shown on servers of its own in a home of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from config.embedded import keys, ports, postgres, settings_file
from config.embedded.registry_server import RegistryServer
from config.embedded.supervisor import Supervisor
from tests.factories import oci
from tests.services import ROOT, Services, wait_until
from tests.skopeo import skopeo

pytestmark = pytest.mark.timeout(240)
PORTS = ("WEB_PORT", "REGISTRY_PORT", "PG_PORT", "REDIS_PORT")


class Home:
    """One installation below a temporary folder, driven by the commands that people use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given: dict[str, str] = dict(zip(PORTS, map(str, ports.scratch(4)), strict=True))

    def run(self, *words: str, timeout_s: float = 150, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `python ...` with this home, and no setting of the test run's own servers."""
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**plain, **self.given, "GRAVINGDOCK_HOME": str(self.folder), "DEMO": "0", **more},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self, **more: str) -> float:
        """Start, and return the seconds it took."""
        started = time.monotonic()
        done = self.run("-m", "config.embedded", "up", **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - started

    def down(self) -> None:
        """Stop."""
        done = self.run("-m", "config.embedded", "down")
        assert done.returncode == 0, done.stderr

    @property
    def supervisor(self) -> Supervisor:
        """Its supervisor, to look inside."""
        sockets = postgres.socket_folder(self.folder)
        return Supervisor(self.folder, sockets.with_name(sockets.name + "-sv"))

    def pids(self) -> dict[str, int]:
        """Return the process id of each part."""
        return {row["name"]: row["pid"] for row in self.supervisor._call("getAllProcessInfo")}

    @property
    def address(self) -> str:
        """Where its web process answers."""
        return settings_file.read(self.folder / "env")["PUBLIC_URL"]

    def answers(self) -> bool:
        """Whether the web process, its database and its Redis answer."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def processes(self) -> list[str]:
        """Return the command line of everything that mentions this home or has it in its environment."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                text += bytes((entry / "cwd").readlink())
            except OSError:
                continue
            if str(self.folder).encode() in text and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_text())
        return found


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="gdup-"))
    folder.chmod(0o755)
    home = Home(folder / "var")
    yield home
    home.down()
    shutil.rmtree(folder)


def wait_until_whole(home: Home, before: dict[str, int]) -> None:
    """Wait until every part runs in another process than before, and answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = home.pids()
        if all(now[name] and now[name] != pid for name, pid in before.items()) and home.answers():
            return
        time.sleep(0.3)
    pytest.fail(f"not whole again: {home.supervisor.states()}")


def test_parts_that_die_come_back_and_nothing_is_lost_until_down_leaves_nothing(home: Home) -> None:
    home.up()
    assert (home.folder / "env").stat().st_mode & 0o777 == 0o600
    assert home.answers()
    note = "from django.contrib.sessions.models import Session as S; from django.utils import timezone as t; "
    write = "S.objects.create(session_key='kept', session_data='x', expire_date=t.now())"
    assert home.run("manage.py", "shell", "-c", note + write).returncode == 0

    before = home.pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_until_whole(home, before)

    # A backup is made while everything runs, and comes back in another home.
    backup = home.folder.parent / "backup"
    assert home.run("-m", "config.embedded.backup", "make", str(backup)).returncode == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in backup.rglob("*") if path.is_file())
    again = home.run("-m", "config.embedded.backup", "make", str(backup))
    assert (again.returncode, "never overwrites" in again.stderr) == (1, True)
    home.down()
    assert home.processes() == []

    other = Home(home.folder.parent / "restored")
    try:
        done = other.run("-m", "config.embedded.backup", "restore", str(backup))
        assert done.returncode == 0, done.stdout + done.stderr
        assert other.answers()
        read = other.run("manage.py", "shell", "-c", note + "print(S.objects.filter(session_key='kept').count())")
        assert read.stdout.strip().splitlines()[-1] == "1"
        old, new = (settings_file.read(each.folder / "env") for each in (home, other))
        assert old["FIELD_KEY"] == new["FIELD_KEY"]
    finally:
        other.down()
    assert other.processes() == []

    # And the first home goes on where it was, soon: 7 s on 2 idle cores; the bound allows for a busy machine.
    assert home.up() < 45
    kept = home.run("manage.py", "shell", "-c", note + "print(S.objects.filter(session_key='kept').count())")
    assert kept.stdout.strip().splitlines()[-1] == "1"

    # The supervisor itself may be killed: the next start takes the place of what it left.
    os.kill(int((home.folder / "supervisor.pid").read_text()), signal.SIGKILL)
    home.up()
    assert home.answers()

    # Two who stop it at once both find it stopped.
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: home.run("-m", "config.embedded", "down"), range(2)))
    assert [(done.returncode, done.stderr) for done in both] == [(0, ""), (0, "")]
    assert home.processes() == []


@pytest.fixture
def own_servers(home: Home, services: Services, django_db_setup: None) -> Iterator[dict[str, str]]:
    """A PostgreSQL database, a Redis and a registry that no `make up` started, by the variables that name them.

    The database is its own: what an installation writes by itself must reach no other test. The registry starts when
    the installation's first start has written the certificate and the secret that go into its configuration.
    """
    name = "users_own"
    services.cluster.make_database(name)
    services.need_redis()
    (port,) = ports.scratch(1)
    yield {
        "DATABASE_URL": services.cluster.url(postgres.APP, name),
        "DATABASE_OWNER_URL": services.cluster.url(postgres.OWNER, name),
        "REDIS_URL": services.redis.url(7),
        "REGISTRY_URL": f"http://localhost:{port}",
    }
    services.kill("own-registry")
    home.down()
    services.drop_database(name)
    services.forget_wake_ups()  # of every number, not of this run's own alone


def start_own_registry(home: Home, services: Services, url: str) -> None:
    """Start the user's own registry, configured as docs/how-to/own-servers.md says."""
    values = settings_file.read(home.folder / "env")
    registry = RegistryServer(
        folder=services.home / "own-registry",
        port=int(url.rpartition(":")[2]),
        public_url=values["PUBLIC_URL"],
        service=values["REGISTRY_SERVICE"],
        issuer=values["TOKEN_ISSUER"],
        certificate_file=Path(values["TOKEN_CERT_FILE"]),
        hook_secret=values["REGISTRY_HOOK_SECRET"],
        http_secret=keys.password(),
    )
    registry.prepare()
    services.start("own-registry", registry.command(), env={"PATH": os.environ["PATH"]})
    wait_until(lambda: ports.is_listening(registry.port))


OWNER_OF_SHOP = "from tests.factories import dock; dock.user('anna', 'owner', of=dock.team('shop'))"


def test_servers_of_the_users_own_are_used_remembered_and_take_a_push(
    home: Home, services: Services, own_servers: dict[str, str], tmp_path: Path
) -> None:
    home.up(**own_servers)
    assert set(home.pids()) == {"web", "worker", "builder", "ticker"}
    assert home.answers()
    start_own_registry(home, services, own_servers["REGISTRY_URL"])

    assert home.run("manage.py", "shell", "-c", OWNER_OF_SHOP).returncode == 0
    token = home.run("manage.py", "create_token", "anna").stdout.strip()
    layout = oci.layout(tmp_path / "image", oci.image("pushed"))
    target = f"docker://{own_servers['REGISTRY_URL'].removeprefix('http://')}/shop/api:1.0"
    pushed = skopeo("copy", "--dest-tls-verify=false", f"--dest-creds=anna:{token}", f"oci:{layout}:latest", target)
    assert pushed.returncode == 0, pushed.stderr
    seen = httpx.Client(base_url=home.address, headers={"Authorization": f"Bearer {token}"})
    wait_until(lambda: seen.get("/api/v1/images/").json()["results"], 30)
    refused = skopeo("copy", "--dest-tls-verify=false", "--dest-creds=anna:x", f"oci:{layout}:latest", target)
    assert "unauthorized" in refused.stderr
    home.down()

    home.up()  # without the variables: still not a new, empty database
    assert set(home.pids()) == {"web", "worker", "builder", "ticker"}
    assert not (home.folder / "pg").exists()
    assert len(seen.get("/api/v1/images/").json()["results"]) == 1
    seen.close()
    home.down()
    assert home.processes() == []


def test_an_installation_behind_a_proxy_answers_to_its_public_name_alone(home: Home) -> None:
    home.up(PUBLIC_URL="https://dock.example.test", BEHIND_PROXY="1")
    with httpx.Client(base_url=f"http://127.0.0.1:{home.given['WEB_PORT']}") as client:
        assert client.get("/readyz", headers={"Host": "dock.example.test"}).status_code == 200
        assert client.get("/readyz").status_code == 400


def test_a_taken_port_stops_the_start_with_its_holder_named(home: Home) -> None:
    with socket.socket() as holder:
        holder.bind((ports.LOOPBACK, int(home.given["WEB_PORT"])))
        holder.listen()
        done = home.run("-m", "config.embedded", "up")
    assert done.returncode == 1
    expected = f"Port {home.given['WEB_PORT']} (WEB_PORT) is used by "
    assert expected in done.stderr
    assert f"(process {os.getpid()})" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_dies_at_the_start_is_named_with_the_end_of_its_log(home: Home) -> None:
    bad = home.folder.parent / "bin"
    bad.mkdir()
    (bad / "docker-registry").write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 3\n")
    (bad / "docker-registry").chmod(0o755)
    done = home.run("-m", "config.embedded", "up", PATH=f"{bad}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "registry did not stay up" in done.stderr
    assert "the disk is on fire" in done.stderr

    # It is tried on, for as long as it takes, and comes up when it can.
    log = home.folder / "log" / "registry.log"
    tries = log.read_text().count("on fire")
    wait_until(lambda: log.read_text().count("on fire") > tries + 5, 60)
    (bad / "docker-registry").write_text(f'#!/bin/sh\nexec {shutil.which("docker-registry")} "$@"\n')
    wait_until(lambda: ports.is_listening(int(home.given["REGISTRY_PORT"])), 60)


def test_a_damaged_backup_is_refused_before_anything_changes(home: Home) -> None:
    backup = home.folder.parent / "backup"
    backup.mkdir()
    (backup / "database.dump").write_text("x")
    (backup / "SHA256SUMS").write_text("0" * 64 + "  database.dump\n")
    done = home.run("-m", "config.embedded.backup", "restore", str(backup))
    assert (done.returncode, "damaged" in done.stderr) == (1, True)
    assert not (home.folder / "env").exists()
