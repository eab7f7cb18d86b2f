"""An API server of Kubernetes, as far as the agent asks it: lists in pages, and a watch. The load of a bench."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from config.embedded import ports

STARTED_AT: Final = "2026-11-30T12:00:00Z"
RESTARTED_AT: Final = "2026-11-30T13:00:00Z"
_REPLICAS: Final = 5  # pods of one Deployment
_NODES: Final = 100
_NAMESPACES: Final = 50
_MANIFESTS: Final = 500  # images that run
_VERSION: Final = 1000


def pod(number: int) -> dict[str, Any]:
    """Return a pod as API servers return it, about 7 KB: most of it is not reported."""
    deployment, node = number // _REPLICAS, f"node-{number % _NODES}"
    name, labels = (
        f"app-{deployment}-5d4f8c7b9c-{number:05}",
        {"app": f"app-{deployment}", "pod-template-hash": "5d4f8c7b9c"},
    )
    image = f"localhost:5000/bench/app-{deployment % _MANIFESTS}"
    digest = f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
    variables = [{"name": f"SETTING_{each}", "value": f"value {each} of {deployment}"} for each in range(20)]
    probe = {"httpGet": {"path": "/livez", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1}
    access = f"kube-api-access-{number:05}"
    container = {
        "name": "app", "image": f"{image}:1.0", "args": ["--verbose", f"--name={deployment}"], "env": variables,
        "livenessProbe": probe, "readinessProbe": probe, "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": access, "readOnly": True}
        ],
    }  # fmt: skip
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
        {
            "downwardAPI": {
                "items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]
            }
        },
    ]
    owned: dict[str, dict[str, str]] = {f"f:{path}": {} for path in (f"label-{each}" for each in range(60))}
    return {
        "metadata": {
            "name": name, "namespace": f"space-{deployment % _NAMESPACES}",
            "uid": f"{number:08}-0000-4000-8000-000000000000", "resourceVersion": str(_VERSION),
            "labels": labels, "creationTimestamp": "2026-11-30T12:00:00Z",
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"app-{deployment}-5d4f8c7b9c",
                    "uid": f"{deployment:08}-0000-4000-8000-000000000001", "controller": True,
                }
            ],
            "managedFields": [
                {"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:metadata": owned}}
                for manager in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "containers": [container], "nodeName": node, "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "schedulerName": "default-scheduler",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "tolerations": [
                {"effect": "NoExecute", "key": f"node.kubernetes.io/{key}", "operator": "Exists"}
                for key in ("not-ready", "unreachable")
            ],
            "volumes": [{"name": access, "projected": {"defaultMode": 420, "sources": sources}}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "startTime": "2026-11-30T12:00:00Z",
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2026-11-30T12:00:00Z"}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {
                    "name": "app", "image": f"{image}:1.0", "imageID": f"{image}@{digest}", "ready": True,
                    "restartCount": 0, "started": True, "containerID": f"containerd://{number:064x}",
                    "state": {"running": {"startedAt": STARTED_AT}},
                }
            ],
        },
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    """Answers what the agent asks. Its connections are kept, as those of an API server."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer a list, or a watch until the end."""
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if address.path == "/api/v1/pods" and "watch" in query:
            self._watch()
        elif address.path == "/api/v1/pods":
            self._page(query)
        elif address.path == "/api/v1/nodes":
            info = {"nodeInfo": {"architecture": "amd64"}}
            self._list([{"metadata": {"name": f"node-{each}"}, "status": info} for each in range(_NODES)])
        elif address.path == "/api/v1/namespaces":
            self._list([{"metadata": {"name": f"space-{each}"}} for each in range(_NAMESPACES)])
        elif address.path.endswith("/networkpolicies"):
            self._list([])
        else:  # webhook configurations: none
            self._send(404, b"{}")

    def _page(self, query: dict[str, list[str]]) -> None:
        limit, start = int(query["limit"][0]), int(query.get("continue", ["0"])[0])
        end = min(start + limit, self.server.pods)
        self._list([pod(number) for number in range(start, end)], str(end) if end < self.server.pods else "")

    def _list(self, items: list[dict[str, Any]], following: str = "") -> None:
        metadata = {"resourceVersion": str(_VERSION), "continue": following}
        self._send(200, json.dumps({"metadata": metadata, "items": items}).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _watch(self) -> None:
        """Say that every pod changed, one after the other, then only bookmarks."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        version = _VERSION
        try:
            self.server.changed.wait()
            for number in range(self.server.pods):
                version += 1
                changed = pod(number)
                changed["metadata"]["resourceVersion"] = str(version)
                changed["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = RESTARTED_AT
                self._event("MODIFIED", changed)
            while not self.server.ended.wait(10):
                self._event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})
        except OSError:
            self.close_connection = True

    def _event(self, kind: str, value: dict[str, Any]) -> None:
        line = json.dumps({"type": kind, "object": value}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pods: int) -> None:
        super().__init__((ports.LOOPBACK, 0), _Handler)
        self.pods = pods
        self.changed, self.ended = threading.Event(), threading.Event()


class ClusterApi:
    """The address of the server, and what it does."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.url = f"http://{ports.LOOPBACK}:{server.server_port}"

    def change_all(self) -> None:
        """Let every pod restart, once."""
        self._server.changed.set()


@contextmanager
def serving(pods: int) -> Iterator[ClusterApi]:
    """Serve a cluster with so many pods while the block runs."""
    server = _Server(pods)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ClusterApi(server)
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
