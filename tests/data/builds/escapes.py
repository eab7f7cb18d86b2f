"""Tries the known ways out of a build, from inside a RUN. Prints one line for each: `open NAME` or `closed NAME why`.

It runs in an image with nothing but Python. `targets.json` beside it names what exists outside: a marker file, a
listener on the loopback address, and an abstract socket.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import stat
import struct
import sys

TARGETS = json.load(open(os.path.join(os.path.dirname(__file__), "targets.json")))
MARKER, TEXT, PORT, ABSTRACT = (TARGETS[name] for name in ("marker", "text", "port", "abstract"))
PROXY = ("127.0.0.1", 3128)
libc = ctypes.CDLL(None, use_errno=True)
# x86_64 and aarch64
NUMBERS = {
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "ptrace": (101, 117), "keyctl": (250, 219),
    "add_key": (248, 217), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "open_by_handle_at": (304, 265), "kexec_load": (246, 104), "init_module": (175, 105),
    "syslog": (103, 116), "clone": (56, 220), "clone3": (435, 435), "process_vm_readv": (310, 270),
    "pivot_root": (155, 41), "fsopen": (430, 430), "open_tree": (428, 428), "swapon": (167, 224), "reboot": (169, 142),
    "iopl": (172, None), "settimeofday": (164, 170), "sethostname": (170, 161), "quotactl": (179, 60),
    "fanotify_init": (300, 262),
}  # fmt: skip
ARCH = 0 if os.uname().machine == "x86_64" else 1
NEWNS, NEWUSER, NEWNET, NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000


def call(name, *arguments):
    number = NUMBERS[name][ARCH]
    if number is None:
        raise OSError(errno.ENOSYS, "not on this machine")
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def in_child(action):
    """Run `action` in a child process, which reports through a pipe, so that nothing changes here."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            text = "open" if action() else "nothing there"
        except BaseException as error:
            text = f"{type(error).__name__} {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    text = os.read(read, 4096).decode()
    os.close(read)
    os.waitpid(child, 0)
    return text or "the child was killed"


def marker_below(root):
    with open(root + MARKER) as stream:
        return stream.read() == TEXT


def double_chroot():
    os.makedirs("/jail", exist_ok=True)
    outside = os.open("/", os.O_RDONLY)
    os.chroot("/jail")
    os.fchdir(outside)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    print("root after double chroot:", " ".join(sorted(os.listdir("/"))), flush=True)
    return marker_below("")


def write_after_double_chroot():
    os.makedirs("/jail", exist_ok=True)
    outside = os.open("/", os.O_RDONLY)
    os.chroot("/jail")
    os.fchdir(outside)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    with open(MARKER, "r+") as stream:  # never creates it
        stream.write("overwritten")
    return True


def other_roots():
    for name in os.listdir("/proc"):
        if name.isdigit():
            for way in ("root", "cwd"):
                try:
                    if marker_below(f"/proc/{name}/{way}"):
                        return True
                except OSError:
                    continue
    return False


def inherited_files():
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISDIR(os.stat(f"/proc/self/fd/{name}").st_mode) and int(name) > 2:
                outside = os.open("../../../../../../../.." + MARKER, os.O_RDONLY, dir_fd=int(name))
                return bool(outside)
        except OSError:
            continue
    return False


def node(kind, major, minor):
    path = f"/tmp/node-{major}-{minor}"
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    return True


def namespace_of_first():
    handle = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    call("setns", handle, 0)
    return marker_below("")


def attach_first():
    call("ptrace", 16, 1, 0, 0)  # PTRACE_ATTACH
    return True


def write(path, text):
    with open(path, "w") as stream:
        stream.write(text)
    return True


def cgroup_escape():
    for top in ("/sys/fs/cgroup", *("/sys/fs/cgroup/" + name for name in ("memory", "rdma", "unified", "pids"))):
        try:
            os.mkdir(top + "/escape")
        except OSError:
            continue
        return True
    return False


def release_agent():
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/rdma"):
        try:
            write(top + "/release_agent", "/bin/true")
        except OSError:
            continue
        return True
    return False


def connects(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as client:
        client.settimeout(2)
        client.connect(address)
        return True


def through_proxy(request, wanted=b" 200 "):
    with socket.socket() as client:
        client.settimeout(10)
        client.connect(PROXY)
        client.sendall(request)
        answer = client.recv(4096)
    return wanted in answer.split(b"\r\n")[0]


def smuggled():
    """A second request behind an allowed one, for a host that is not."""
    first = f"GET http://{TARGETS['allowed']}/ HTTP/1.1\r\nHost: x\r\n\r\n"
    second = f"GET http://127.0.0.1:{PORT}/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.socket() as client:
        client.settimeout(10)
        client.connect(PROXY)
        client.sendall((first + second).encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return TEXT.encode() in answer


def new_user_namespace_by_clone():
    child = call("clone", NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def vsock_of_32_bit():
    """A vsock socket through the call of 32-bit programs, which carries its arguments in memory."""
    raise OSError(errno.ENOSYS, "needs a 32-bit program")


def device(path):
    handle = os.open(path, os.O_RDWR)
    os.close(handle)
    return True


def foreign_processes():
    names = [name for name in os.listdir("/proc") if name.isdigit()]
    return len(names) > 6


def first_killed():
    """PID 1 of the host is not ours to signal; the own PID 1 ignores it."""
    os.kill(1, 0)
    return os.readlink("/proc/1/exe").endswith(("systemd", "/init", "postgres"))


LOOPBACK_NAMES = ("127.0.0.1", "localhost", "localhost.", "LOCALHOST", "[::1]", "0.0.0.0", "2130706433", "0x7f000001",
                  "127.1", "[::ffff:127.0.0.1]")  # fmt: skip
WAYS = {
    "double chroot": double_chroot,
    "write after double chroot": write_after_double_chroot,
    "root of another process": other_roots,
    "inherited file": inherited_files,
    "environ of pid 1": lambda: b"SECRET" in open("/proc/1/environ", "rb").read(),
    "memory of pid 1": lambda: bool(open("/proc/1/mem", "r+b")) and first_killed(),
    "processes of the machine": foreign_processes,
    "mknod of a disk": lambda: node(stat.S_IFBLK, 254, 0),
    "mknod of memory": lambda: node(stat.S_IFCHR, 1, 1),
    "mknod of loop control": lambda: node(stat.S_IFCHR, 10, 237),
    "setns to pid 1": namespace_of_first,
    "ptrace of pid 1": attach_first,
    "mount of tmpfs": lambda: call("mount", b"x", b"/tmp", b"tmpfs", 0, 0) == 0,
    "mount of proc": lambda: call("mount", b"proc", b"/tmp", b"proc", 0, 0) == 0,
    "remount of the root": lambda: call("mount", b"", b"/", b"", 32 | 4096, 0) == 0,
    "new mount api": lambda: call("fsopen", b"tmpfs", 0) >= 0,
    "open_tree": lambda: call("open_tree", -100, b"/", 1) >= 0,
    "pivot_root": lambda: call("pivot_root", b".", b".") == 0,
    "new user namespace": lambda: call("unshare", NEWUSER) == 0,
    "new mount namespace": lambda: call("unshare", NEWNS) == 0,
    "new network namespace": lambda: call("unshare", NEWNET) == 0,
    "new process namespace": lambda: call("unshare", NEWPID) == 0,
    "new user namespace by clone": new_user_namespace_by_clone,
    "clone3": lambda: call("clone3", ctypes.create_string_buffer(struct.pack("Q", NEWUSER), 64), 64) > 0,
    "keyctl": lambda: call("keyctl", 0, -3, 1) >= 0,
    "add_key": lambda: call("add_key", b"user", b"x", b"y", 1, -3) >= 0,
    "bpf": lambda: call("bpf", 0, 0, 0) >= 0,
    "perf_event_open": lambda: call("perf_event_open", 0, 0, -1, -1, 0) >= 0,
    "userfaultfd": lambda: call("userfaultfd", 0) >= 0,
    "io_uring": lambda: call("io_uring_setup", 4, ctypes.create_string_buffer(120)) >= 0,
    "open_by_handle_at": lambda: call("open_by_handle_at", -100, ctypes.create_string_buffer(16), 0) >= 0,
    "process_vm_readv": lambda: call("process_vm_readv", 1, 0, 0, 0, 0, 0) >= 0,
    "kexec_load": lambda: call("kexec_load", 0, 0, 0, 0) >= 0,
    "init_module": lambda: call("init_module", 0, 0, b"") >= 0,
    "kernel log": lambda: call("syslog", 3, ctypes.create_string_buffer(64), 64) >= 0,
    "fanotify": lambda: call("fanotify_init", 0, 0) >= 0,
    "swapon": lambda: call("swapon", b"/tmp/x", 0) >= 0,
    "ports of the machine": lambda: call("iopl", 3) >= 0,
    "core_pattern": lambda: write("/proc/sys/kernel/core_pattern", "|/tmp/x"),
    "modprobe path": lambda: write("/proc/sys/kernel/modprobe", "/tmp/x"),
    "sysrq": lambda: bool(os.open("/proc/sysrq-trigger", os.O_WRONLY)),
    "kcore": lambda: len(open("/proc/kcore", "rb").read(16)) > 0,
    "uevent helper": lambda: bool(os.open("/sys/kernel/uevent_helper", os.O_WRONLY)),
    "power state": lambda: bool(os.open("/sys/power/state", os.O_WRONLY)),
    "new cgroup": cgroup_escape,
    "release_agent": release_agent,
    **{f"device {path}": lambda path=path: device(path) for path in (
        "/dev/kmsg", "/dev/mem", "/dev/loop-control", "/dev/loop0", "/dev/vda", "/dev/sda", "/dev/fuse", "/dev/kvm",
        "/dev/net/tun", "/dev/vsock", "/dev/vhost-vsock",
    )},
    "vsock": lambda: bool(socket.socket(40, socket.SOCK_STREAM)),
    "raw socket": lambda: bool(socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)),
    "packet socket": lambda: bool(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "crypto socket": lambda: bool(socket.socket(38, socket.SOCK_SEQPACKET)),
    "loopback service": lambda: connects(socket.AF_INET, ("127.0.0.1", PORT)),
    "abstract socket of the machine": lambda: connects(socket.AF_UNIX, "\0" + ABSTRACT),
    "metadata address": lambda: connects(socket.AF_INET, ("169.254.169.254", 80)),
    "outside address": lambda: connects(socket.AF_INET, (TARGETS["outside"], 80)),
    **{f"proxy to {name}": lambda name=name: through_proxy(f"CONNECT {name}:{PORT} HTTP/1.1\r\n\r\n".encode())
       for name in (*LOOPBACK_NAMES, TARGETS["rebound"])},
    "proxy to metadata": lambda: through_proxy(b"CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n"),
    "proxy get of loopback": lambda: through_proxy(f"GET http://127.0.0.1:{PORT}/ HTTP/1.1\r\n\r\n".encode()),
    "proxy with a name before @": lambda: through_proxy(
        f"GET http://{TARGETS['allowed']}@127.0.0.1:{PORT}/ HTTP/1.1\r\n\r\n".encode()),
    "proxy with another host field": lambda: through_proxy(
        f"GET http://127.0.0.1:{PORT}/ HTTP/1.1\r\nHost: {TARGETS['allowed']}\r\n\r\n".encode()),
    "second request through proxy": smuggled,
}  # fmt: skip

if __name__ == "__main__":
    print("uid", os.getuid(), "groups", os.getgroups(), flush=True)
    for name, way in WAYS.items():
        if TARGETS["only"] and name not in TARGETS["only"]:
            continue
        answer = in_child(way)
        print("open" if answer == "open" else "closed", name, "" if answer == "open" else f"({answer})", flush=True)
    sys.exit(0)
