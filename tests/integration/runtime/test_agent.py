"""The agent for Kubernetes against a real API server: its first report, what changes after it, and its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accounts import tokens
from lifecycle.inventory.models import ClusterNamespace, PodSpec, RunningContainer, RunningImage, RuntimeReport
from tests.factories import dock as rows
from tests.factories.running import cluster, work
from tests.kubernetes import Kubernetes

AGENT = Path(__file__).parents[3] / "deploy" / "agent" / "agent.py"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def api(tmp_path_factory: Any) -> Iterator[Kubernetes]:
    server = Kubernetes(tmp_path_factory.mktemp("kubernetes"))
    yield server
    server.stop()


def run_pod(api: Kubernetes, name: str, image: str, digest: str) -> None:
    """Create a pod, and say what a kubelet would say."""
    variables = [{"name": "PASSWORD", "value": "topsecret"}]
    containers = [{"name": "app", "image": image, "env": variables, "args": ["--key=topsecret"]}]
    pod = {"metadata": {"name": name}, "spec": {"containers": containers, "nodeName": "node-1"}}
    made = api.send("POST", "/api/v1/namespaces/shop/pods", pod)
    assert made.status_code == 201, made.text
    seen = {
        "name": "app", "image": image, "imageID": f"{image.partition(':')[0]}@{digest}", "ready": True,
        "restartCount": 0, "containerID": "containerd://" + "ab" * 32,
        "state": {"running": {"startedAt": "2026-11-30T10:00:00Z"}},
    }  # fmt: skip
    status = {"status": {"phase": "Running", "containerStatuses": [seen]}}
    kind = "application/merge-patch+json"
    patched = api.send("PATCH", f"/api/v1/namespaces/shop/pods/{name}/status", status, kind=kind)
    assert patched.status_code == 200, patched.text


def await_true(condition: Callable[[], Any], log: Path, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)
        work()


def test_the_agent_reports_pods_and_follows_them(api: Kubernetes, live_server: Any, tmp_path: Path) -> None:
    team = rows.team("shop")
    boss = rows.user("boss", "owner", of=team)
    cluster(team)
    image = rows.image("one")
    rows.push(rows.repository("shop/api"), image, "1.0")
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "strict", "labels": level}})
    run_pod(api, "api-1", "localhost:5000/shop/api:1.0", image.digest)
    configuration = tmp_path / "kubeconfig"
    configuration.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
        f"clusters: [{{name: x, cluster: {{insecure-skip-tls-verify: true, server: 'https://127.0.0.1:{api.port}'}}}}]\n"
        f"users: [{{name: x, user: {{token: {api.http.headers['Authorization'].split()[1]}}}}}]\n"
        "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
    )
    environment = {
        "GRAVINGDOCK_URL": live_server.url, "GRAVINGDOCK_CLUSTER": "north", "KUBECONFIG": str(configuration),
        "AGENT_TOKEN": tokens.create_token(boss, kind="pat", name="agent")[1], "PATH": os.environ["PATH"],
    }  # fmt: skip
    log = tmp_path / "agent.log"
    with log.open("w") as errors:
        agent = subprocess.Popen([sys.executable, AGENT], env=environment, stderr=errors)
    try:
        await_true(RunningImage.objects.filter(digest=image.digest, until=None).exists, log)
        container = RunningContainer.objects.get(until=None)
        assert (container.image, container.pod, container.node) == (image, "api-1", "node-1")
        assert "topsecret" not in str(list(PodSpec.objects.values_list("spec", flat=True)))
        assert ClusterNamespace.objects.get(name="strict").pss == "restricted"
        run_pod(api, "api-2", "localhost:5000/shop/api:1.0", image.digest)
        await_true(lambda: RunningContainer.objects.filter(until=None).count() == 2, log)
        api.send("DELETE", "/api/v1/namespaces/shop/pods/api-1", gracePeriodSeconds="0")
        await_true(lambda: RunningContainer.objects.filter(until=None).count() == 1, log)
        assert list(RuntimeReport.objects.order_by("pk").values_list("kind", flat=True)[:2]) == ["full", "delta"]
        resident = next(line for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines() if "VmRSS" in line)
        assert int(resident.split()[1]) < 120 * 1024
    finally:
        agent.kill()
        agent.wait()
