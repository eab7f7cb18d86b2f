"""`python -m config.embedded.backup make|restore FOLDER`: all that cannot be made again, and the way back.

A backup is a folder: the database, the registry's content, the secrets (without FIELD_KEY and the token key the rest is
useless, so they travel together: keep the folder as private as the installation), and checksums. The database is dumped
first: whatever it names is then in the registry already, and content only ever gets added. Redis holds nothing to keep.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from config.embedded import account, postgres, settings_file
from config.embedded.__main__ import HOME, Installation, say
from config.embedded.registry_server import RegistryMissing
from config.embedded.supervisor import PartDied

SECRETS: Final = ("env", "registry/token.pem", "registry/token-ca.pem", "demo.json", "demo-accounts.json")
DUMP: Final = "database.dump"
CONTENT: Final = "registry.tar"
SUMS: Final = "SHA256SUMS"


class NotPossible(RuntimeError):
    """A backup or a restoration that cannot be done; nothing was changed."""


def make(folder: Path) -> None:
    """Write a backup of the running installation to `folder`, which must not exist yet.

    Nothing has to be stopped. The folder appears whole or not at all. Raises NotPossible.
    """
    values = settings_file.read(HOME / "env")
    address = os.environ.get("DATABASE_OWNER_URL") or values.get("DATABASE_OWNER_URL")
    if not address:
        raise NotPossible(f"There is no installation in {HOME} (no file `env`).")
    if folder.exists():
        raise NotPossible(f"{folder} exists already; a backup never overwrites another.")
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    try:
        say("  Database")
        _run_client("pg_dump", address, "--format=custom", "--no-owner", f"--file={draft / DUMP}")
        for name in SECRETS:
            if (HOME / name).exists():
                (draft / "home" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(HOME / name, draft / "home" / name)
        if (HOME / "registry" / "data").is_dir():
            say("  Registry content")
            _pack(HOME / "registry" / "data", draft / CONTENT)
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        (draft / SUMS).write_text("".join(f"{_sha256(path)}  {path.relative_to(draft)}\n" for path in files))
        for path in [*files, draft / SUMS]:
            path.chmod(0o600)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def restore(folder: Path) -> None:
    """Bring a backup back into this (new, empty) home, and start everything.

    Raises NotPossible before anything is changed when a checksum differs or the home is in use.
    """
    _check(folder)
    if (HOME / "env").exists() or (HOME / "pg").exists():
        raise NotPossible(
            f"{HOME} holds an installation. A backup is restored into an empty home: move that folder away, or set "
            "GRAVINGDOCK_HOME to a new one."
        )
    HOME.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "home", HOME, dirs_exist_ok=True)
    if (folder / CONTENT).exists():
        say("  Registry content")
        with tarfile.open(folder / CONTENT) as archive:
            # Debian 12's Python 3.11.2 knows no filters; the checksums above say that the content is what we packed.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(HOME / "registry")  # noqa: S202 -- as said
    installation = Installation()
    installation.prepare(running=False)
    installation.supervisor.socket.parent.mkdir(mode=0o700, exist_ok=True)
    installation.supervisor.start()
    if "postgres" in installation.embedded:
        installation.supervisor.start_part("postgres")
        installation.cluster.wait(60)
        installation.cluster.make_database()
    say("  Database")
    options = ("--single-transaction", "--exit-on-error", "--no-owner")
    _run_client("pg_restore", installation.values["DATABASE_OWNER_URL"], *options, str(folder / DUMP))
    installation.up()


def _check(folder: Path) -> None:
    if not (folder / SUMS).exists():
        raise NotPossible(f"{folder} is no backup: it has no {SUMS}.")
    for line in (folder / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise NotPossible(f"{path} is damaged or missing: its checksum differs from {SUMS}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pack(source: Path, target: Path) -> None:
    """Pack the registry's folder, without uploads that never ended; blobs are compressed already."""

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "/_uploads" in member.name else member

    with tarfile.open(target, "w") as archive:
        archive.add(source, arcname="data", filter=wanted)


def _run_client(program: str, address: str, *arguments: str) -> None:
    """Run one of PostgreSQL's clients; the password goes by the environment, never by the command line."""
    parts = urlsplit(address)
    query = {name: found[-1] for name, found in parse_qs(parts.query).items()}
    environment = {
        **os.environ,
        "PGHOST": query.get("host") or parts.hostname or "",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.strip("/")),
        "PGSSLMODE": query.get("sslmode", "prefer"),
    }
    command = [str(_client(program)), *arguments]
    if program == "pg_restore":
        command.append(f"--dbname={environment['PGDATABASE']}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotPossible(f"{program} failed: {done.stderr.strip()[-1500:]}")


def _client(program: str) -> Path:
    """Return the client of the embedded PostgreSQL, else the one on PATH (it must not be older than the server)."""
    try:
        return postgres.programs() / program
    except postgres.PostgresFailed:  # the wheel is not installed: the database is somewhere else
        pass
    if found := shutil.which(program):
        return Path(found)
    raise NotPossible(f"{program} is not there; install PostgreSQL's client programs (postgresql-client).")


def main() -> int:
    """Do what the command line says; problems are one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded.backup", description=__doc__)
    parser.add_argument("verb", choices=("make", "restore"))
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    folder: Path = chosen.folder.absolute()
    os.umask(0o077)
    try:
        if chosen.verb == "make":
            make(folder)
            say(f"Backup written to {folder}. It holds secrets: keep it private.")
        else:
            restore(folder)
            say(f"Restored into {HOME} and running.")
    except (NotPossible, PartDied, RegistryMissing, postgres.PostgresFailed, account.NoAccount) as problem:
        print(f"gravingdock: {problem}", file=sys.stderr)
        return 1
    except (settings_file.PortTaken, OSError) as problem:
        print(f"gravingdock: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
