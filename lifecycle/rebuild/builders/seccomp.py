"""The system calls that a RUN can make: the default profile of buildah, without those that reach past a namespace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

DEFAULT: Final = Path("/usr/share/containers/seccomp.json")
# New namespaces and keys of the kernel, handles of files by number, and interfaces with a history of escapes.
_DENIED: Final = frozenset(
    {
        "unshare", "setns", "mount", "umount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsconfig",
        "fsmount", "fspick", "mount_setattr", "keyctl", "add_key", "request_key", "bpf", "perf_event_open",
        "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "open_by_handle_at",
        "name_to_handle_at", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "quotactl", "quotactl_fd",
        "acct", "swapon", "swapoff", "syslog", "vhangup", "lookup_dcookie", "fanotify_init", "clone3", "ptrace",
        "socketcall",  # of 32-bit programs: it would hide the family of a socket from this filter
    }
)  # fmt: skip
_FAMILIES: Final = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; not AF_VSOCK, which has no namespace
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEW* of clone(2), which has no filter of its own in the default profile
_EPERM: Final = 1
_ENOSYS: Final = 38


def profile() -> dict[str, Any]:
    """Return the profile of this machine's containers, hardened; raises OSError when it is not installed."""
    document: dict[str, Any] = json.loads(DEFAULT.read_text())
    rules = []
    for rule in document["syscalls"]:
        is_allowed = rule["action"] == "SCMP_ACT_ALLOW"
        gone = {*_DENIED, "socket", "clone"} if is_allowed else {"clone3", "socket", *_DENIED}
        names = [name for name in rule["names"] if name not in gone]
        if names:
            rules.append(rule | {"names": names})
    for family in _FAMILIES:
        rules.append(_allow("socket", index=0, value=family, op="SCMP_CMP_EQ"))
    rules.append(_allow("clone", index=0, value=_NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ"))
    # glibc falls back to clone and to poll where these do not exist.
    for names, number in ((["clone3", "io_uring_setup"], _ENOSYS), (sorted(_DENIED - _MISSING), _EPERM)):
        rules.append({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": []})
    return document | {"syscalls": rules, "defaultAction": "SCMP_ACT_ERRNO"}


_MISSING: Final = frozenset({"clone3", "io_uring_setup"})


def _allow(name: str, *, index: int, value: int, op: str, value_two: int = 0) -> dict[str, Any]:
    arguments = [{"index": index, "value": value, "valueTwo": value_two, "op": op}]
    return {
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": arguments,
        "comment": "",
        "includes": {},
        "excludes": {},
    }
