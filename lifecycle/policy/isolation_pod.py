"""The checks that equal Kubernetes' Pod Security Standards, as its API server 1.36 judges them.

Source: k8s.io/pod-security-admission/policy v0.36. A failure carries the profile that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lifecycle.policy.isolation_types import (
    Container,
    Fields,
    Found,
    Pod,
    Profile,
    Result,
    entries,
    flag,
    mapping,
    number,
    shown,
    text,
    texts,
)

BASELINE_CAPABILITIES: Final = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
RESTRICTED_VOLUMES: Final = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)
OTHER_VOLUMES: Final = frozenset(
    [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "glusterfs",
        "hostPath",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
        "vsphereVolume",
    ]
)
SYSCTLS: Final = frozenset(
    [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    ]
)
SELINUX_TYPES: Final = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_PROFILES: Final = frozenset({"RuntimeDefault", "Localhost"})
_APPARMOR_ANNOTATION: Final = "container.apparmor.security.beta.kubernetes.io/"

Founds = Iterator[Found]


def _ok(container: Container, at: str, summary: str) -> Found:
    return Found(Result.PASS, at, summary, container)


def privileged(pod: Pod) -> Founds:
    """A privileged container is root on its node."""
    for one in pod.containers:
        at = f"{one.security_at}/privileged"
        if flag(one.security, "privileged", one.security_at):
            yield Found(Result.FAIL, at, "Runs privileged.", one, Profile.BASELINE)
        else:
            yield _ok(one, at, "Not privileged.")


def host_namespace(key: str) -> Callable[[Pod], Founds]:
    """Return the check that the pod does not share one namespace of its node."""

    def check(pod: Pod) -> Founds:
        at = f"{pod.at}/{key}"
        if flag(pod.fields, key, pod.at):
            yield Found(Result.FAIL, at, f"{key} is true.", None, Profile.BASELINE)
        else:
            yield Found(Result.PASS, at, f"{key} is not set.")

    return check


def privilege_escalation(pod: Pod) -> Founds:
    """No process can get more rights than its parent."""
    for one in pod.containers:
        at = f"{one.security_at}/allowPrivilegeEscalation"
        allowed = flag(one.security, "allowPrivilegeEscalation", one.security_at)
        if pod.is_windows:
            yield Found(Result.NOT_APPLICABLE, at, "Windows has no such setting.", one)
        elif allowed is False:
            yield _ok(one, at, "Not allowed.")
        else:
            words = "is true" if allowed else "is not set, which allows it"
            yield Found(Result.FAIL, at, f"allowPrivilegeEscalation {words}.", one, Profile.RESTRICTED)


def run_as_root(pod: Pod) -> Founds:
    """Containers run as another user than root, and Kubernetes makes sure of that."""
    pod_non_root = flag(pod.security, "runAsNonRoot", pod.security_at)
    pod_user = number(pod.security, "runAsUser", pod.security_at)
    if not pod.has_user_namespace:
        if pod_non_root is False:
            at = f"{pod.security_at}/runAsNonRoot"
            yield Found(Result.FAIL, at, "runAsNonRoot is false.", None, Profile.RESTRICTED)
        if pod_user == 0:
            yield Found(Result.FAIL, f"{pod.security_at}/runAsUser", "runAsUser is 0.", None, Profile.RESTRICTED)
    for one in pod.containers:
        own = flag(one.security, "runAsNonRoot", one.security_at)
        own_user = number(one.security, "runAsUser", one.security_at)
        user = pod_user if own_user is None else own_user
        at = f"{one.security_at}/runAsNonRoot"
        if pod.has_user_namespace:
            yield _ok(one, f"{pod.at}/hostUsers", "Root inside is no root on the node: the pod has a user namespace.")
        elif own is False or (own is None and not pod_non_root):
            words = "runAsNonRoot is false." if own is False else "runAsNonRoot is not set."
            yield Found(Result.FAIL, at, words, one, Profile.RESTRICTED)
        elif user == 0:
            yield Found(Result.FAIL, f"{one.security_at}/runAsUser", "runAsUser is 0.", one, Profile.RESTRICTED)
        elif user is None and one.image is not None and (problem := root_in_image(one.image.user)):
            # The kubelet checks runAsNonRoot against the image's USER and does not start the container.
            yield Found(Result.FAIL, f"{one.at}/image", f"{problem} With runAsNonRoot, it does not start.", one)
        else:
            yield _ok(one, at, "Does not run as root.")


def root_in_image(user: str | None) -> str:
    """Return why the USER of an image may be root, as a sentence; "" when it is another number, or not known."""
    if user is None:
        return ""
    name = user.partition(":")[0].strip()
    if not name:
        return "The image sets no USER, so it runs as root."
    if name == "root" or (name.isascii() and name.isdigit() and int(name) == 0):
        return "The image runs as root."
    if not (name.isascii() and name.isdigit()):
        return f"The image's USER is the name {name[:60]}: only a number shows that it is not root."
    return ""


def capabilities(pod: Pod) -> Founds:
    """Containers drop all capabilities and add at most NET_BIND_SERVICE."""
    for one in pod.containers:
        at = f"{one.security_at}/capabilities"
        held = mapping(one.security, "capabilities", one.security_at)
        added, dropped = texts(held, "add", at), texts(held, "drop", at)
        if beyond := set(added) - BASELINE_CAPABILITIES:
            yield Found(Result.FAIL, f"{at}/add", f"Adds {shown(beyond)}.", one, Profile.BASELINE)
        elif pod.is_windows:
            yield Found(Result.NOT_APPLICABLE, at, "Windows has no capabilities.", one)
        elif more := set(added) - {"NET_BIND_SERVICE"}:
            yield Found(Result.FAIL, f"{at}/add", f"Adds {shown(more)}.", one, Profile.RESTRICTED)
        elif "ALL" not in dropped:
            yield Found(Result.FAIL, f"{at}/drop", "Does not drop ALL.", one, Profile.RESTRICTED)
        else:
            yield _ok(one, at, "Drops ALL.")


def host_path(pod: Pod) -> Founds:
    """No volume is a folder of the node."""
    found = False
    for position, volume in enumerate(entries(pod.fields, "volumes", pod.at)):
        if volume.get("hostPath") is not None:
            found, at = True, f"{pod.at}/volumes/{position}/hostPath"
            name, path = _name(volume), _host_path(volume)
            yield Found(Result.FAIL, at, f"Volume {name} is {path} of the node.", None, Profile.BASELINE)
    if not found:
        yield Found(Result.PASS, f"{pod.at}/volumes", "No volume is a path of the node.")


def _name(fields: Fields) -> str:
    return str(fields.get("name") or "without name")[:100]


def _host_path(volume: Fields) -> str:
    path = volume["hostPath"].get("path") if isinstance(volume["hostPath"], dict) else None
    return str(path)[:200] if path else "a path"


def host_ports(pod: Pod) -> Founds:
    """No container listens on a port of the node."""
    for one in pod.containers:
        at = f"{one.at}/ports"
        ports = [number(port, "hostPort", f"{at}/{n}") for n, port in enumerate(entries(one.fields, "ports", one.at))]
        used = [str(port) for port in ports if port]
        if used:
            yield Found(Result.FAIL, at, f"Uses port {shown(used)} of the node.", one, Profile.BASELINE)
        else:
            yield _ok(one, at, "Uses no port of the node.")


def host_process(pod: Pod) -> Founds:
    """No container of Windows runs as a process of its node."""
    at = f"{pod.security_at}/windowsOptions"
    if flag(mapping(pod.security, "windowsOptions", pod.security_at), "hostProcess", at):
        yield Found(Result.FAIL, f"{at}/hostProcess", "hostProcess is true.", None, Profile.BASELINE)
    for one in pod.containers:
        at = f"{one.security_at}/windowsOptions"
        if flag(mapping(one.security, "windowsOptions", one.security_at), "hostProcess", at):
            yield Found(Result.FAIL, f"{at}/hostProcess", "hostProcess is true.", one, Profile.BASELINE)
        else:
            yield _ok(one, f"{at}/hostProcess", "No process of the node.")


def host_probes(pod: Pod) -> Founds:
    """Probes and hooks ask the container itself, so that nobody reaches other hosts through the kubelet."""
    for one in pod.containers:
        hosts = []
        life = mapping(one.fields, "lifecycle", one.at)
        handlers = [(one.fields, name, one.at) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [(life, name, f"{one.at}/lifecycle") for name in ("postStart", "preStop")]
        for holder, name, at in handlers:
            handler = mapping(holder, name, at)
            for way in ("httpGet", "tcpSocket"):
                host = text(mapping(handler, way, f"{at}/{name}"), "host", f"{at}/{name}/{way}")
                if host:
                    hosts.append((f"{at}/{name}/{way}/host", host))
        if hosts:
            words = f"A probe or hook asks {shown(host for _, host in hosts)}."
            yield Found(Result.FAIL, hosts[0][0], words, one, Profile.BASELINE)
        else:
            yield _ok(one, one.at, "Probes and hooks ask the container itself.")


def seccomp(pod: Pod) -> Founds:
    """The kernel filters system calls, with the profile of the runtime or a local one."""
    pod_profile = pod.security.get("seccompProfile")
    pod_is_good = False
    if pod_profile is not None:
        at = f"{pod.security_at}/seccompProfile"
        kind = text(mapping(pod.security, "seccompProfile", pod.security_at), "type", at)
        pod_is_good = kind in _PROFILES
        if not pod_is_good:
            yield Found(Result.FAIL, f"{at}/type", f"The profile is {kind or 'empty'}.", None, Profile.BASELINE)
    for one in pod.containers:
        at = f"{one.security_at}/seccompProfile"
        if one.security.get("seccompProfile") is not None:
            kind = text(mapping(one.security, "seccompProfile", one.security_at), "type", at)
            if kind in _PROFILES:
                yield _ok(one, f"{at}/type", f"The profile is {kind}.")
            else:
                yield Found(Result.FAIL, f"{at}/type", f"The profile is {kind or 'empty'}.", one, Profile.BASELINE)
        elif pod_is_good:
            yield _ok(one, f"{pod.security_at}/seccompProfile", "The pod sets a profile.")
        elif pod.is_windows:
            yield Found(Result.NOT_APPLICABLE, at, "Windows has no seccomp.", one)
        else:
            yield Found(Result.FAIL, at, "No profile is set.", one, Profile.RESTRICTED)


def apparmor(pod: Pod) -> Founds:
    """Nothing turns AppArmor off."""
    at = f"{pod.security_at}/appArmorProfile"
    problem = _apparmor(pod.security, pod.security_at)
    if problem:
        yield Found(Result.FAIL, f"{at}/type", problem, None, Profile.BASELINE)
    for key, stated in pod.context.annotations.items():
        if not isinstance(key, str) or not key.startswith(_APPARMOR_ANNOTATION):
            continue
        value = str(stated or "")
        if value and value != "runtime/default" and not value.startswith("localhost/"):
            name = key.removeprefix(_APPARMOR_ANNOTATION)[:100]
            words = f"An annotation sets the profile of {name} to {value[:60]}."
            where = pod.at.removesuffix("/spec") + "/metadata/annotations"
            yield Found(Result.FAIL, where, words, None, Profile.BASELINE)
    for one in pod.containers:
        at = f"{one.security_at}/appArmorProfile"
        problem = _apparmor(one.security, one.security_at)
        if problem:
            yield Found(Result.FAIL, f"{at}/type", problem, one, Profile.BASELINE)
        else:
            yield _ok(one, at, "AppArmor is not turned off.")


def _apparmor(security: Fields, at: str) -> str:
    if security.get("appArmorProfile") is None:
        return ""
    kind = text(mapping(security, "appArmorProfile", at), "type", f"{at}/appArmorProfile")
    return "" if kind in _PROFILES else f"The profile is {kind or 'empty'}."


def selinux(pod: Pod) -> Founds:
    """SELinux options stay within the types for containers."""
    problem = _selinux(pod.security, pod.security_at)
    if problem:
        yield Found(Result.FAIL, f"{pod.security_at}/seLinuxOptions", problem, None, Profile.BASELINE)
    for one in pod.containers:
        at = f"{one.security_at}/seLinuxOptions"
        problem = _selinux(one.security, one.security_at)
        if problem:
            yield Found(Result.FAIL, at, problem, one, Profile.BASELINE)
        else:
            yield _ok(one, at, "No special SELinux options.")


def _selinux(security: Fields, holder_at: str) -> str:
    at = f"{holder_at}/seLinuxOptions"
    options = mapping(security, "seLinuxOptions", holder_at)
    if text(options, "type", at) not in SELINUX_TYPES:
        return f"The SELinux type is {options['type'][:60]}."
    wrong = [key for key in ("user", "role") if text(options, key, at)]
    return f"The SELinux {' and '.join(wrong)} may not be set." if wrong else ""


def sysctls(pod: Pod) -> Founds:
    """Only kernel settings that stay inside the pod."""
    at = f"{pod.security_at}/sysctls"
    names = [
        text(entry, "name", f"{at}/{n}") for n, entry in enumerate(entries(pod.security, "sysctls", pod.security_at))
    ]
    if unsafe := set(names) - SYSCTLS:
        yield Found(Result.FAIL, at, f"Sets {shown(unsafe)}.", None, Profile.BASELINE)
    else:
        yield Found(Result.PASS, at, "Sets no unsafe kernel setting.")


def proc_mount(pod: Pod) -> Founds:
    """/proc is masked. In a user namespace, only the restricted profile asks for it."""
    for one in pod.containers:
        at = f"{one.security_at}/procMount"
        value = text(one.security, "procMount", one.security_at) if one.security.get("procMount") is not None else None
        if value in {None, "Default"}:
            yield _ok(one, at, "/proc is masked.")
        else:
            profile = Profile.RESTRICTED if pod.has_user_namespace else Profile.BASELINE
            yield Found(Result.FAIL, at, f"procMount is {value or 'empty'}.", one, profile)


def volume_types(pod: Pod) -> Founds:
    """Only volumes that Kubernetes manages itself."""
    is_bad = False
    for position, volume in enumerate(entries(pod.fields, "volumes", pod.at)):
        kinds = {key for key, value in volume.items() if key != "name" and value is not None}
        at = f"{pod.at}/volumes/{position}"
        if kinds & RESTRICTED_VOLUMES or not kinds:  # without a source, Kubernetes makes it an emptyDir
            continue
        is_bad = True
        if bad := kinds & OTHER_VOLUMES:
            words = f"Volume {_name(volume)} is {shown(bad)}."
            yield Found(Result.FAIL, at, words, None, Profile.RESTRICTED)
        else:
            words = f"Volume {_name(volume)} has a type that is not known: {shown(map(str, kinds))}."
            yield Found(Result.UNKNOWN, at, words, None, Profile.RESTRICTED)
    if not is_bad:
        yield Found(Result.PASS, f"{pod.at}/volumes", "Only volumes that Kubernetes manages.")
