"""The checks beyond the Pod Security Standards: from the CIS benchmarks, and about the image."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Final

from lifecycle.policy.isolation_pod import root_in_image
from lifecycle.policy.isolation_types import (
    Container,
    Found,
    ImageConfig,
    Kind,
    Pod,
    Result,
    entries,
    flag,
    mapping,
    number,
    secret_names,
    shown,
    text,
)

SOCKETS: Final = (
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/podman/podman.sock",
)
_NOT_KNOWN: Final = "The configuration of the image is not known."

Founds = Iterator[Found]


def read_only_root(pod: Pod) -> Founds:
    """The root file system cannot be written."""
    for one in pod.containers:
        at = f"{one.security_at}/readOnlyRootFilesystem"
        is_set = flag(one.security, "readOnlyRootFilesystem", one.security_at)
        if pod.is_windows:
            yield Found(Result.NOT_APPLICABLE, at, "Windows cannot do this.", one)
        elif is_set:
            yield Found(Result.PASS, at, "The root file system is read-only.", one)
        else:
            yield Found(Result.FAIL, at, "The root file system can be written.", one)


def runtime_socket(pod: Pod) -> Founds:
    """No volume gives the socket of the container runtime, which is root on the node."""
    is_bad = False
    for position, volume in enumerate(entries(pod.fields, "volumes", pod.at)):
        at = f"{pod.at}/volumes/{position}"
        if volume.get("hostPath") is None:
            continue
        path = text(mapping(volume, "hostPath", at), "path", f"{at}/hostPath")
        if _holds_socket(path):
            is_bad = True
            yield Found(Result.FAIL, f"{at}/hostPath/path", f"{path[:200]} of the node holds a runtime's socket.")
    if not is_bad:
        yield Found(Result.PASS, f"{pod.at}/volumes", "No socket of a container runtime.")


def _holds_socket(path: str) -> bool:
    """Return whether a path of a node is a runtime's socket, or a folder above one. /var/run is a link to /run."""
    normal = posixpath.normpath("/" + path.strip("/"))
    if normal == "/var/run" or normal.startswith("/var/run/"):
        normal = normal.removeprefix("/var")
    below = normal.rstrip("/") + "/"
    return normal == "/var" or any(socket == normal or socket.startswith(below) for socket in SOCKETS)


def secret_in_env(pod: Pod) -> Founds:
    """Secrets come as files, not as environment variables, which logs and child processes see."""
    for one in pod.containers:
        at = f"{one.at}/env"
        bad: list[tuple[str, str]] = []
        literals: dict[str, str] = {}
        for position, entry in enumerate(entries(one.fields, "env", one.at)):
            name = text(entry, "name", f"{at}/{position}")
            source = mapping(entry, "valueFrom", f"{at}/{position}")
            if source.get("secretKeyRef") is not None:
                bad.append((f"{at}/{position}", name))
            elif entry.get("value") not in (None, ""):
                literals[name] = f"{at}/{position}"
        bad += [(literals[name], name) for name in secret_names(literals)]
        for position, entry in enumerate(entries(one.fields, "envFrom", one.at)):
            secret = mapping(entry, "secretRef", f"{one.at}/envFrom/{position}")
            if entry.get("secretRef") is not None:
                bad.append((f"{one.at}/envFrom/{position}", f"all of secret {str(secret.get('name') or '')[:100]}"))
        if bad:
            words = f"Secrets in environment variables: {shown(name for _, name in bad)}."
            yield Found(Result.FAIL, min(where for where, _ in bad), words, one)
        else:
            yield _of_image(one, secrets_of_image)


def service_account_token(pod: Pod) -> Founds:
    """No token of the API server is mounted."""
    at = f"{pod.at}/automountServiceAccountToken"
    is_mounted = flag(pod.fields, "automountServiceAccountToken", pod.at)
    if is_mounted is False:
        yield Found(Result.PASS, at, "No token is mounted.")
    else:
        words = "is true" if is_mounted else "is not set, so a token is mounted unless the ServiceAccount says no"
        yield Found(Result.FAIL, at, f"automountServiceAccountToken {words}.")


def network_policy(pod: Pod) -> Founds:
    """A NetworkPolicy selects the pod."""
    has_one = pod.context.has_network_policy
    if has_one is None:
        yield Found(Result.UNKNOWN, pod.at, "The NetworkPolicies of the namespace are not known.")
    elif has_one:
        yield Found(Result.PASS, pod.at, "A NetworkPolicy selects the pod.")
    else:
        yield Found(Result.FAIL, pod.at, "No NetworkPolicy selects the pod, so everybody can reach it.")


def default_namespace(pod: Pod) -> Founds:
    """The pod has a namespace of its own."""
    namespace = pod.context.namespace
    if namespace is None:
        yield Found(Result.UNKNOWN, "/metadata/namespace", "The namespace is not known.")
    elif namespace == "default":
        yield Found(Result.FAIL, "/metadata/namespace", "Runs in the namespace default.")
    else:
        yield Found(Result.PASS, "/metadata/namespace", f"Runs in {namespace[:100]}.")


def limits(pod: Pod) -> Founds:
    """Memory has a limit, and CPU a limit or a request, which is its share."""
    of_pod = mapping(pod.fields, "resources", pod.at)
    pod_limits = mapping(of_pod, "limits", f"{pod.at}/resources")
    pod_requests = mapping(of_pod, "requests", f"{pod.at}/resources")
    for one in pod.containers:
        at = f"{one.at}/resources"
        if one.kind is Kind.EPHEMERAL:
            yield Found(Result.NOT_APPLICABLE, at, "Ephemeral containers cannot have limits.", one)
            continue
        own = mapping(one.fields, "resources", one.at)
        limit = {**pod_limits, **mapping(own, "limits", at)}
        request = {**pod_requests, **mapping(own, "requests", at)}
        lacking = ["memory limit"] if limit.get("memory") is None else []
        lacking += ["CPU limit or request"] if limit.get("cpu") is None and request.get("cpu") is None else []
        if lacking:
            yield Found(Result.FAIL, at, f"No {' and no '.join(lacking)}.", one)
        else:
            yield Found(Result.PASS, at, "Memory and CPU are limited.", one)


def setuid(pod: Pod) -> Founds:
    """No file of the image runs with the rights of its owner."""
    for one in pod.containers:
        yield _of_image(one, setuid_of_image)


def healthcheck(pod: Pod) -> Founds:
    """Something notices when the container hangs: a probe, or the image's HEALTHCHECK."""
    for one in pod.containers:
        if one.kind is not Kind.MAIN:
            yield Found(Result.NOT_APPLICABLE, one.at, "Kubernetes probes main containers only.", one)
        elif one.fields.get("livenessProbe") is not None or one.fields.get("readinessProbe") is not None:
            yield Found(Result.PASS, one.at, "Has a probe.", one)
        else:
            yield _of_image(one, healthcheck_of_image)


def ssh(pod: Pod) -> Founds:
    """No SSH server."""
    for one in pod.containers:
        at = f"{one.at}/ports"
        ports = [
            number(port, "containerPort", f"{at}/{n}") for n, port in enumerate(entries(one.fields, "ports", one.at))
        ]
        if 22 in ports:
            yield Found(Result.FAIL, at, "Opens port 22.", one)
        else:
            yield _of_image(one, ssh_of_image)


ImageFound = tuple[Result, str]
ImageCheck = Callable[[ImageConfig | None], ImageFound]


def _of_image(one: Container, check: ImageCheck) -> Found:
    result, words = check(one.image)
    return Found(result, f"{one.at}/image", words, one)


def user_of_image(image: ImageConfig | None) -> ImageFound:
    """Return whether the image runs as another user than root, by its configuration."""
    if image is None or image.user is None:
        return Result.UNKNOWN, _NOT_KNOWN
    problem = root_in_image(image.user)
    return (Result.FAIL, problem) if problem else (Result.PASS, f"Runs as user {image.user[:60]}.")


def secrets_of_image(image: ImageConfig | None) -> ImageFound:
    if image is None or image.secret_names is None:
        return Result.UNKNOWN, _NOT_KNOWN
    if image.secret_names:
        return Result.FAIL, f"The image's ENV has {shown(image.secret_names)}."
    return Result.PASS, "No secrets in environment variables, as far as their names tell."


def setuid_of_image(image: ImageConfig | None) -> ImageFound:
    if image is None or image.has_setuid is None:
        return Result.UNKNOWN, "The files of the image were not checked."
    return (Result.FAIL, "The image has setuid or setgid files.") if image.has_setuid else (Result.PASS, "None.")


def healthcheck_of_image(image: ImageConfig | None) -> ImageFound:
    if image is None or image.has_healthcheck is None:
        return Result.UNKNOWN, _NOT_KNOWN
    return (Result.PASS, "Has a HEALTHCHECK.") if image.has_healthcheck else (Result.FAIL, "No probe or HEALTHCHECK.")


def ssh_of_image(image: ImageConfig | None) -> ImageFound:
    if image is None or image.exposes_ssh is None:
        return Result.UNKNOWN, _NOT_KNOWN
    return (Result.FAIL, "The image exposes port 22.") if image.exposes_ssh else (Result.PASS, "Port 22 is not open.")
