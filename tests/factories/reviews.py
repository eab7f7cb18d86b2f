"""Admission reviews as an API server sends them, and snapshots to answer them from."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import orjson

from lifecycle.admission import snapshot

SECRET = "gdc_adm_test"
HOST = "registry.example.com"


def sha(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def configuration(**changes: Any) -> dict[str, Any]:
    """Return one cluster `north` with `prod*` bound to shop/production (1), and quay.io allowed in `lab`."""
    cluster = {
        "pk": 1, "team": "shop", "mode": "enforce", "tags": "resolve", "unbound": "deny", "stale_after_s": 3600,
        "mutate": True, "subjects": ["user:kim", "group:oncall"],
        "secrets": [[hashlib.sha256(SECRET.encode()).hexdigest(), None]],
        "bindings": [
            ["prod-observed", 1, "observe", []], ["prod*", 1, "", []], ["lab", 1, "warn", ["quay.io"]],
            ["off", 1, "off", []],
        ],
    }  # fmt: skip
    north = {"enforced_at": _beginnings(changes.get("bindings", cluster["bindings"])), **changes}
    cluster["enforced_at"] = _beginnings(cluster["bindings"])
    return {
        "hosts": {HOST: HOST, "docker.io": "docker.io"},
        "environments": {"1": ["shop", "production"]},
        "targets": {f"{HOST}/shop/api": 1},
        "clusters": {"north": cluster | north, "south": cluster | {"pk": 2, "secrets": []}},
    }


def _beginnings(bindings: list[list[Any]]) -> list[float | None]:
    """Return since when namespaces without a binding, and those of each, are enforced: since 1970."""
    return [0.0, *(0.0 if row[2] in {"", "enforce"} else None for row in bindings)]


def content(
    number: int = 1,
    *,
    isolation: dict[str, dict[str, str]] | None = None,
    image_facts: list[Any] | None = None,
    **changes: Any,
) -> bytes:
    """Return a snapshot: allowed, rejected, refused by policy, promoted nowhere, and quarantined images.

    `isolation` is {environment id: {check: mode}}; `image_facts` are those of the allowed image, as the file has them.
    """
    standing = {
        "good": ["", {"1": ["allowed", ""]}, *([image_facts] if image_facts else [])],
        "rejected": ["", {"1": ["rejected", ""]}],
        "ruled": ["", {"1": ["policy", "No critical findings: 2 critical."]}],
        "elsewhere": ["", {"2": ["allowed", ""]}],
        "known": ["", {}],
        "bad": ["The image is quarantined (Q-1): backdoor.", {"1": ["allowed", ""]}],
    }
    return snapshot.build(
        number,
        configuration(**changes) | {"isolation": isolation or {}},
        [(snapshot.key_of_digest(sha(name)), orjson.dumps(row)) for name, row in standing.items()],
        [
            (snapshot.key_of_tag(f"{HOST}/{place}", name), snapshot.key_of_digest(sha(name)))
            for name in standing
            for place in ("shop/api", "dev/api")
        ],
    )


def image(name: str) -> str:
    return f"{HOST}/shop/api@{sha(name)}"


def pod(*images: str, **more: Any) -> dict[str, Any]:
    """Return a Pod with a container for each image."""
    annotations = more.pop("annotations", {})
    owner = more.pop("owner", None)
    metadata: dict[str, Any] = {"name": "web-1", "annotations": annotations}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
    containers = [{"name": f"c{index}", "image": name} for index, name in enumerate(images)]
    return {"metadata": metadata, "spec": {"containers": containers, **more}}


def deployment(*images: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    template = pod(*images, annotations=annotations or {})
    return {"metadata": {"name": "web"}, "spec": {"template": template}}


def review(given: Any, *, kind: str = "Pod", group: str = "", namespace: str = "prod", **more: Any) -> dict[str, Any]:
    """Return an AdmissionReview about the creation of an object."""
    request = {
        "uid": "uid-1", "kind": {"group": group, "version": "v1", "kind": kind}, "namespace": namespace,
        "operation": "CREATE", "userInfo": {"username": "alice", "groups": ["dev"]}, "object": given, **more,
    }  # fmt: skip
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def send(
    application: Any, document: Any, path: str = f"/admission/north/{SECRET}", method: str = "POST", **environ: Any
) -> tuple[str, Any]:
    """Send a review to a WSGI application; return (status, response of the review, or the text of an error)."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    seen: list[str] = []
    request = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
        "REMOTE_ADDR": "10.0.0.1", **environ,
    }  # fmt: skip
    answer = b"".join(application(request, lambda status, headers: seen.append(status)))
    return seen[0], json.loads(answer)["response"] if seen[0].startswith("200") else answer.decode()
