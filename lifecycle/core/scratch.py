"""Private folders for data that is too big for memory. Folders of killed processes are removed by the next process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings


@contextmanager
def folder(purpose: str) -> Iterator[Path]:
    """Create a folder with mode 0700 below SCRATCH, and remove it with its content at the end of the block.

    The folder is locked while this process runs. So the next process can recognise the folders of killed processes.
    """
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
