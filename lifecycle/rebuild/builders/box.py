"""Runs the steps of a build in the box, or without it where the operator accepts that (docs/adr/0013).

The box is made by `keeper.py`: a user namespace with user ids of its own, a minimal root without the files of this
machine, no network but a proxy for the hosts of `hosts.py`, a disk of fixed size, and bounds on memory and processes.
Inside it, crun runs every RUN in namespaces of its own, with the system calls of `seccomp.py`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.rebuild.builders import hosts, keeper, namespaces, seccomp, settings_files
from lifecycle.rebuild.builders.output import Output
from lifecycle.rebuild.types import BuildFailed, NoBuildBox, NoBuildSpace

_HERE: Final = Path(__file__).parent
_SANDBOX: Final = _HERE / "sandbox.sh"
_TOOLS: Final = ("buildah", "crun", "mkfs.ext4", "setpriv", "unshare")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MIB: Final = 1024 * 1024
_DISK_MIN_MB: Final = 512
# Of the capabilities that buildah gives a RUN, those that no package installation needs.
_DROPPED: Final = ("CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW")


def is_confined() -> bool:
    """Return whether builds run in the box. Raises NoBuildBox when there is none and the operator did not accept it."""
    why = problem()
    if not why:
        return True
    if settings.BUILD_UNCONFINED:
        return False
    raise NoBuildBox(refusal(why))


def refusal(why: str) -> str:
    """Return the sentence with which the builder refuses, and what the operator can do."""
    return (
        f"The embedded builder cannot confine recipes on this machine: {why} It builds nothing."
        " Rebase works without it. To accept that a recipe can take over this machine, set BUILD_UNCONFINED=1."
    )


def problem() -> str:
    """Return why this machine cannot give the box, "" when it can. After a success, a process does not try it again."""
    try:
        _prove()
    except NoBuildBox as error:
        return error.message
    return ""


@functools.cache
def _prove() -> None:
    """Run a program in a box; raises NoBuildBox. Takes a second. An error is not cached, because it may not last."""
    if why := _problem():
        raise NoBuildBox(why)


def _problem() -> str:
    if os.geteuid() != 0:
        return "it needs root, to give the box user ids of its own."
    if missing := [tool for tool in _TOOLS if shutil.which(tool, path=_PATH) is None]:
        return f"{', '.join(missing)} is not installed. Run: make system"
    try:
        profile = seccomp.profile()
    except (OSError, ValueError, KeyError):
        return f"{seccomp.DEFAULT} cannot be read. Run: make system"
    lines: list[str] = []
    with scratch_folder("box") as work:
        (work / "in" / "settings").mkdir(parents=True)
        (work / "in" / "bundle").mkdir()
        _write_trial(work / "in" / "bundle", profile)
        output = Output(secrets=(), log=lines.append, check=lambda: None)
        trial = ["sh", "-c", "cp -r /in/bundle /build/bundle && cd /build/bundle && exec crun --root /run/crun"
                 " --cgroup-manager=disabled run trial"]  # fmt: skip
        specification = _specification(work, trial, disk_mb=64, memory_mb=256, processes=64, copy_out=False)
        try:
            code, last = _keep(output, work, specification)
        except BuildFailed:
            return "the trial did not end in time."
    if code == 0:
        return ""
    return f"{(last or f'the trial ended with {code}').rstrip('.')}."


def build(work: Path, words: Sequence[str], *, known: Collection[str], output: Output) -> Path:
    """Run `buildah build` with `words` on the inputs in `work / "in"`; return the folder of its result.

    The folder contains `result`, an OCI layout, and the empty file `mounted-bundle` if our bundle was mounted. `known`
    are the diff ids of layers that the caller has already.
    Raises BuildFailed, NoBuildBox, NoBuildSpace, and the errors of the output.
    """
    (work / "out").mkdir()
    shutil.copy(_HERE / "steps.sh", work / "in" / "steps.sh")
    if is_confined():
        code, last = _build_in_box(work, words, known=known, output=output)
    else:
        output.say("Warning: this build is not confined (BUILD_UNCONFINED=1).")
        code, last = _build_unconfined(work, words, output=output)
    if code == keeper.NO_BOX:
        raise NoBuildBox(refusal(last))
    if code == keeper.NO_SPACE:
        raise NoBuildSpace(f"{last} Free some space, or lower BUILD_DISK_MB.")
    if code != 0:
        raise BuildFailed(f"buildah build failed: {last[:500]}", exit_code=code)
    return work / "out"


def _build_in_box(work: Path, words: Sequence[str], *, known: Collection[str], output: Output) -> tuple[int, str]:
    (work / "in" / "seccomp.json").write_text(json.dumps(seccomp.profile()))
    confined = [
        "--isolation=oci", "--runtime=crun", "--runtime-flag=cgroup-manager=disabled", "--network=host",
        "--security-opt=seccomp=/in/seccomp.json", *(f"--cap-drop={name}" for name in _DROPPED),
        f"--volume={settings_files.FOLDER}:{settings_files.FOLDER}:ro",
    ]  # fmt: skip
    command = ["sh", "/in/steps.sh", "/in", "/build", "/run/containers", "/build/result", *confined, *words]
    free_mb = shutil.disk_usage(work).free // _MIB
    disk_mb = max(_DISK_MIN_MB, min(settings.BUILD_DISK_MB, free_mb // 4))
    specification = _specification(
        work, command, disk_mb=disk_mb, memory_mb=settings.BUILD_MEMORY_MB, processes=settings.BUILD_PROCESSES,
        copy_out=True, known=known, pairs=hosts.allowed(),
    )  # fmt: skip
    return _keep(output, work, specification)


def _build_unconfined(work: Path, words: Sequence[str], *, output: Output) -> tuple[int, str]:
    (work / "storage").mkdir()
    hidden = [str(settings.HOME), "/run/secrets", "/root/.config", "/root/.docker", "/root/.ssh"]
    sandbox = ["sh", str(_SANDBOX), str(work), str(work / "in" / "settings"), *hidden, "--"]
    steps = ["sh", "/mnt/in/steps.sh", "/mnt/in", "/mnt/storage", "/mnt/storage/run", "/mnt/out/result"]
    environment = settings_files.environment() | {
        "BUILDAH_ISOLATION": "chroot", "HOME": "/mnt", "TMPDIR": "/mnt/storage", "XDG_RUNTIME_DIR": "/mnt/storage",
    }  # fmt: skip
    return output.run([*namespaces.OWN, *sandbox, *steps, "--network=host", *words], environment=environment)


def _specification(
    work: Path, command: Sequence[str], *, disk_mb: int, memory_mb: int, processes: int, copy_out: bool,
    known: Collection[str] = (), pairs: Collection[hosts.HostPort] = (),
) -> Path:  # fmt: skip
    """Write what the keeper has to do, and return the path of the file."""
    address = f"http://{keeper.PROXY[0]}:{keeper.PROXY[1]}"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), address)
    given: dict[str, Any] = {
        "work": str(work),
        "command": list(command),
        "environment": settings_files.environment() | proxies | {
            "_CONTAINERS_USERNS_CONFIGURED": "done",  # it is root in its user namespace and needs no other one
            "HOME": "/build/tmp",
            "TMPDIR": "/build/tmp",
            "XDG_RUNTIME_DIR": "/run",
            "SSL_CERT_FILE": f"{settings_files.FOLDER}/ca.pem",
            "no_proxy": "",
        },
        "uid_first": keeper.free_range(os.getpid()),
        "disk_mb": disk_mb,
        "memory_mb": memory_mb,
        "processes": processes,
        "hosts": sorted(pairs),
        "never": sorted(hosts.never()),
        "known": sorted(known),
        "copy_out": copy_out,
    }  # fmt: skip
    path = work / "specification.json"
    path.write_text(json.dumps(given))
    return path


def _keep(output: Output, work: Path, specification: Path) -> tuple[int, str]:
    words = [sys.executable, "-E", "-s", "-m", keeper.__name__, str(specification)]
    return output.run([*namespaces.OWN, *words], environment=settings_files.environment(), cwd=Path(settings.BASE_DIR))


def _write_trial(bundle: Path, profile: dict[str, Any]) -> None:
    """Write the configuration of a container that runs `true` on the programs of the box (runtime-spec config.md)."""
    calls = [
        {"names": rule["names"], "action": rule["action"], "args": rule.get("args") or []}
        | ({"errnoRet": rule["errnoRet"]} if "errnoRet" in rule else {})
        for rule in profile["syscalls"]
        if not {"caps", "minKernel"} & {*(rule.get("includes") or ()), *(rule.get("excludes") or ())}
    ]
    kinds = ("pid", "mount", "ipc", "uts")
    root = {"destination": "/proc", "type": "proc", "source": "proc"}
    programs = [
        {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
        for path in ("/usr", "/lib", "/lib64")
        if Path(path).is_dir() and not (path != "/usr" and Path(path).is_symlink())
    ]
    for name in ("usr", "dev", "proc"):
        (bundle / "rootfs" / name).mkdir(parents=True)
    for name in ("lib", "lib64", "bin"):
        if Path("/", name).is_symlink():
            (bundle / "rootfs" / name).symlink_to(Path("/", name).readlink())
    document = {
        "ociVersion": "1.0.2",
        "process": {"terminal": False, "cwd": "/", "args": ["/usr/bin/true"], "env": [f"PATH={_PATH}"],
                    "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs", "readonly": False},
        "mounts": [root, *programs],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "seccomp": {"defaultAction": profile["defaultAction"], "syscalls": calls},
        },
    }  # fmt: skip
    (bundle / "config.json").write_text(json.dumps(document))
