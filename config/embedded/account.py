"""The account that runs PostgreSQL. PostgreSQL refuses to run as root, but all other services can.

A normal user runs it under their own account. Root runs it under a system user. That user may have no access to the
checkout, for example below a home directory with mode 0700. We do not change the mode of such directories. Instead the
process gets one capability, to enter and read directories. Where capabilities are not available, it runs as "nobody" in
its own user namespace.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSTEM_USER: Final = "gravingdock-pg"
# Only root writes here, so no one else can hold the lock or replace the file.
_LOCK: Final = Path("/run/gravingdock-pg.lock")


class NoAccount(RuntimeError):
    """PostgreSQL cannot run here under an account other than root."""


@dataclass(frozen=True, slots=True)
class Account:
    """A way to run a program: a command prefix, and the owner of its files (None: do not change the owner)."""

    name: str
    prefix: tuple[str, ...]
    uid: int | None
    gid: int | None

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the full command line that runs `argv` under this account."""
        return [*self.prefix, *argv]

    def own(self, path: Path) -> None:
        """Change the owner of `path` and everything below it to the account, once; links are not followed."""
        if self.uid is None or self.gid is None or path.lstat().st_uid == self.uid:
            return
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), self.uid, self.gid, follow_symlinks=False)
        # The top folder comes last: after an interruption, the next start finds it unchanged and repeats everything.
        os.chown(path, self.uid, self.gid)


def account_for(program: Path, folder: Path, *, die_with_parent: bool = False) -> Account:
    """Return the least privileged account that can run `program` and write to `folder`, which must exist.

    With `die_with_parent`, the kernel interrupts the program when its parent ends (for tests).
    Raises NoAccount when root has no such account; the message lists what was tried.
    """
    watch = ("--pdeathsig", "INT") if die_with_parent else ()
    if os.geteuid() != 0:
        prefix = ("setpriv", *watch) if watch else ()
        return Account(pwd.getpwuid(os.geteuid()).pw_name, prefix, None, None)
    problems: list[str] = []
    for account in _ways(watch):
        if (problem := _probe(account, program, folder)) is None:
            return account
        problems.append(f"{account.name}: {problem}")
    raise NoAccount(
        "PostgreSQL refuses to run as root, and no other account can use "
        f"{folder}. Run this as a normal user, or move the checkout to a folder that a system user can read. Tried: "
        + "; ".join(problems or ["nothing, because setpriv and unshare are missing (Debian package util-linux)"])
    )


def _ways(watch: tuple[str, ...]) -> Iterator[Account]:
    user = _system_user() if shutil.which("setpriv") else None
    if user is not None:
        become = (
            "setpriv",
            *watch,
            "--reuid",
            str(user.pw_uid),
            "--regid",
            str(user.pw_gid),
            "--clear-groups",
        )
        bare = "-all"
        yield Account(
            SYSTEM_USER,
            (
                *become,
                "--inh-caps",
                bare,
                "--ambient-caps",
                bare,
                "--bounding-set",
                bare,
                "--no-new-privs",
            ),
            user.pw_uid,
            user.pw_gid,
        )
        walk = "-all,+dac_read_search"  # enter and read directories; no write access to files of others
        yield Account(
            f"{SYSTEM_USER} with CAP_DAC_READ_SEARCH",
            (
                *become,
                "--inh-caps",
                walk,
                "--ambient-caps",
                walk,
                "--bounding-set",
                walk,
                # Without this bit, access(2) ignores the capability, and PostgreSQL finds its programs with access(2).
                "--securebits",
                "+no_setuid_fixup",
                "--no-new-privs",
            ),
            user.pw_uid,
            user.pw_gid,
        )
    if shutil.which("unshare"):
        nobody = pwd.getpwnam("nobody")
        mapped = (f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
        inner = ("setpriv", *watch) if watch else ()
        yield Account("nobody in a user namespace", ("unshare", "--user", *mapped, *inner), 0, 0)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for other processes that create the user: two `useradd` at once gave it a number that then changed."""
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _system_user() -> pwd.struct_passwd | None:
    """Return the system user for PostgreSQL, created if necessary; None where users cannot be created."""
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command += ["--shell", "/usr/sbin/nologin", "--comment", "Gravingdock PostgreSQL", SYSTEM_USER]
    # Looking waits too: while a `useradd` runs, the number of its user can still change.
    with suppress(OSError, subprocess.CalledProcessError), _one_at_a_time():
        if not _exists():
            subprocess.run(command, check=True, capture_output=True)
    return pwd.getpwnam(SYSTEM_USER) if _exists() else None


def _exists() -> bool:
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return False
    return True


def _probe(account: Account, program: Path, folder: Path) -> str | None:
    """Return the reason why the account cannot run `program` or write to `folder`; None if it can."""
    scratch = folder / f".probe-{os.getpid()}"
    scratch.mkdir(mode=0o700)
    try:
        if account.uid is not None and account.gid is not None:
            os.chown(scratch, account.uid, account.gid)
        # With -C, PostgreSQL locates itself, reads its folder and exits. --version would do neither.
        script = 'cd "$1" && : > postgresql.conf && exec "$2" -D "$1" -C port'
        done = subprocess.run(
            account.command(["/bin/sh", "-c", script, "probe", str(scratch), str(program)]),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]
