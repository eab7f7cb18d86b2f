"""Private folders for data that is too big for memory. Folders of killed processes are removed by the next process.

A full disk is an error of its own: it is no fault of the image that was read, and a retry can help.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from django.conf import settings

from lifecycle.core.errors import DiskFull

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def disk_full() -> DiskFull:
    """Return the error for a full disk. It says what to do."""
    return DiskFull(
        "The disk for temporary files is full. Free some space on it, or set SCRATCH to a folder on another disk. "
        "Then the job can be retried."
    )


def disk_full_in(error: BaseException) -> DiskFull | None:
    """Return DiskFull when a full disk caused `error`, however it was wrapped; else None."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, DiskFull):
            return cause
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return disk_full()
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def says_disk_is_full(output: str) -> bool:
    """Return whether the output of a program says that it found no space on its disk."""
    text = output.lower()
    return "no space left on device" in text or "disk quota exceeded" in text


@contextmanager
def naming_full_disk() -> Iterator[None]:
    """Turn an OSError for a full disk into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full() from error
        raise


@contextmanager
def folder(purpose: str) -> Iterator[Path]:
    """Create a folder with mode 0700 below SCRATCH, and remove it with its content at the end of the block.

    The folder is locked while this process runs. So the next process can recognise the folders of killed processes.
    Raises DiskFull, also for writes in the block.
    """
    with naming_full_disk(), _folder(purpose) as path:
        yield path


@contextmanager
def _folder(purpose: str) -> Iterator[Path]:
    root = Path(settings.SCRATCH or tempfile.gettempdir())
    root.mkdir(parents=True, exist_ok=True)
    prefix = f"gd-{os.geteuid()}-{purpose}-"
    with _locked(root / f".{prefix}lock"):  # without it, another process could remove our folder before it is locked
        _remove_left_behind(root, prefix)
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
        lock_handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock_handle, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock_handle)


def _remove_left_behind(root: Path, prefix: str) -> None:
    for path in root.glob(f"{prefix}*"):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its process is still running
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
