"""Free what the embedded registry stores and nobody refers to any more, with the collector of Distribution.

The collector deletes what no manifest names. A push uploads its layers before its manifest, and so does a copy: the
registry is stopped meanwhile, and nothing is collected when somebody pushed a moment ago.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.embedded.supervisor import PartDied, Supervisor

PART: Final = "registry"
QUIET_S: Final = 15 * 60  # so long after the last upload, whoever uploaded has put the manifest too
STOP_S: Final = 90
_ELIGIBLE: Final = re.compile(r"(\d+) blobs? eligible for deletion|(\d+) blobs? and \d+ manifests? eligible")
_DELETED: Final = re.compile(r"blob eligible for deletion:")


class NotPossible(RuntimeError):
    """Nothing was collected. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection freed, or would free."""

    blobs: int
    freed_bytes: int
    stopped_s: float  # how long the registry was stopped


def last_upload_at(data: Path) -> float:
    """Return when a layer last came into a repository, or one began to: seconds since the epoch; 0 for never."""
    latest = 0.0
    for folder, names, _ in os.walk(data / "docker/registry/v2/repositories"):
        path = Path(folder)
        if path.name in {"_uploads", "_layers"}:
            latest = max(latest, *(_changed_at(each) for each in (path, *path.glob("*"), *path.glob("*/*"))))
            names.clear()
        elif path.name == "_manifests":
            names.clear()
    return latest


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it ended meanwhile
        return 0.0


def why_not_quiet(data: Path, *, quiet_s: float = QUIET_S) -> str:
    """Return why the registry is in use; "" when nobody uploaded for a while."""
    age = time.time() - last_upload_at(data)
    if age >= quiet_s:
        return ""
    return (
        f"A layer was uploaded {max(int(age // 60), 0)} minutes ago, and its manifest may be still to come. Try again"
        f" in {max(int((quiet_s - age) // 60), 0) + 1} minutes."
    )


def collect(supervisor: Supervisor, folder: Path, *, is_dry_run: bool = False, quiet_s: float = QUIET_S) -> Collected:
    """Stop the registry of `folder`, run its collector, and start it again, whatever happened; raises NotPossible.

    A dry run stops and deletes nothing.
    """
    if refused := why_not_quiet(folder / "data", quiet_s=quiet_s):
        raise NotPossible(refused)
    if is_dry_run:
        return Collected(_run(folder, is_dry_run=True), 0, 0.0)
    before, started = _size_of(folder / "data"), time.monotonic()
    with stopped(supervisor):
        if refused := why_not_quiet(folder / "data", quiet_s=quiet_s):  # until it stopped
            raise NotPossible(refused)
        blobs = _run(folder, is_dry_run=False)
    return Collected(blobs, max(before - _size_of(folder / "data"), 0), time.monotonic() - started)


@contextmanager
def stopped(supervisor: Supervisor) -> Iterator[None]:
    """Stop the registry, and start it again afterwards; raises NotPossible when it does not stop or start."""
    supervisor.ask_to_stop([PART])
    supervisor.await_stopped([PART], STOP_S)
    try:
        if supervisor.states().get(PART) not in {"STOPPED", "EXITED"}:
            raise NotPossible(f"The registry did not stop within {STOP_S} seconds. Nothing was collected.")
        yield
    finally:
        try:
            supervisor.start_part(PART)
        except PartDied as error:
            raise NotPossible(f"The registry was stopped and does not start. Run `make up`. {error}") from None


def _run(folder: Path, *, is_dry_run: bool) -> int:
    """Run the collector; return how many blobs it deletes. Raises NotPossible."""
    program = shutil.which("docker-registry")
    if program is None:
        raise NotPossible("docker-registry is not installed. Run: make system")
    if not (folder / "data/docker/registry/v2/repositories").is_dir():
        return 0  # nobody pushed yet; the collector would fail
    command = [program, "garbage-collect", *(["--dry-run"] if is_dry_run else []), str(folder / "config.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotPossible(f"The collector failed: {(done.stderr or done.stdout).strip()[-800:]}")
    if found := _ELIGIBLE.search(done.stdout):
        return int(found[1] or found[2])
    return len(_DELETED.findall(done.stdout))


def _size_of(data: Path) -> int:
    return sum(
        entry.stat().st_size
        for folder, _, names in os.walk(data)
        for name in names
        if (entry := Path(folder) / name).is_file()
    )
