"""The environment of a bench: its own database, Redis database and registry folder, always removed at the end.

It uses the servers of the installation, so that the figures apply to that machine and its settings. The remains of a
killed bench are removed by the next one, which recognises them because the lock ended with the process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import redis
from django.conf import settings
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, connection

from config.embedded import keys, ports
from lifecycle.core.errors import LifecycleError

PREFIX: Final = "gravingdock_bench_"
_REDIS_NUMBERS: Final = range(15, 0, -1)  # by default Redis has 16 databases; the installation uses 0
_REDIS_MARK: Final = "gravingdock:bench"
_LOCK: Final = 0x62656E  # "ben"
# Names a migrated database of this version that nothing is connected to. A bench copies it in a second, where migrating
# takes 20. Who runs many benches after each other sets it (docs/how-to/measure.md).
_TEMPLATE: Final = "BENCH_TEMPLATE"
# Settings that a bench must not inherit: the databases, secrets and addresses of the installation.
_OWN: Final = (
    "DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "REGISTRY_URL", "REGISTRY_PUBLIC_URL", "PUBLIC_URL",
    "ALLOWED_HOSTS", "SECRET_KEY", "FIELD_KEY", "TOKEN_KEY", "TOKEN_CERT", "REGISTRY_HOOK_SECRET", "TOKEN_ISSUER",
    "REGISTRY_SERVICE", "EMBEDDED", "BEHIND_PROXY", "SCRATCH", "CRAWL_EVERY_S", "JOB_LEASE_S", "JOB_SWEEP_S",
    "DJANGO_SETTINGS_MODULE",
)  # fmt: skip


class NoPlace(LifecycleError):
    """The environment cannot be created. The message says what is missing."""

    code = "bench_no_place"
    http_status = 503


@contextlib.contextmanager
def scratch() -> Iterator[dict[str, str]]:
    """Create and migrate the environment, and remove it at the end. Yields the environment variables for processes.

    Raises NoPlace when a server does not respond or refuses the request.
    """
    with contextlib.ExitStack() as stack:
        locks = stack.enter_context(_locks())
        _remove_left_over(locks)
        name = PREFIX + _here() + os.urandom(5).hex()
        locks.take(name)
        template = os.environ.get(_TEMPLATE)
        stack.enter_context(_database(locks, name, template))
        number = stack.enter_context(_redis_number(locks, name))
        home = stack.enter_context(_folder(name))
        environment = _environment(name, number, home)
        if template is None:
            _migrate(environment)
        yield environment


def _migrate(environment: dict[str, str]) -> None:
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    done = subprocess.run(migrate, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPlace(f"manage.py migrate failed:\n{done.stderr[-2000:]}")


class _Locks:
    """Advisory locks by name, on one connection. PostgreSQL releases them when the process ends, also after a kill."""

    def __init__(self, link: connection) -> None:
        self.link = link

    def take(self, name: str) -> bool:
        """Take the lock and return True, or return False if a running process has it."""
        with self.link.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [_LOCK, zlib.crc32(name.encode()) - 2**31])
            return cursor.fetchone() == (True,)

    def execute(self, statement: str, *names: str) -> None:
        """Run a statement with the names of databases as its placeholders."""
        with self.link.cursor() as cursor:
            cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextlib.contextmanager
def _locks() -> Iterator[_Locks]:
    try:
        link = psycopg2.connect(settings.DATABASE_OWNER_URL, connect_timeout=5)
    except psycopg2.OperationalError as error:
        raise NoPlace(f"PostgreSQL does not respond ({str(error).strip()}). Start it: make up") from None
    link.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    try:
        yield _Locks(link)
    finally:
        link.close()


def _here() -> str:
    """Return what tells the folders of this installation's benches from those of others, whose locks are elsewhere."""
    return f"{zlib.crc32(str(settings.HOME).encode()):08x}_"


def _remove_left_over(locks: _Locks) -> None:
    """Remove the databases and folders of benches that have ended. Redis databases are checked when one is taken."""
    with locks.link.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
        names = {name for (name,) in cursor.fetchall()}
    folders = {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}{_here()}*")}
    for name in sorted(names | folders):
        if locks.take(name):
            locks.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
            shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


@contextlib.contextmanager
def _database(locks: _Locks, name: str, template: str | None) -> Iterator[None]:
    """Create a database, empty or as a copy, and drop it at the end of the block, even with open connections."""
    try:
        locks.execute("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'", name, template or "template0")
    except (psycopg2.errors.InvalidCatalogName, psycopg2.errors.ObjectInUse) as error:
        raise NoPlace(f"{_TEMPLATE} names a database that cannot be copied: {str(error).strip()}") from None
    except psycopg2.errors.InsufficientPrivilege:
        raise NoPlace(
            "The owner of the tables cannot create a database for the bench. Run: ALTER ROLE ... CREATEDB"
            " (docs/how-to/own-servers.md)."
        ) from None
    try:
        yield
    finally:
        locks.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@contextlib.contextmanager
def _redis_number(locks: _Locks, name: str) -> Iterator[int]:
    """Yield the number of an empty database in the installation's Redis, and empty it at the end of the block."""
    for number in _REDIS_NUMBERS:
        with contextlib.closing(
            redis.Redis.from_url(_redis_url(number), socket_connect_timeout=2, socket_timeout=5)
        ) as client:
            try:
                if isinstance(mark := client.get(_REDIS_MARK), bytes) and locks.take(mark.decode()):
                    client.flushdb()  # left over from a bench that has ended
                is_taken = client.dbsize() == 0 and client.set(_REDIS_MARK, name, nx=True)
            except redis.RedisError as error:
                raise NoPlace(f"Redis does not respond, or has no numbered databases ({error}).") from None
            if is_taken:
                try:
                    yield number
                finally:
                    client.flushdb()
                return
    raise NoPlace("Redis has no empty database for the bench. Empty one of the databases 1 to 15.")


def _redis_url(number: int) -> str:
    return urlunsplit(urlsplit(settings.REDIS_URL)._replace(path=f"/{number}"))


@contextlib.contextmanager
def _folder(name: str) -> Iterator[Path]:
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(database: str, redis_number: int, home: Path) -> dict[str, str]:
    """Return the environment variables of the bench's processes, with all settings, so that no file is needed."""
    web_port, registry_port = ports.scratch(2)
    key_file, certificate_file = home / "token.pem", home / "token-ca.pem"
    keys.make_token_key(key_file, certificate_file)
    inherited = {
        name: value for name, value in os.environ.items() if name not in _OWN and name.removesuffix("_FILE") not in _OWN
    }
    return inherited | {
        "GRAVINGDOCK_HOME": str(home),
        "DATABASE_URL": urlunsplit(urlsplit(_app_url())._replace(path=f"/{database}")),
        "DATABASE_OWNER_URL": urlunsplit(urlsplit(settings.DATABASE_OWNER_URL)._replace(path=f"/{database}")),
        "REDIS_URL": _redis_url(redis_number),
        "REGISTRY_URL": f"http://localhost:{registry_port}",
        "PUBLIC_URL": f"http://localhost:{web_port}",
        "SECRET_KEY": keys.password() + keys.password(),
        "FIELD_KEY": keys.fernet_key(),
        "TOKEN_KEY_FILE": str(key_file),
        "TOKEN_CERT_FILE": str(certificate_file),
        "REGISTRY_HOOK_SECRET": keys.password(),
        "SCRATCH": str(home / "scratch"),
        "CRAWL_EVERY_S": "86400",
        "PYTHONUNBUFFERED": "1",
    }


def _app_url() -> str:
    from config import env  # noqa: PLC0415 -- the complete URL; settings contain only its parts

    return env.text("DATABASE_URL")
