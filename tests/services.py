"""Real servers for the tests: each is started once in a run, when a test first needs it, and ended with the run."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import redis

from config.embedded import account, keys, ports, postgres, web
from config.embedded.redis_server import RedisServer
from config.embedded.registry_server import RegistryServer
from tests import migrated

ROOT = Path(__file__).resolve().parent.parent
# What writes into the database by itself, in the order in which one gives the next something to write.
WRITERS = ("registry", "ticker", "worker", "builder", "web")
# What a test may not delete between tests: the rows that migrations wrote.
KEPT = {
    "django_migrations": "true",
    "django_content_type": "true",
    "auth_permission": "true",
    "accounts_role": "is_builtin",
    "accounts_user": "kind = 'system'",
    "lifecycle_permissionchange": "true",  # running servers forget what they keep in memory by it
}


class Services:
    """Addresses are chosen at once, so that settings can name them; servers start when they are first asked for."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gdtest-"))
        self.home.chmod(0o755)
        (self.home / "scratch").mkdir(mode=0o700)  # as `make up` does
        (self.home / "static").mkdir()  # whitenoise warns of a missing folder, and here warnings are errors
        pg_port, redis_port, registry_port, web_port = ports.scratch(4)
        self.web_url = f"http://localhost:{web_port}"
        self.web_port = web_port
        self._pg_port = pg_port
        self._kept = migrated.folder()
        self._nearest = migrated.nearest(self._kept)
        kept_passwords = migrated.passwords(self._nearest)
        self._may_restore = kept_passwords is not None
        self._passwords = kept_passwords or postgres.Passwords(keys.password(), keys.password(), keys.password())
        self.redis = RedisServer(self.home / "redis", redis_port, keys.password())
        self.hook_secret = keys.password()
        self.key_file, self.certificate_file = self.home / "token.pem", self.home / "token-ca.pem"
        keys.make_token_key(self.key_file, self.certificate_file)
        self.registry = RegistryServer(
            folder=self.home / "registry",
            port=registry_port,
            public_url=self.web_url,
            service="gravingdock-registry",
            issuer="gravingdock",
            certificate_file=self.certificate_file,
            hook_secret=self.hook_secret,
            http_secret=keys.password(),
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._is_migrated = False
        self._as_migrated: dict[str, str] = {}
        self._link: psycopg2.extensions.connection | None = None
        atexit.register(self.stop)

    @cached_property
    def cluster(self) -> postgres.Cluster:
        """PostgreSQL's cluster; the account that runs it is only looked for when it is needed."""
        folder = self.home / "pg"
        folder.mkdir(exist_ok=True)
        who = account.account_for(postgres.programs() / "postgres", folder, die_with_parent=True)
        return postgres.Cluster(
            data=folder / "data",
            sockets=postgres.socket_folder(self.home),
            port=self._pg_port,
            account=who,
            passwords=self._passwords,
            durable=False,
        )

    def environment(self) -> dict[str, str]:
        """Return every setting the processes under test need."""
        address = f"{ports.LOOPBACK}:{self._pg_port}/{postgres.DATABASE}?sslmode=disable"
        return {
            "GRAVINGDOCK_HOME": str(self.home),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": f"postgres://{postgres.APP}:{self._passwords.app}@{address}",
            "DATABASE_OWNER_URL": f"postgres://{postgres.OWNER}:{self._passwords.owner}@{address}",
            "REDIS_URL": self.redis.url(),
            "REGISTRY_URL": self.registry.url,
            "PUBLIC_URL": self.web_url,
            "SECRET_KEY": keys.password() + keys.password(),
            "FIELD_KEY": keys.fernet_key(),
            "TOKEN_KEY_FILE": str(self.key_file),
            "TOKEN_CERT_FILE": str(self.certificate_file),
            "REGISTRY_HOOK_SECRET": self.hook_secret,
            "SCRATCH": str(self.home / "scratch"),
            "JOB_LEASE_S": "3",
            "JOB_SWEEP_S": "1",
            "CRAWL_EVERY_S": "86400",
            "RESCANS_AT_ONCE": "0",
        }

    def start(self, name: str, command: list[str], *, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program in a process group of its own; its output goes to `<home>/<name>.log`."""
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.processes[name] = process
        return process

    def is_alive(self, name: str) -> bool:
        """Whether the process of that name runs."""
        process = self.processes.get(name)
        return process is not None and process.poll() is None

    def need_postgres(self) -> None:
        """Start PostgreSQL and migrate, once."""
        if not self.is_alive("postgres"):
            if not self.cluster.exists and self._may_restore and self._nearest is not None:
                is_restored = migrated.restore(self._nearest, self.cluster.data)
                self._is_migrated = is_restored and self._nearest == self._kept
            self._start_postgres()
            self.cluster.make_database()
        if not self._is_migrated:
            done = subprocess.run(
                [sys.executable, "manage.py", "migrate", "-v0"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
            )
            if done.returncode:
                raise RuntimeError(f"migrate failed:\n{done.stdout}\n{done.stderr}")
            self._is_migrated = True
            if self._kept is not None and not self._kept.exists():
                self.kill("postgres", signal.SIGINT)
                migrated.keep(self._kept, self.cluster.data, self._passwords)
                self._start_postgres()
        if not self._as_migrated:
            self._as_migrated = {name: self._rows_of(name, kept) for name, kept in self._tables() if kept != "false"}

    def _start_postgres(self) -> None:
        self.cluster.prepare()
        self.start("postgres", self.cluster.command())
        self.cluster.wait(30, alive=lambda: self.is_alive("postgres"))

    def need_redis(self) -> None:
        """Start Redis."""
        if not self.is_alive("redis"):
            self.redis.prepare()
            self.start("redis", self.redis.command())
            self._await_port("redis", self.redis.port)

    def forget_wake_ups(self) -> None:
        """Empty Redis."""
        client = redis.Redis.from_url(self.redis.url())
        client.flushall()
        client.close()

    def need_registry(self) -> None:
        """Start the registry; it asks the web process under test for its tokens."""
        if not self.is_alive("registry"):
            self.registry.prepare()
            self.start("registry", self.registry.command(), env={"PATH": os.environ["PATH"]})
            self._await_port("registry", self.registry.port)

    def need_web(self) -> None:
        """Start the web process as production does: granian, WSGI."""
        self.need_postgres()
        self.need_redis()
        if not self.is_alive("web"):
            self._collect_static_files()
            self.start("web", web.command(self.web_port, workers=1), env=dict(os.environ))
            self._await_port("web", self.web_port)

    def _collect_static_files(self) -> None:
        """Once for all starts of the web process: they are compressed, which takes ten seconds of processor time."""
        if not any((self.home / "static").iterdir()):
            subprocess.run([sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"], cwd=ROOT, check=True)

    def need_workers(self, *names: str, app: str = "config.celery", **settings: str) -> None:
        """Start the Celery workers and the ticker, or those of them that are named, with other settings if given."""
        self.need_web()
        celery = [str(Path(sys.executable).with_name("celery")), "-A", app, "worker", "--loglevel=WARNING"]
        quiet = ["--without-gossip", "--without-mingle", "--pool=prefork"]
        commands = {
            "worker": [*celery, *quiet, "-n", "worker@test", "-Q", "ingest,match,promote,notify", "-c", "2"],
            "builder": [*celery, *quiet, "-n", "builder@test", "-Q", "scan,rebuild", "-c", "2"],
            "ticker": [sys.executable, "manage.py", "ticker"],
        }
        for name in names or commands:
            if not self.is_alive(name):
                self.start(name, commands[name], env={**os.environ, **settings})

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process and all it started, and wait for the process."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=5)

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def end_writers(self) -> None:
        """Kill what writes by itself, and return when the database has ended what it had sent there.

        A killed process' commit still commits. Raises RuntimeError, the intruder's connection ended, when anything
        but this process is still connected after 10 s.
        """
        for name in WRITERS:
            self.kill(name)
        mine = _local_ports()
        deadline = time.monotonic() + 10
        while others := [row for row in self._app_connections() if row[1] not in mine]:
            if time.monotonic() > deadline:
                for pid, *_ in others:
                    self._as_superuser("SELECT pg_terminate_backend(%s, 5000)", [pid])
                raise RuntimeError(f"A process that no test ended still writes into the database: {others}")
            time.sleep(0.02)

    def empty_database(self) -> None:
        """Bring every row back to what the migrations wrote, those too that a test changed.

        As the superuser: the application role may not empty the audit trail.
        """
        statements = [f'DELETE FROM "{name}"' for name, _ in self._tables()]
        statements += [
            f'INSERT INTO "{name}" SELECT * FROM jsonb_populate_recordset(NULL::"{name}", %s)'
            for name in self._as_migrated
        ]
        forget = (
            "INSERT INTO lifecycle_permissionchange (transaction, kind, key, at)"
            " VALUES (pg_current_xact_id()::text::bigint, '*', '', now())"
        )  # by hand, because no trigger runs here
        self._as_superuser(
            "SET session_replication_role = replica; " + "; ".join([*statements, forget]), [*self._as_migrated.values()]
        )

    def _rows_of(self, table: str, condition: str) -> str:
        """Return rows of a table as a JSON list."""
        return str(
            self._as_superuser(
                f"SELECT COALESCE(jsonb_agg(to_jsonb(r)), '[]')::text FROM \"{table}\" r WHERE {condition}"
            )[0][0]
        )

    def tidy(self) -> None:
        """Remove what is left of the rows of earlier tests, before a test that makes many."""
        self._as_superuser("VACUUM (ANALYZE, SKIP_LOCKED)")

    def drop_database(self, name: str) -> None:
        """Remove a database that a test made beside the one of this run, whoever is still connected."""
        self._as_superuser(f'DROP DATABASE "{name}" WITH (FORCE)')

    def end_connections(self) -> int:
        """Let PostgreSQL end every connection of the application, this process' too; returns how many."""
        return len(
            self._as_superuser(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND datname = %s",
                [postgres.APP, postgres.DATABASE],
            )
        )

    @contextmanager
    def held(self, table: str) -> Iterator[Callable[[], bool]]:
        """Let nobody write to a table; gives what tells whether a writer waits for it by now."""
        link = self.cluster.connect(postgres.SUPERUSER, postgres.DATABASE)
        try:
            with link.cursor() as cursor:
                cursor.execute(f'BEGIN; LOCK TABLE "{table}" IN SHARE MODE')
                waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = %s::regclass AND NOT granted)"
                yield lambda: bool(self._as_superuser(waiting, [table])[0][0])
        finally:
            link.close()

    def rows_left(self) -> list[str]:
        """Return the tables that hold a row which no migration wrote."""
        parts = [
            f"SELECT '{name}' WHERE EXISTS (SELECT FROM \"{name}\" WHERE NOT ({kept}))" for name, kept in self._tables()
        ]
        return [name for (name,) in self._as_superuser(" UNION ALL ".join(parts))]

    def _tables(self) -> list[tuple[str, str]]:
        """Return (table, which of its rows stay) of each table that a test may write to."""
        found = self._as_superuser("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return [(name, KEPT.get(name, "false")) for (name,) in found if KEPT.get(name) != "true"]

    def _app_connections(self) -> list[tuple[Any, ...]]:
        return self._as_superuser(
            "SELECT pid, client_port, state, query FROM pg_stat_activity WHERE usename = %s AND datname = %s",
            [postgres.APP, postgres.DATABASE],
        )

    def _as_superuser(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run SQL that may run twice, over a connection that is kept; a new one when a test broke it."""
        for is_last in (False, True):
            if self._link is None or self._link.closed:
                self._link = self.cluster.connect(postgres.SUPERUSER, postgres.DATABASE)
            try:
                with self._link.cursor() as cursor:
                    cursor.execute("SET lock_timeout = '10s'")
                    cursor.execute(statement, list(values) or None)
                    return list(cursor.fetchall()) if cursor.description else []
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                self._link.close()
                if is_last:
                    raise
        raise AssertionError("unreachable")

    def _await_port(self, name: str, port: int, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if ports.is_listening(port):
                return
            if not self.is_alive(name):
                break
            time.sleep(0.05)
        raise RuntimeError(f"{name} did not start:\n{self.log(name)[-3000:]}")

    def stop(self) -> None:
        """End everything that was started, and remove its files."""
        for name in ("ticker", "worker", "builder", "web", "registry", "redis", "postgres"):
            self.kill(name, signal.SIGINT if name == "postgres" else signal.SIGTERM)
        if "cluster" in self.__dict__:
            shutil.rmtree(self.cluster.sockets, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)


def _local_ports() -> set[int]:
    """Return the ports that this process' own TCP connections start from."""
    inodes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes}


def wait_until(condition: Callable[[], object], timeout_s: float = 30, *, every_s: float = 0.1) -> None:
    """Return when `condition()` is true; fails after `timeout_s`. A failed query counts as not yet."""
    from django.db import InterfaceError, OperationalError, connection

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except (OperationalError, InterfaceError):
            connection.close()  # the next query opens another
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {timeout_s} s: {condition}")
        time.sleep(every_s)
