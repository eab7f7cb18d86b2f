"""Bounds on memory and processes of one build: a cgroup where this machine allows one, else a count of its memory."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PREFIX: Final = "gravingdock-build-"
_MIB: Final = 1024 * 1024
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Group:
    """The bounds of one build. `folders` are its cgroups."""

    memory_mb: int
    folders: list[Path] = field(default_factory=list)
    limits_memory: bool = False

    def add(self, pid: int) -> None:
        """Put a process, and all that it starts from now on, into the group."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def is_exceeded(self, pid: int) -> bool:
        """Return whether the processes that are visible here, without this one, use more memory than allowed."""
        pages = 0
        for path in Path("/proc").glob("[0-9]*/statm"):
            with contextlib.suppress(OSError, ValueError):
                if path.parent.name != str(os.getpid()):
                    resident, shared = path.read_text().split()[1:3]
                    pages += int(resident) - int(shared)
        return pages * _PAGE > self.memory_mb * _MIB

    def remove(self) -> None:
        """Remove the cgroups. Their processes have just ended, so this may take a moment."""
        for folder in self.folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)
                else:
                    break


def create(*, memory_mb: int, processes: int) -> Group:
    """Return a group with these limits, in the cgroups of this process: version 1, version 2, or none."""
    group = Group(memory_mb)
    name = f"{_PREFIX}{os.getpid()}-{time.monotonic_ns()}"
    ours = _own_cgroups()
    for controller, limits in (
        ("pids", {"pids.max": str(processes)}),
        ("memory", {"memory.limit_in_bytes": str(memory_mb * _MIB)}),
    ):
        if controller in ours and (folder := _make(ours[controller] / name, limits)) is not None:
            group.folders.append(folder)
            group.limits_memory |= controller == "memory"
    if not group.limits_memory and "" in ours:
        limits = {"memory.max": str(memory_mb * _MIB), "memory.swap.max": "0", "pids.max": str(processes)}
        for above in (ours[""], _mount_point(ours[""])):
            with contextlib.suppress(OSError):
                (above / "cgroup.subtree_control").write_text("+memory +pids")
            if (folder := _make(above / name, limits)) is not None:
                group.folders.append(folder)
                group.limits_memory = True
                break
    return group


def _own_cgroups() -> dict[str, Path]:
    """Return {controller: folder of this process} of version 1, and "" for version 2."""
    mounts: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            mounts.setdefault("", Path(where))
        elif kind == "cgroup":
            for option in options.split(","):
                mounts.setdefault(option, Path(where))
    folders: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in mounts:
                folder = mounts[name] / path.lstrip("/")
                folders[name] = folder if folder.is_dir() else mounts[name]  # in a container, the path is the host's
    for folder in {*folders.values()}:  # left over from killed builds
        for stale in folder.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                stale.rmdir()  # refused while it has processes
    return folders


def _mount_point(folder: Path) -> Path:
    while not folder.is_mount() and folder != folder.parent:
        folder = folder.parent
    return folder


def _make(folder: Path, limits: dict[str, str]) -> Path | None:
    """Create one cgroup with its limits; None when the machine does not allow it."""
    try:
        folder.mkdir()
        for name, value in limits.items():
            if name != "memory.swap.max" or (folder / name).exists():
                (folder / name).write_text(value)
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return None
    return folder
