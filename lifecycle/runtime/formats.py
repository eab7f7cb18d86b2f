"""Reads what other tools print about running containers: kubectl, Docker, Podman, and AWS for ECS, unchanged.

Such a document counts as a full report. What it does not say stays empty, and nothing is guessed: an image without a
digest is not resolved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.runtime.reports import read_content
from lifecycle.runtime.skeletons import digest_of, skeleton
from lifecycle.runtime.types import CONTAINERS_MAX, Content, Refused

FORMATS: Final = ("kubernetes", "docker", "ecs")
_CRON_TIME: Final = re.compile(r"-[0-9]{8,11}\Z")
_DEPTH_MAX: Final = 4

Entry = dict[str, Any]


def read_format(document: Any, name: str) -> Content:
    """Return what a document of one of FORMATS says; raises Malformed, LimitExceeded.

    The pointers of refused entries are those of the document.
    """
    reader = _READERS.get(name)
    if reader is None:
        raise Malformed(f"format: choose one of {', '.join(FORMATS)}.", field="format")
    entries: list[Entry] = []
    pointers: list[str] = []
    specs: dict[str, Any] = {}
    refused: list[Refused] = []
    for pointer, entry, spec in reader(document):
        if isinstance(entry, str):
            refused.append(Refused(pointer, entry))
            continue
        if spec is not None:
            bare = skeleton(spec)
            if not bare.get("annotations"):
                bare.pop("annotations", None)
            entry["spec"] = digest_of(bare)
            specs[entry["spec"]] = bare
        entries.append(entry)
        pointers.append(pointer)
        if len(entries) > CONTAINERS_MAX:
            raise LimitExceeded(f"A report has at most {CONTAINERS_MAX} containers.", limit=CONTAINERS_MAX)
    read = read_content({"containers": entries, "specs": specs})
    for each in read.refused:
        place, at, *_ = each.pointer[1:].split("/", 2)
        refused.append(Refused(pointers[int(at)], each.why) if place == "containers" else each)
    return Content(read.containers, read.gone, read.specs, read.namespaces, refused)


_Read = Iterator[tuple[str, Entry | str, dict[str, Any] | None]]


def _kubernetes(document: Any) -> _Read:
    if isinstance(document, dict) and document.get("kind") == "Pod":
        document = {"items": [document]}
    items = document.get("items") if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise Malformed("This is no list of pods. Send the output of: kubectl get pods -A -o json", field="items")
    for at, pod in enumerate(items):
        if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
            yield f"/items/{at}", "This is no pod: it has no spec.", None
        elif pod.get("kind", "Pod") != "Pod":
            yield f"/items/{at}", f"This is a {str(pod['kind'])[:60]}, not a Pod.", None
        else:
            spec = pod["spec"] | {"annotations": _object(pod, "metadata").get("annotations") or {}}
            yield from ((f"/items/{at}{place}", entry, spec) for place, entry in containers_of(pod))


def containers_of(pod: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """Return (pointer in the pod, entry of a report) for each container and image volume of a pod."""
    meta, spec, status = _object(pod, "metadata"), _object(pod, "spec"), _object(pod, "status")
    kind, name = _workload(meta)
    shared = {
        "namespace": meta.get("namespace") or "default", "workload": {"kind": kind, "name": name},
        "pod": meta.get("name") or meta.get("generateName") or "", "node": spec.get("nodeName") or "",
        "arch": _object(spec, "nodeSelector").get("kubernetes.io/arch") or "",
    }  # fmt: skip
    uid = meta.get("uid") or f"{shared['namespace']}/{shared['pod']}"
    is_over = status.get("phase") in {"Succeeded", "Failed"}
    for which, listed, statuses in (
        ("init", "initContainers", "initContainerStatuses"),
        ("main", "containers", "containerStatuses"),
        ("ephemeral", "ephemeralContainers", "ephemeralContainerStatuses"),
    ):
        known = {each.get("name"): each for each in _list(status, statuses) if isinstance(each, dict)}
        for at, container in enumerate(_list(spec, listed)):
            if not isinstance(container, dict):
                continue
            seen = known.get(container.get("name")) or {}
            state, started_at = _state(seen, is_over=is_over)
            yield f"/spec/{listed}/{at}", shared | {
                "key": f"{uid}/{which}/{container.get('name')}", "kind": which, "name": container.get("name"),
                "image": container.get("image"), "image_id": seen.get("imageID") or "",
                "container_id": seen.get("containerID") or "", "state": state, "started_at": started_at,
            }  # fmt: skip
    for at, volume in enumerate(_list(spec, "volumes")):
        reference = _object(volume, "image").get("reference") if isinstance(volume, dict) else None
        if reference:
            # No status tells the digest of an image volume. One in the reference is what the node mounts.
            yield f"/spec/volumes/{at}/image", shared | {
                "key": f"{uid}/volume/{volume.get('name')}", "kind": "volume", "name": volume.get("name"),
                "image": reference, "image_id": str(reference).partition("@")[2],
                "state": "terminated" if is_over else "running", "started_at": status.get("startTime"),
            }  # fmt: skip


def _workload(meta: Mapping[str, Any]) -> tuple[str, str]:
    """Return the controller of a pod. A ReplicaSet with the hash of a template belongs to a Deployment.

    A Job that ends in the minutes since 1970 belongs to a CronJob (kubernetes, pkg/controller/cronjob/utils.go).
    """
    owners = [each for each in _list(meta, "ownerReferences") if isinstance(each, dict)]
    owner = next((each for each in owners if each.get("controller")), None)
    if owner is None:
        return "Pod", str(meta.get("name") or meta.get("generateName") or "")
    kind, name = str(owner.get("kind") or ""), str(owner.get("name") or "")
    labels = _object(meta, "labels")
    hashed = labels.get("pod-template-hash")
    if kind == "ReplicaSet" and hashed and name.endswith(f"-{hashed}"):
        return "Deployment", name.removesuffix(f"-{hashed}")
    if kind == "Job" and _CRON_TIME.search(name):
        return "CronJob", _CRON_TIME.sub("", name)
    return kind, name


def _state(seen: Mapping[str, Any], *, is_over: bool) -> tuple[str, Any]:
    state = _object(seen, "state")
    for name in ("running", "terminated", "waiting"):
        if isinstance(state.get(name), dict):
            return ("terminated" if is_over else name), state[name].get("startedAt")
    return ("terminated" if is_over else "waiting"), None


def _docker(document: Any) -> _Read:
    """Read `docker ps` of the API (a list), `docker inspect` of containers and of images, alone or together."""
    listed: dict[str, Entry] = {}
    inspected: dict[str, Entry] = {}
    images: dict[str, Entry] = {}
    places: dict[str, str] = {}
    is_empty = True
    for pointer, each in _objects(document, "", 0):
        is_empty = False
        if isinstance(each.get("RepoDigests"), list) and "HostConfig" not in each:
            images[str(each.get("Id"))] = each
            continue
        key = each.get("Id") or each.get("ID")
        if not isinstance(key, str) or not key:
            yield pointer, "This is no container of the Docker API: it has no Id.", None
            continue
        places.setdefault(key, pointer)
        (inspected if isinstance(each.get("Config"), dict) else listed)[key] = each
    if is_empty and document not in ([], {}):
        raise Malformed("This is no list of containers. Send the output of: docker inspect $(docker ps -aq)")
    for key, pointer in places.items():
        yield pointer, _docker_entry(key, listed.get(key, {}), inspected.get(key, {}), images), None


def _objects(value: Any, pointer: str, depth: int) -> Iterator[tuple[str, Entry]]:
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _objects(inner, f"{pointer}/{at}", depth + 1)
    elif isinstance(value, dict):
        parts = {name: inner for name, inner in value.items() if isinstance(inner, list)}
        if "Id" in value or "ID" in value or not parts:
            if value:
                yield pointer, value
            return
        for name, inner in parts.items():
            yield from _objects(inner, f"{pointer}/{name}", depth + 1)


def _docker_entry(key: str, listed: Entry, inspected: Entry, images: Mapping[str, Entry]) -> Entry:
    config = _object(inspected, "Config")
    labels = _object(config, "Labels") or _object(listed, "Labels")
    names = _list(listed, "Names")
    name = str(inspected.get("Name") or (names[0] if names else "") or key[:12]).lstrip("/")
    state = inspected.get("State")
    # `Image` is the id of the configuration when inspected, and `ImageID` is that in a list.
    image_id = inspected.get("Image") or listed.get("ImageID") or ""
    image = images.get(str(image_id)) or {}
    service = labels.get("com.docker.compose.service")
    digests = [each for each in (*_list(image, "RepoDigests"), inspected.get("ImageDigest")) if isinstance(each, str)]
    namespace = labels.get("io.kubernetes.pod.namespace") or labels.get("com.docker.compose.project") or "default"
    return {
        "key": f"{key}/main/{name}", "namespace": namespace,
        "workload": {"kind": "Service", "name": service} if service else {"kind": "Container", "name": name},
        "pod": "", "node": "", "kind": "main", "name": name,
        "arch": image.get("Architecture") or "",
        "image": inspected.get("ImageName") or config.get("Image") or listed.get("Image") or image_id,
        "image_id": "", "image_ids": [*digests, image_id][:16], "container_id": f"docker://{key}",
        "state": _object(inspected, "State").get("Status") if isinstance(state, dict) else listed.get("State") or state,
        "started_at": _object(inspected, "State").get("StartedAt") or listed.get("Created"),
    }  # fmt: skip


def _ecs(document: Any) -> _Read:
    documents = document if isinstance(document, list) else [document]
    for number, one in enumerate(documents):
        tasks = one.get("tasks") if isinstance(one, dict) else None
        if not isinstance(tasks, list):
            raise Malformed("This is no list of tasks. Send the output of: aws ecs describe-tasks", field="tasks")
        before = f"/{number}" if isinstance(document, list) else ""
        for at, task in enumerate(tasks):
            if not isinstance(task, dict) or not task.get("taskArn"):
                yield f"{before}/tasks/{at}", "This is no task: it has no taskArn.", None
                continue
            for place, container in enumerate(_list(task, "containers")):
                if isinstance(container, dict):
                    yield f"{before}/tasks/{at}/containers/{place}", _ecs_entry(task, container), None


def _ecs_entry(task: Entry, container: Entry) -> Entry:
    kind, _, name = str(task.get("group") or "").partition(":")
    arn = str(task["taskArn"])
    attributes = {each.get("name"): each.get("value") for each in _list(task, "attributes") if isinstance(each, dict)}
    return {
        "key": f"{arn}/main/{container.get('name')}",
        "namespace": str(task.get("clusterArn") or "").rpartition("/")[2] or "default",
        "workload": {"kind": "Service" if kind == "service" else "Task", "name": name or arn.rpartition("/")[2]},
        "pod": arn.rpartition("/")[2], "node": str(task.get("containerInstanceArn") or "").rpartition("/")[2],
        "arch": attributes.get("ecs.cpu-architecture") or "", "kind": "main", "name": container.get("name"),
        "image": container.get("image"), "image_id": container.get("imageDigest") or "",
        "container_id": container.get("runtimeId") or "", "started_at": task.get("startedAt"),
        "state": str(container.get("lastStatus") or task.get("lastStatus") or "running"),
    }  # fmt: skip


def _object(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, dict) else {}


def _list(value: Any, name: str) -> list[Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


_READERS: Final[Mapping[str, Callable[[Any], _Read]]] = {"kubernetes": _kubernetes, "docker": _docker, "ecs": _ecs}
