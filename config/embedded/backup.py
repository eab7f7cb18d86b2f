"""`python -m config.embedded.backup make|restore FOLDER`: back up an installation, and restore it.

A backup is a folder with the database, the registry content, the secrets and checksums. It includes the secrets because
the data is useless without FIELD_KEY and the token key. So keep the folder as private as the installation. The database
is dumped first: everything it refers to is already in the registry, where content is only added. Redis needs no backup.
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

from config.embedded import account, ports, postgres, settings_file
from config.embedded.__main__ import HOME, Installation, say
from config.embedded.registry_server import RegistryMissing
from config.embedded.supervisor import PartDied

SECRETS: Final = (
    "env",
    "registry/token.pem",
    "registry/token-ca.pem",
    "sealer/key.pem",
    "demo.json",
    "demo-accounts.json",
)
DUMP: Final = "database.dump"
CONTENT: Final = "registry.tar"
SUMS: Final = "SHA256SUMS"


class NotPossible(RuntimeError):
    """The backup or restore is not possible; nothing was changed."""


def make(folder: Path) -> None:
    """Write a backup of the installation to `folder`, which must not exist yet.

    Services can continue to run. The folder is created only when the backup is complete. Raises NotPossible.
    """
    values = settings_file.read(HOME / "env")
    address = os.environ.get("DATABASE_OWNER_URL") or values.get("DATABASE_OWNER_URL")
    if not address:
        raise NotPossible(f"No installation found in {HOME} (no file `env`).")
    if folder.exists():
        raise NotPossible(f"{folder} already exists, and a backup never overwrites. Choose a new folder.")
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
    """Restore a backup into this new, empty home, and start everything.

    Raises NotPossible when a checksum differs or the home is in use, before anything is changed.
    """
    _check(folder)
    if (HOME / "env").exists() or (HOME / "pg").exists():
        raise NotPossible(
            f"{HOME} already contains an installation. Move that folder away, or set GRAVINGDOCK_HOME to a new folder."
        )
    HOME.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "home", HOME, dirs_exist_ok=True)
    if (folder / CONTENT).exists():
        say("  Registry content")
        with tarfile.open(folder / CONTENT) as archive:
            # Python 3.11.2 in Debian 12 has no filters. The checksums above show that we packed the content.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(HOME / "registry")  # noqa: S202 -- see the comment above
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
        raise NotPossible(f"{folder} is not a backup: the file {SUMS} is missing.")
    for line in (folder / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise NotPossible(f"{path} is missing or damaged: its checksum is not the one in {SUMS}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pack(source: Path, target: Path) -> None:
    """Pack the registry's folder without unfinished uploads, uncompressed, because blobs are compressed already."""

    def without_uploads(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "/_uploads" in member.name else member

    with tarfile.open(target, "w") as archive:
        archive.add(source, arcname="data", filter=without_uploads)


def _run_client(program: str, address: str, *arguments: str) -> None:
    """Run a PostgreSQL client program. The password is passed in the environment, never on the command line."""
    parts = urlsplit(address)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
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
    """Return the client of the embedded PostgreSQL, or the one on PATH, which must not be older than the server.

    Raises NotPossible without one.
    """
    try:
        return postgres.programs() / program
    except postgres.PostgresFailed:  # the wheel is not installed: users run their own PostgreSQL
        pass
    if path := shutil.which(program):
        return Path(path)
    raise NotPossible(f"{program} is not installed. Install the package postgresql-client.")


def main() -> int:
    """Run the command and return its exit code: 1 after a problem, printed as one sentence."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded.backup", description=__doc__)
    parser.add_argument("verb", choices=("make", "restore"))
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    folder: Path = chosen.folder.absolute()
    os.umask(0o077)
    try:
        if chosen.verb == "make":
            make(folder)
            say(f"Backup written to {folder}. It contains secrets. Keep it private.")
        else:
            restore(folder)
            say(f"Restored to {HOME}. Gravingdock is running.")
    except (NotPossible, PartDied, RegistryMissing, postgres.PostgresFailed, account.NoAccount) as problem:
        print(f"gravingdock: {problem}", file=sys.stderr)
        return 1
    except (ports.PortTaken, OSError) as problem:
        print(f"gravingdock: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
