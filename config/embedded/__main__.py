"""`python -m config.embedded up|down|status|logs|demo`: run Gravingdock with all its services on one machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from config.embedded import account, admission, ports, postgres, settings_file, web
from config.embedded.redis_server import RedisServer
from config.embedded.registry_server import RegistryMissing, RegistryServer
from config.embedded.supervisor import MARK, Part, PartDied, Supervisor, started_at

ROOT: Final = Path(__file__).resolve().parent.parent.parent
HOME: Final = Path(os.environ.get("GRAVINGDOCK_HOME") or ROOT / "var").resolve()
FREE_MIN: Final = 2 * 1024**3  # bytes; the images of the demonstration and the database's log need about half of it
WEB_WAIT_S: Final = 180  # an idle machine needs 3; a busy one with few cores was seen to need more than 40
READER: Final = "captain"  # from lifecycle/demo/cast.py, which this module cannot import without Django
OURS: Final = ("web", "worker", "builder", "ticker", "admission", "admission-writer", "sealer")
TITLES: Final = {
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "registry": "registry",
    "web": "Web",
    "worker": "workers",
    "builder": "builder",
    "ticker": "ticker",
    "admission": "admission",
    "admission-writer": "its writer",
    "sealer": "sealer",
}


def say(text: str) -> None:
    """Print a line without buffering."""
    print(text, flush=True)


class Installation:
    """The services of one home folder."""

    def __init__(self) -> None:
        HOME.mkdir(parents=True, exist_ok=True)
        self.sockets = postgres.socket_folder(HOME)
        self.supervisor = Supervisor(HOME, self.sockets.with_name(self.sockets.name + "-sv"))

    def prepare(self, *, running: bool) -> None:
        """Choose the settings and write all configuration files."""
        self.values = settings_file.choose(HOME, running=running)
        self.embedded = set(filter(None, self.values["EMBEDDED_PARTS"].split(",")))
        parts: list[Part] = []
        if "postgres" in self.embedded:
            self.cluster = self._cluster()
            self.values["DATABASE_URL"] = self.cluster.url(postgres.APP)
            self.values["DATABASE_OWNER_URL"] = self.cluster.url(postgres.OWNER)
            if not running:
                self.cluster.prepare()
            parts.append(Part("postgres", self.cluster.command(), Path("/"), stop_signal="INT"))
        if "redis" in self.embedded:
            redis = RedisServer(HOME / "redis", int(self.values["REDIS_PORT"]), self.values["REDIS_PASSWORD"])
            redis.prepare()
            self.values["REDIS_URL"] = redis.url()
            parts.append(Part("redis", redis.command(), HOME))
        if "registry" in self.embedded:
            registry = self._registry()
            registry.prepare()
            self.values["REGISTRY_URL"] = registry.url
            parts.append(Part("registry", registry.command(), HOME))
        settings_file.write(HOME / "env", self.values)
        self.supervisor.write([*parts, *self._own_parts()])

    def _cluster(self) -> postgres.Cluster:
        folder = HOME / "pg"
        folder.mkdir(exist_ok=True)
        passwords = postgres.Passwords(*(self.values[name] for name in settings_file.PASSWORDS[:3]))
        who = account.account_for(postgres.programs() / "postgres", folder)
        return postgres.Cluster(folder / "data", self.sockets, int(self.values["PG_PORT"]), who, passwords)

    def _registry(self) -> RegistryServer:
        return RegistryServer(
            folder=HOME / "registry",
            port=int(self.values["REGISTRY_PORT"]),
            public_url=self.values["PUBLIC_URL"],
            service=self.values["REGISTRY_SERVICE"],
            issuer=self.values["TOKEN_ISSUER"],
            certificate_file=Path(self.values["TOKEN_CERT_FILE"]),
            hook_secret=self.values["REGISTRY_HOOK_SECRET"],
            http_secret=self.values["REGISTRY_HTTP_SECRET"],
        )

    def _own_parts(self) -> list[Part]:
        tools = Path(sys.executable).parent
        environment = {"GRAVINGDOCK_HOME": str(HOME), "PYTHONUNBUFFERED": "1"}
        celery = [str(tools / "celery"), "-A", "config.celery", "worker", "--loglevel=INFO", "--without-gossip"]
        quiet = ["--without-mingle", "--pool=prefork"]
        worker = [*celery, *quiet, "-n", "worker@%h", "-Q", "ingest,match,promote,notify", "-c", "2"]
        builder = [*celery, *quiet, "-n", "builder@%h", "-Q", "scan,rebuild", "-c", "2"]
        return [
            Part(
                "web",
                web.command(int(self.values["WEB_PORT"])),
                ROOT,
                environment=environment,
                is_group_stopped=True,
            ),
            Part("worker", worker, ROOT, environment=environment, stop_wait_s=40),
            Part("builder", builder, ROOT, environment=environment, stop_wait_s=40),
            Part("ticker", [sys.executable, "manage.py", "ticker"], ROOT, environment=environment),
            Part(
                "admission",
                admission.command(int(self.values["ADMISSION_PORT"])),
                ROOT,
                environment=environment,
                is_group_stopped=True,
            ),
            Part("admission-writer", [sys.executable, "manage.py", "admission_writer"], ROOT, environment=environment),
            Part("sealer", [sys.executable, "manage.py", "sealer"], ROOT, environment=environment),
        ]

    def up(self) -> str:
        """Start all services that are not running, and update the tables; return why builds are refused, "" if not.

        Raises PartDied, PostgresFailed, PortTaken, NoAccount or RegistryMissing, with a message for the user.
        """
        started = time.monotonic()
        running = self.supervisor.is_running()
        if not running:
            free = shutil.disk_usage(HOME).free
            if free < FREE_MIN:
                raise PartDied(
                    f"Only {free // 1024**2} MB are free in {HOME}, but {FREE_MIN // 1024**2} MB are required. "
                    "Free some space, or set GRAVINGDOCK_HOME to a folder on another disk."
                )
            # After a killed supervisor, its services still run without supervision and use our ports.
            self._end_left_over()
            shutil.rmtree(HOME / "scratch", ignore_errors=True)  # left over from interrupted builds and scans
        (HOME / "scratch").mkdir(mode=0o700, exist_ok=True)
        self.prepare(running=running)
        if not running:
            self.supervisor.socket.parent.mkdir(mode=0o700, exist_ok=True)
            self.supervisor.start()
        servers = [part for part in ("postgres", "redis", "registry") if part in self.embedded]
        say("  " + (", ".join(TITLES[part] for part in servers) or "Your own PostgreSQL, Redis and registry"))
        self.supervisor.start_parts(servers)
        if "postgres" in self.embedded:
            self.cluster.wait(60, alive=lambda: self.supervisor.states().get("postgres") == "RUNNING")
            self.cluster.make_database()
        if running:  # the code may be newer than the processes, and the next step updates the tables
            self.supervisor.ask_to_stop(OURS)
        say("  Database tables and static files")
        with ThreadPoolExecutor() as both:
            builds = both.submit(self.checked_builder)
            for done in [
                both.submit(self.manage, "migrate", "-v0"),
                both.submit(self.manage, "collectstatic", "--noinput", "-v0"),
            ]:
                done.result()
        say("  " + ", ".join(TITLES[part] for part in OURS))
        if running:
            self.supervisor.await_stopped(OURS)
            self.supervisor.reload_configuration(OURS)
        self.supervisor.start_parts(OURS)
        self._await_web()
        self._check_web_is_ours()
        ports.release()  # from here on, our servers hold them
        is_refused, sentence = builds.result()
        if sentence:
            say(f"Builds: {sentence}")
        say(f"Up in {time.monotonic() - started:.0f} s: {self.values['PUBLIC_URL']}")
        return sentence if is_refused else ""

    def manage(self, *words: str) -> None:
        """Run a management command with the settings of this home; raises PartDied with its output."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env={**os.environ, "GRAVINGDOCK_HOME": str(HOME)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PartDied(f"manage.py {words[0]} failed:\n{(done.stderr or done.stdout).strip()[-1500:]}")

    def checked_builder(self) -> tuple[bool, str]:
        """Return whether builds are refused, and why they are refused or not confined; "" when they run in a box."""
        command = [sys.executable, "manage.py", "check_builder"]
        environment = {**os.environ, "GRAVINGDOCK_HOME": str(HOME)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        sentence = done.stdout.strip()
        if sentence == "Builds run in a box.":
            return False, ""
        return done.returncode != 0, sentence or done.stderr.strip()[-300:]

    def _await_web(self, timeout_s: float = WEB_WAIT_S, *, say_every_s: float = 20) -> None:
        """Return when the web process is ready; raises PartDied when it ended for good or needs too long."""
        address = f"http://{ports.LOOPBACK}:{self.values['WEB_PORT']}/readyz"
        deadline = time.monotonic() + timeout_s
        host = urlsplit(self.values["PUBLIC_URL"]).netloc  # the web process accepts no other host name
        request = urllib.request.Request(address, headers={"Host": host})
        problem: object = "no response"
        next_sign = time.monotonic() + say_every_s
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(request, timeout=10):  # noqa: S310 -- our own http address
                    return
            except (urllib.error.URLError, OSError) as error:
                problem = error
            if self.supervisor.states().get("web") in {"FATAL", "EXITED", "BACKOFF"}:
                break
            if time.monotonic() > next_sign:
                say(f"  The web process is still starting ({problem}). Waiting at most {timeout_s:.0f} s.")
                next_sign += say_every_s
            time.sleep(0.2)
        raise PartDied(
            f"The web process is not ready ({problem}). A slow machine may need more time: run the same command again. "
            f"The end of its log:\n{self.supervisor.tail('web')}"
        )

    def _check_web_is_ours(self) -> None:
        """Raise PortTaken when a process of another installation or program listens on the web port too."""
        port = int(self.values["WEB_PORT"])
        others = ports.listeners(port) - {pid for pid, _ in self.supervisor.family()}
        if others:
            self.supervisor.ask_to_stop(OURS)
            who = f"process {min(others)}" if min(others) else "a process of another user"
            raise ports.PortTaken(
                f"Port {port} (WEB_PORT) is also used by {who}, which would get a part of our requests. Stop that "
                "program, or choose another port: WEB_PORT=<port> make up"
            )

    def down(self) -> None:
        """Stop all processes of this home, including those left over from a killed supervisor."""
        family = self.supervisor.family()
        self.supervisor.shut_down(OURS)
        for pid, ticks in family:  # a build can leave its process group and outlive the builder
            if (process := started_at(pid)) is not None and process[1] == ticks:
                _signal(pid, signal.SIGKILL)
        self._end_left_over()
        for folder in (self.sockets, self.supervisor.socket.parent):
            shutil.rmtree(folder, ignore_errors=True)

    def _end_left_over(self) -> None:
        """End the processes of this home that run without a supervisor; kill those that do not stop."""
        # For PostgreSQL, SIGINT is a fast but clean shutdown. SIGTERM would wait for its clients.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            pids = self._left_over()
            for pid in pids:
                _signal(pid, number)
            deadline = time.monotonic() + 10
            while pids and self._left_over() and time.monotonic() < deadline:
                time.sleep(0.1)

    def _left_over(self) -> list[int]:
        """Return the IDs of the processes of this home, recognised by MARK in their environment or by their files."""
        mark = f"{MARK}={HOME}".encode()
        ours = f"{HOME}/".encode()
        pids = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or started_at(int(entry.name)) is None:
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes().split(b"\0")
                # Redis overwrites its command line and environment, so check its working folder.
                is_redis = (entry / "exe").readlink().name == "redis-server" and (
                    entry / "cwd"
                ).readlink() == HOME / "redis"
            except OSError:
                continue
            is_server = command[0].endswith((b"/postgres", b"/docker-registry", b"/supervisord")) and any(
                word.startswith(ours) for word in command
            )
            if mark in environment or is_server or is_redis:
                pids.append(int(entry.name))
        return pids


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def demonstrate(installation: Installation, *, again: bool, refusal: str) -> int:
    """Run the demonstration, once unless `again`; returns its exit code: 1 when builds are refused, and why."""
    if (HOME / "demo.json").exists() and not again:
        return 0
    if refusal:
        print(
            f"gravingdock: The demonstration builds images, which this machine refuses. {refusal}\n"
            f"All services are running: {installation.values['PUBLIC_URL']}\nStart without it: DEMO=0 make up",
            file=sys.stderr,
        )
        return 1
    words = [sys.executable, "manage.py", "demo", *(["--again"] if again else [])]
    # With MARK, `make down` ends it too. The demonstration handles an interrupt itself, to end its builds.
    environment = {**os.environ, "GRAVINGDOCK_HOME": str(HOME), MARK: str(HOME), "PYTHONUNBUFFERED": "1"}
    say("")
    process = subprocess.Popen(words, cwd=ROOT, env=environment)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    if code < 0:  # most likely `make down` in another terminal
        say("The demonstration was stopped. Run it again from the beginning: make demo")
        return 1
    if code:
        say(
            f"\nThe demonstration failed. All services are running: {installation.values['PUBLIC_URL']}\n"
            "Run the demonstration again: make demo. Start without it: DEMO=0 make up"
        )
    return code


def sign_in() -> str:
    """Return the login of the demonstration's reader, or how to create the first account."""
    accounts = HOME / "demo-accounts.json"
    if not accounts.exists():
        return "Create the first account: .venv/bin/python manage.py create_user NAME --admin"
    reader = json.loads(accounts.read_text())[READER]
    return (
        f"Sign in as {reader['username']} with the password {reader['password']}\n"
        f"Accounts for the other roles: {accounts}"
    )


def main() -> int:
    """Run the command and return its exit code: 1 after a problem, printed as one sentence."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "status", "logs", "demo"))
    verb = parser.parse_args().verb
    installation = Installation()
    try:
        if verb in {"up", "demo"}:
            say(f"Starting Gravingdock in {HOME}")
            refusal = installation.up()
            if verb == "demo" or os.environ.get("DEMO", "1") != "0":
                code = demonstrate(installation, again=verb == "demo", refusal=refusal)
                if code:
                    return code
            say(f"\nOpen {installation.values['PUBLIC_URL']}\n{sign_in()}")
        elif verb == "down":
            installation.down()
            say("Stopped. All data is kept in " + str(HOME))
        elif verb == "status":
            states = installation.supervisor.states() if installation.supervisor.is_running() else {}
            say("\n".join(f"{name:10} {state.lower()}" for name, state in states.items()) or "Nothing is running.")
        else:
            files = sorted(str(path) for path in (HOME / "log").glob("*.log"))
            os.execvp("tail", ["tail", "-n", "20", "-F", *files])  # noqa: S606 -- no shell is wanted
    except (
        PartDied,
        RegistryMissing,
        postgres.PostgresFailed,
        account.NoAccount,
        ports.PortTaken,
        OSError,
    ) as problem:
        print(f"gravingdock: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
