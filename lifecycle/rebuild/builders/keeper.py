"""The keeper of one build: `python -m lifecycle.rebuild.builders.keeper SPECIFICATION`, as root, in namespaces.OWN.

It prepares a disk of fixed size and a minimal root, starts the box, answers for its proxy, and copies the result out.
The box is a user namespace with a range of user ids of its own. Nothing in it is a user of this machine, and its
network has only a loopback interface. The keeper is the first process of a process namespace: when it ends, the kernel
ends everything in the box, and removes the mounts and the loop device.

It uses only the standard library, because it starts for every build.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from lifecycle.rebuild.builders import cgroups, proxy

NO_BOX: Final = 90  # exit code: this machine cannot give the box; the last line says why
NO_SPACE: Final = 91  # exit code: the disk of the build cannot be made or copied out
BAD_RESULT: Final = 92  # exit code: the result of the build is not an OCI layout
ROOT: Final = Path("/mnt")  # the new root, before the box enters it
PROXY: Final = ("127.0.0.1", 3128)  # in the network of the box
UIDS: Final = 65536
UID_FIRST: Final = 2_000_000_000  # far above the ids of accounts, containers of others and dynamic users
_UID_RANGES: Final = 2000  # the last id stays below 2**31

# <linux/sched.h>: user, mount, process, IPC, host name, network and cgroup namespaces
_UNSHARE: Final = 0x10000000 | 0x00020000 | 0x20000000 | 0x08000000 | 0x04000000 | 0x40000000 | 0x02000000
_PR_SET_PDEATHSIG: Final = 1
_SIOCSIFFLAGS: Final = 0x8914
_UP: Final = 0x1 | 0x40  # IFF_UP | IFF_RUNNING
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_DOCUMENT_MAX: Final = 8 * 1024 * 1024  # bytes of an index, manifest or configuration
_MIB: Final = 1024 * 1024


def free_range(number: int) -> int:
    """Return the first user id of a range for a build. Two builds share one only by chance, which harms neither."""
    return UID_FIRST + number % _UID_RANGES * UIDS


class Refused(Exception):
    """The build cannot start or end here. Has the exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def main(path: str) -> int:
    """Run one build as the specification says; returns the exit code."""
    given = json.loads(Path(path).read_text())
    work = Path(given["work"])
    group = None
    try:
        _make_disk(work / "disk", given["disk_mb"])
        _make_root(work, given)
        group = cgroups.create(memory_mb=given["memory_mb"], processes=given["processes"])
        code = _run(given, group)
        if code == 0 and given["copy_out"]:
            _copy_out(ROOT / "build", work / "out", limit=given["disk_mb"] * _MIB, known=frozenset(given["known"]))
        return code
    except Refused as refusal:
        _say(str(refusal))
        return refusal.code
    finally:
        if group is not None:
            group.remove()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")  # the log of the build
    sys.stdout.flush()


def _make_disk(path: Path, size_mb: int) -> None:
    """Create a file system of exactly `size_mb` in a file whose blocks are all allocated now."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.posix_fallocate(handle, 0, size_mb * _MIB)
    except OSError as error:
        raise Refused(NO_SPACE, f"The build needs {size_mb} MB of disk in SCRATCH: {error.strerror}.") from error
    finally:
        os.close(handle)
    options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1"]
    _call(["mkfs.ext4", *options, str(path)], "The disk of the build cannot be formatted")


def _make_root(work: Path, given: dict[str, Any]) -> None:
    """Make the root of the box. These mounts belong to us, so nothing in the box can change or uncover them."""
    first = given["uid_first"]
    _mount("-t", "tmpfs", "-o", "mode=755,size=16m", "box", str(ROOT))
    for name in ("usr", "etc/containers", "build", "in", "proc", "sys", "dev", "tmp", "run", "var/tmp", "root", "old"):
        (ROOT / name).mkdir(parents=True)
    _bind(Path("/usr"), ROOT / "usr")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if Path("/", name).is_symlink():
            (ROOT / name).symlink_to(Path("/", name).readlink())
        elif Path("/", name).is_dir():
            (ROOT / name).mkdir()
            _bind(Path("/", name), ROOT / name)
    (ROOT / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n")
    (ROOT / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (ROOT / "etc/resolv.conf").write_text("")
    (ROOT / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (ROOT / "etc/containers/policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    if Path("/etc/ld.so.cache").exists():
        shutil.copy("/etc/ld.so.cache", ROOT / "etc/ld.so.cache")
    shutil.copy(Path(__file__).with_name("inside.sh"), ROOT / "inside.sh")
    _mount("-o", "loop,nodev,noatime", str(work / "disk"), str(ROOT / "build"))
    shutil.rmtree(ROOT / "build" / "lost+found", ignore_errors=True)
    (ROOT / "build" / "tmp").mkdir(mode=0o700)
    for path in (ROOT / "build", ROOT / "build" / "tmp"):
        os.chown(path, first, first)
    os.chown(work / "in", first, first)
    for folder, folders, files in os.walk(work / "in"):
        for name in (*folders, *files):
            os.chown(Path(folder, name), first, first, follow_symlinks=False)
    _bind(work / "in", ROOT / "in")
    _mount("-t", "tmpfs", "-o", "mode=755,size=1m,nosuid,noexec", "dev", str(ROOT / "dev"))
    for name in _DEVICES:
        (ROOT / "dev" / name).touch()
        _mount("--bind", f"/dev/{name}", str(ROOT / "dev" / name))
    (ROOT / "dev/fd").symlink_to("/proc/self/fd")
    (ROOT / "dev/gravingdock").mkdir()
    _bind(work / "in" / "settings", ROOT / "dev/gravingdock")
    (ROOT / "dev/shm").mkdir()
    (ROOT / "dev/pts").mkdir()
    for name, mode in (("tmp", "1777"), ("run", "755"), ("var/tmp", "1777")):
        owner = f"uid={first},gid={first}"
        _mount("-t", "tmpfs", "-o", f"mode={mode},size=64m,nosuid,nodev,{owner}", name, str(ROOT / name))


def _run(given: dict[str, Any], group: cgroups.Group) -> int:
    """Start the box and wait for its end; returns the exit code of its program."""
    ours, theirs = socket.socketpair()
    box = os.fork()
    if box == 0:
        ours.close()
        try:
            _become_box(theirs, given)
        except BaseException as error:  # noqa: BLE001 -- nothing of the parent may run in this process
            os.write(2, f"The box cannot be made: {error}\n".encode())
        os._exit(NO_BOX)
    theirs.close()
    group.add(box)
    ours.send(b"c")  # it is in its cgroup, so its cgroup namespace begins there
    if ours.recv(1) != b"u":
        os.waitpid(box, 0)
        raise Refused(NO_BOX, "The kernel gives no user namespace here.")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{box}/{name}").write_text(f"0 {given['uid_first']} {UIDS}\n")
    ours.send(b"m")
    _, handles, _, _ = socket.recv_fds(ours, 1, 1)
    if handles:
        answering = os.fork()
        if answering == 0:
            ours.close()
            _be_proxy(handles[0], given)
        os.close(handles[0])
    ours.close()
    watch = threading.Thread(target=_watch, args=(group, box), daemon=True)
    watch.start()
    while True:
        ended, status = os.waitpid(-1, 0)  # we are the first process here, so orphans become ours
        if ended == box:
            return os.waitstatus_to_exitcode(status) & 255


def _watch(group: cgroups.Group, box: int) -> None:
    """End the box when it exceeds its memory and no cgroup does that."""
    while not group.limits_memory:
        if group.is_exceeded(box):
            _say(f"The build used more than {group.memory_mb} MB of memory, the limit of BUILD_MEMORY_MB.")
            os.kill(box, signal.SIGKILL)
            return
        time.sleep(0.5)


def _become_box(parent: socket.socket, given: dict[str, Any]) -> None:
    """Enter the namespaces of the box, hand the socket of the proxy to the parent, and run the program. Never returns.

    From the first call on, this process may not read files of the installation: it has no user id any more.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent.recv(1)
    if libc.unshare(_UNSHARE) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    parent.send(b"u")
    if parent.recv(1) != b"m":
        raise OSError("the ids of the user namespace were not set")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    listening = socket.socket()
    fcntl.ioctl(listening, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _UP, b""))
    listening.bind(PROXY)
    listening.listen(128)
    socket.send_fds(parent, [b"l"], [listening.fileno()])
    listening.close()
    parent.close()
    program = os.fork()  # the first process of the process namespace of the box
    if program == 0:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for limit, value in (
            (resource.RLIMIT_NPROC, given["processes"]),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MEMLOCK, 64 * 1024),
            (resource.RLIMIT_MSGQUEUE, 0),
        ):
            resource.setrlimit(limit, (value, value))
        _prefer_for_oom()
        os.umask(0o022)
        words = ["/bin/sh", str(ROOT / "inside.sh"), *given["command"]]
        os.execve(words[0], words, given["environment"])  # noqa: S606 -- it is the shell
    _, status = os.waitpid(program, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 255)


def _prefer_for_oom() -> None:
    """Let the kernel end this build first when the whole machine is out of memory."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return


def _be_proxy(handle: int, given: dict[str, Any]) -> None:
    """Serve the proxy of the box without any privilege, in the network of the machine. Never returns."""
    try:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir("/")
        proxy.serve(socket.socket(fileno=handle), proxy.Rules.parse(given["hosts"], given["never"]))
    finally:
        os._exit(1)


def _copy_out(source: Path, target: Path, *, limit: int, known: frozenset[str]) -> None:
    """Copy the OCI layout `source/result` to `target/result`: its documents, and the layers that no base has.

    The box wrote it, so nothing in it is trusted: links are never followed, only regular files are copied, and not more
    than `limit` bytes. `known` are the diff ids of the layers of the bases, which are not copied.
    """
    blobs = Path("blobs", "sha256")
    (target / "result" / blobs).mkdir(parents=True)
    left = [limit]
    try:
        top = _open_folder(source / "result")
        inner = _open_folder("blobs", at=top)
        folder = _open_folder("sha256", at=inner)
        index = _document(top, "index.json")
        (target / "result" / "index.json").write_bytes(index)
        manifest_name = _only_manifest(index)
        manifest = _document(folder, manifest_name)
        (target / "result" / blobs / manifest_name).write_bytes(manifest)
        document = json.loads(manifest)
        config_name = _hex(document["config"]["digest"])
        config = _document(folder, config_name)
        (target / "result" / blobs / config_name).write_bytes(config)
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
        layers = document["layers"]
        if len(layers) != len(diff_ids):
            raise Refused(BAD_RESULT, "The result has a layer without a diff id.")
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            path = target / "result" / blobs / _hex(layer["digest"])
            if diff_id not in known and not path.exists():
                _copy(folder, path.name, path, left)
        if os.path.lexists(source / "mounted-bundle"):
            (target / "mounted-bundle").touch()
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno == 28:  # ENOSPC
            raise Refused(NO_SPACE, "There is no space in SCRATCH for the result of the build.") from error
        raise Refused(BAD_RESULT, f"The result of the build is not an OCI layout: {str(error)[:200]}") from error


def _open_folder(path: str | Path, *, at: int | None = None) -> int:
    """Open a folder without following a link in its last part."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)


def _open_file(folder: int, name: str) -> int:
    """Open a regular file of a folder; a link, a device or a pipe is refused, and opening one has no effect."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused(BAD_RESULT, f"The result of the build contains {name[:80]}, which is no regular file.")
    return handle


def _document(folder: int, name: str) -> bytes:
    with os.fdopen(_open_file(folder, name), "rb") as stream:
        content = stream.read(_DOCUMENT_MAX + 1)
    if len(content) > _DOCUMENT_MAX:
        raise Refused(BAD_RESULT, f"{name[:80]} of the result is larger than {_DOCUMENT_MAX} bytes.")
    return content


def _only_manifest(index: bytes) -> str:
    entries = json.loads(index)["manifests"]
    if len(entries) != 1:
        raise Refused(BAD_RESULT, "The result of the build is not exactly one image.")
    return _hex(entries[0]["digest"])


def _hex(digest: str) -> str:
    """Return the file name of a sha256 digest; refuses every other text."""
    algorithm, _, encoded = digest.partition(":")
    if algorithm != "sha256" or len(encoded) != 64 or set(encoded) - set("0123456789abcdef"):
        raise Refused(BAD_RESULT, f"The result of the build names a blob {digest[:80]!r}.")
    return encoded


def _copy(folder: int, name: str, target: Path, left: list[int]) -> None:
    with os.fdopen(_open_file(folder, name), "rb") as source, target.open("xb") as stream:
        while piece := source.read(_MIB):
            left[0] -= len(piece)
            if left[0] < 0:
                raise Refused(BAD_RESULT, "The result of the build is larger than its disk: it has holes.")
            stream.write(piece)


def _bind(source: Path, target: Path) -> None:
    _mount("--bind", str(source), str(target))
    _mount("-o", "remount,bind,ro,nosuid,nodev", str(target))


def _mount(*words: str) -> None:
    _call(["mount", *words], "A mount of the box is refused")


def _call(command: list[str], problem: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused(NO_BOX, f"{command[0]} is not installed. Run: make system") from None
    if done.returncode != 0:
        raise Refused(NO_BOX, f"{problem}: {done.stderr.strip()[-300:]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
