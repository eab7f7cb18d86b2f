"""`make up`, `make down`, backup and restore, each with its own servers in a temporary home."""

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
from collections.abc import Iterator, Sequence
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
    """One installation in a temporary folder, controlled with the commands for users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given: dict[str, str] = dict(zip(PORTS, map(str, ports.scratch(4)), strict=True))

    def run(
        self, *words: str, timeout_s: float = 150, before: Sequence[str] = (), **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `python ...` (by the program `before`) with this home and without the settings of the test run."""
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return subprocess.run(
            [*before, sys.executable, *words],
            cwd=ROOT,
            env={**plain, **self.given, "GRAVINGDOCK_HOME": str(self.folder), "DEMO": "0", **more},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self, **more: str) -> float:
        """Start the installation and return the seconds it took."""
        started = time.monotonic()
        done = self.run("-m", "config.embedded", "up", **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - started

    def down(self) -> None:
        """Stop the installation."""
        done = self.run("-m", "config.embedded", "down")
        assert done.returncode == 0, done.stderr

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of this installation."""
        sockets = postgres.socket_folder(self.folder)
        return Supervisor(self.folder, sockets.with_name(sockets.name + "-sv"))

    def pids(self) -> dict[str, int]:
        """Return the process id of each part."""
        return {row["name"]: row["pid"] for row in self.supervisor._call("getAllProcessInfo")}

    @property
    def address(self) -> str:
        """The URL of the web process."""
        return settings_file.read(self.folder / "env")["PUBLIC_URL"]

    def answers(self) -> bool:
        """Whether the web process, its database and its Redis answer."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def processes(self) -> list[str]:
        """Return the command lines of processes with this home in command line, environment or working folder."""
        command_lines = []
        for entry in Path("/proc").iterdir():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                text += bytes((entry / "cwd").readlink())
            except OSError:
                continue
            if str(self.folder).encode() in text and int(entry.name) != os.getpid():
                command_lines.append((entry / "cmdline").read_text())
        return command_lines


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="gdup-"))
    folder.chmod(0o755)
    home = Home(folder / "var")
    yield home
    home.down()
    shutil.rmtree(folder)


def wait_until_restarted(home: Home, before: dict[str, int]) -> None:
    """Wait until every part runs in a new process and the installation answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = home.pids()
        if all(now[name] and now[name] != pid for name, pid in before.items()) and home.answers():
            return
        time.sleep(0.3)
    pytest.fail(f"not all parts restarted: {home.supervisor.states()}")


def test_killed_parts_restart_and_backup_restores_without_data_loss(home: Home) -> None:
    home.up()
    assert (home.folder / "env").stat().st_mode & 0o777 == 0o600
    assert home.answers()
    note = (
        "from lifecycle.authority.models import BrowserSession as S; from django.utils.timezone import now; t = now(); "
    )
    write = "S.objects.create(session_key='kept', session_data='x', expire_date=t, created_at=t, last_seen_at=t)"
    assert home.run("manage.py", "shell", "-c", note + write).returncode == 0

    before = home.pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_until_restarted(home, before)

    # Create a backup while everything runs, and restore it in another home.
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

    # The first home starts again with its data. It takes 7 s on 2 idle cores; the limit allows for a busy machine.
    assert home.up() < 120
    kept = home.run("manage.py", "shell", "-c", note + "print(S.objects.filter(session_key='kept').count())")
    assert kept.stdout.strip().splitlines()[-1] == "1"

    # The supervisor itself can be killed: the next start replaces the processes it left.
    os.kill(int((home.folder / "supervisor.pid").read_text()), signal.SIGKILL)
    home.up()
    assert home.answers()

    # Two concurrent stops both succeed.
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: home.run("-m", "config.embedded", "down"), range(2)))
    assert [(done.returncode, done.stderr) for done in both] == [(0, ""), (0, "")]
    assert home.processes() == []


@pytest.fixture
def own_servers(home: Home, services: Services, django_db_setup: None) -> Iterator[dict[str, str]]:
    """Settings for a PostgreSQL database, a Redis and a registry that `make up` did not start.

    The database is separate, so that rows written by the installation reach no other test. The registry starts after
    the first start of the installation, which writes the certificate and the secret for the registry.
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
    services.forget_wake_ups()  # of all Redis databases, not only of this run


def start_own_registry(home: Home, services: Services, url: str) -> None:
    """Start the user's own registry, configured as in docs/how-to/own-servers.md."""
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


def test_own_servers_are_used_remembered_and_accept_a_push(
    home: Home, services: Services, own_servers: dict[str, str], tmp_path: Path
) -> None:
    home.up(**own_servers)
    assert set(home.pids()) == {"web", "worker", "builder", "ticker", "admission", "admission-writer", "sealer"}
    assert home.answers()
    start_own_registry(home, services, own_servers["REGISTRY_URL"])

    assert home.run("manage.py", "shell", "-c", OWNER_OF_SHOP).returncode == 0
    token = home.run("manage.py", "create_token", "anna").stdout.strip()
    layout = oci.layout(tmp_path / "image", oci.image("pushed"))
    target = f"docker://{own_servers['REGISTRY_URL'].removeprefix('http://')}/shop/api:1.0"
    pushed = skopeo("copy", "--dest-tls-verify=false", f"--dest-creds=anna:{token}", f"oci:{layout}:latest", target)
    assert pushed.returncode == 0, pushed.stderr
    api = httpx.Client(base_url=home.address, headers={"Authorization": f"Bearer {token}"})
    wait_until(lambda: api.get("/api/v1/images/").json()["results"], 30)
    refused = skopeo("copy", "--dest-tls-verify=false", "--dest-creds=anna:x", f"oci:{layout}:latest", target)
    assert "unauthorized" in refused.stderr
    home.down()

    home.up()  # without the variables: the same database is used again
    assert set(home.pids()) == {"web", "worker", "builder", "ticker", "admission", "admission-writer", "sealer"}
    assert not (home.folder / "pg").exists()
    assert len(api.get("/api/v1/images/").json()["results"]) == 1
    api.close()
    home.down()
    assert home.processes() == []


def test_behind_proxy_only_the_public_host_name_is_served(home: Home) -> None:
    home.up(PUBLIC_URL="https://dock.example.test", BEHIND_PROXY="1")
    with httpx.Client(base_url=f"http://127.0.0.1:{home.given['WEB_PORT']}") as client:
        assert client.get("/readyz", headers={"Host": "dock.example.test"}).status_code == 200
        assert client.get("/readyz").status_code == 400


def test_up_fails_on_taken_port_and_names_the_process(home: Home) -> None:
    with socket.socket() as holder:
        holder.bind((ports.LOOPBACK, int(home.given["WEB_PORT"])))
        holder.listen()
        done = home.run("-m", "config.embedded", "up")
    assert done.returncode == 1
    expected = f"Port {home.given['WEB_PORT']} (WEB_PORT) is used by "
    assert expected in done.stderr
    assert f"(process {os.getpid()})" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_reports_failing_server_with_its_log_and_retries_it(home: Home) -> None:
    bad = home.folder.parent / "bin"
    bad.mkdir()
    (bad / "docker-registry").write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 3\n")
    (bad / "docker-registry").chmod(0o755)
    done = home.run("-m", "config.embedded", "up", PATH=f"{bad}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "registry did not stay up" in done.stderr
    assert "the disk is on fire" in done.stderr

    # The supervisor keeps retrying, and the registry starts as soon as it can.
    log = home.folder / "log" / "registry.log"
    tries = log.read_text().count("on fire")
    wait_until(lambda: log.read_text().count("on fire") > tries + 5, 60)
    (bad / "docker-registry").write_text(f'#!/bin/sh\nexec {shutil.which("docker-registry")} "$@"\n')
    wait_until(lambda: ports.is_listening(int(home.given["REGISTRY_PORT"])), 60)


WITHOUT_MOUNT = ("setpriv", "--bounding-set=-sys_admin")  # a root who may not make the box, as in many containers


@pytest.mark.timeout(600)
def test_machine_without_a_build_box_refuses_the_demonstration_and_runs_the_rest(home: Home) -> None:
    def up(**more: str) -> subprocess.CompletedProcess[str]:
        return home.run("-m", "config.embedded", "up", before=WITHOUT_MOUNT, timeout_s=400, **more)

    refused = up(DEMO="1")
    assert refused.returncode == 1
    assert "The demonstration builds images, which this machine refuses." in refused.stderr
    assert "cannot confine recipes on this machine: " in refused.stderr
    assert "Demonstration with real images" not in refused.stdout
    assert not (home.folder / "demo-accounts.json").exists()
    assert home.answers()

    without = up(DEMO="0")
    assert without.returncode == 0, without.stderr
    assert "Builds: The embedded builder cannot confine recipes on this machine: " in without.stdout

    accepted = up(DEMO="0", BUILD_UNCONFINED="1")
    assert accepted.returncode == 0, accepted.stderr
    assert "Builds: Builds are NOT confined (BUILD_UNCONFINED=1): " in accepted.stdout


def test_restore_refuses_damaged_backup_and_changes_nothing(home: Home) -> None:
    backup = home.folder.parent / "backup"
    backup.mkdir()
    (backup / "database.dump").write_text("x")
    (backup / "SHA256SUMS").write_text("0" * 64 + "  database.dump\n")
    done = home.run("-m", "config.embedded.backup", "restore", str(backup))
    assert (done.returncode, "damaged" in done.stderr) == (1, True)
    assert not (home.folder / "env").exists()
