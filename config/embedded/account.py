"""As whom PostgreSQL runs. It refuses root, and everything else of ours may be root.

A user who is not root runs it as themselves. Root gives it a system user of its own. That user may be unable to walk
into the checkout (below a home directory of mode 0700, say); nobody's directories are opened for it. Instead it gets
the one capability to walk and read, or, where capabilities are withheld, runs as
"nobody" of a user namespace of its own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSTEM_USER: Final = "gravingdock-pg"


class NoAccount(RuntimeError):
    """There is no way here to run PostgreSQL as anybody but root."""


@dataclass(frozen=True, slots=True)
class Account:
    """A way to run a program: the words before its command, and who has to own its files (None: leave them)."""

    name: str
    prefix: tuple[str, ...]
    uid: int | None
    gid: int | None

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the full command line that runs `argv` under this account."""
        return [*self.prefix, *argv]

    def own(self, path: Path) -> None:
        """Give `path` and all below it to the account, once; links are not followed."""
        if self.uid is None or self.gid is None or path.lstat().st_uid == self.uid:
            return
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), self.uid, self.gid, follow_symlinks=False)
        # The top goes last: if we are interrupted, the next start sees it unowned and does the whole again.
        os.chown(path, self.uid, self.gid)


def account_for(program: Path, folder: Path, *, die_with_parent: bool = False) -> Account:
    """Return the least privileged account that can execute `program` and work in `folder`, which has to exist.

    `die_with_parent` asks the kernel to interrupt the program when its parent is gone (for tests).
    Raises NoAccount when root finds no way; the message says what was tried.
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
        "PostgreSQL refuses to run as root, and no other account can work in "
        f"{folder}. Run this as an ordinary user, or put the checkout where a system user can read it. Tried "
        + "; ".join(problems or ["nothing: neither setpriv nor unshare is there (Debian package util-linux)"])
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
        walk = "-all,+dac_read_search"  # walk through and read; it cannot write what is not its own
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
                # Without this bit access(2), by which PostgreSQL finds its programs, ignores the capability.
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


def _system_user() -> pwd.struct_passwd | None:
    """Return PostgreSQL's system user, made at the first need; None where users cannot be made."""
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    command = [
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
    ]
    try:
        subprocess.run(
            [
                *command,
                "--shell",
                "/usr/sbin/nologin",
                "--comment",
                "Gravingdock PostgreSQL",
                SYSTEM_USER,
            ],
            check=True,
            capture_output=True,
        )
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError):
        return None


def _probe(account: Account, program: Path, folder: Path) -> str | None:
    """Return why the account cannot run `program` and write below `folder`, or None when it can."""
    scratch = folder / f".probe-{os.getpid()}"
    scratch.mkdir(mode=0o700)
    try:
        if account.uid is not None and account.gid is not None:
            os.chown(scratch, account.uid, account.gid)
        # -C makes PostgreSQL find itself and read its folder, and ends; --version would look at neither.
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
