"""A new certificate authority with a real API server and the agent: confirmed, then used, and no review fails."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from accounts import tokens
from lifecycle.admission import certificates, rotation
from lifecycle.inventory.models import Reporter
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.reviews import image, pod
from tests.factories.running import cluster as add_cluster
from tests.factories.running import work
from tests.integration.admission.test_kubernetes import PATHS, PODS, Server, create, manifest
from tests.kubernetes import Kubernetes

AGENT = Path(__file__).parents[3] / "deploy" / "agent" / "agent.py"
HOOKS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
ACCOUNT = "/api/v1/namespaces/gravingdock/serviceaccounts/gravingdock-agent/token"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(tmp_path):
    (tmp_path / "kubernetes").mkdir()
    made = Kubernetes(tmp_path / "kubernetes")
    yield made
    made.stop()


@pytest.fixture
def server(tmp_path, api):
    (tmp_path / "home").mkdir()
    made = Server(tmp_path / "home")
    made.start()
    assert api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "prod"}}).status_code == 201
    for document in yaml.safe_load_all(manifest(made)):
        answer = api.send("POST", PATHS[document["kind"]], document)
        assert answer.status_code == 201, (document["kind"], answer.text)
    api.wait(lambda: create(api, PODS, pod("nginx"), user="", dryRun="All").status_code == 403)
    yield made
    made.stop()


def kubeconfig(api, path):
    """Write the configuration of the agent's own account: it has the rights of the manifest, and no others."""
    token = api.send("POST", ACCOUNT, {"spec": {"expirationSeconds": 3600}}).json()["status"]["token"]
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
        f"clusters: [{{name: x, cluster: {{insecure-skip-tls-verify: true, server: 'https://127.0.0.1:{api.port}'}}}}]\n"
        f"users: [{{name: x, user: {{token: {token}}}}}]\n"
        "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
    )
    return token


def trusted(api):
    """Return what the webhooks of both configurations trust."""
    found = (api.send("GET", f"{PATHS[kind]}/gravingdock").json()["webhooks"] for kind in HOOKS)
    return {base64.b64decode(hook["clientConfig"]["caBundle"]).decode() for hooks in found for hook in hooks}


def authority(folder):
    return (folder / certificates.FOLDER / "ca.pem").read_text()


@pytest.fixture
def folder(server, settings, monkeypatch):
    """The folder of the admission server; two seconds are enough for one API server to take up a change."""
    monkeypatch.setattr(rotation, "SETTLED", rotation.SETTLED / 5)
    settings.ADMISSION_FOLDER, settings.ADMISSION_PORT = str(server.folder), server.port
    return server.folder


def test_new_authority_is_used_by_itself_and_no_review_fails(api, folder, live_server, tmp_path):
    names = certificates.state(folder).names
    team = rows.team("shop")
    add_cluster(team, mode="enforce")
    before, first = certificates.bundle(folder), authority(folder)
    stop, failed, count = threading.Event(), [], [0]

    def ask():
        while not stop.is_set():
            answer = create(api, PODS, pod(image("good")), user="", dryRun="All")
            count[0] += 1
            if answer.status_code != 201:
                failed.append(answer.text)

    def await_true(condition, seconds=90):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (tmp_path / "agent.log").read_text()[-2000:]
            time.sleep(0.5)
            work()
            rotation.tend_certificates(folder, names)

    token = kubeconfig(api, tmp_path / "kubeconfig")
    environment = {
        "GRAVINGDOCK_URL": live_server.url, "GRAVINGDOCK_CLUSTER": "north", "BUNDLE_EVERY_S": "1",
        "KUBECONFIG": str(tmp_path / "kubeconfig"), "PATH": os.environ["PATH"],
        "AGENT_TOKEN": tokens.create_token(person("agent", team, "security"), kind="pat", name="agent")[1],
    }  # fmt: skip
    thread = threading.Thread(target=ask)
    thread.start()
    with (tmp_path / "agent.log").open("w") as errors:
        agent = subprocess.Popen([sys.executable, AGENT], env=environment, stderr=errors)
    try:
        # Before the agent's first report, nobody is waited for.
        await_true(Reporter.objects.exclude(bundle_sha256=None).exists)
        await_true(lambda: rotation.lagging_clusters(folder) == [])
        assert trusted(api) == {before}
        certificates.rotate(folder)
        assert rotation.why_not_use_new_authority(folder) != ""
        await_true(lambda: authority(folder) != first)
        assert trusted(api) == {certificates.bundle(folder)}
        time.sleep(4)  # reviews with the new leaf
    finally:
        stop.set()
        thread.join()
        agent.kill()
        agent.wait()
    assert (failed[:3], count[0] > 20) == ([], True)
    # The rights of the agent end there.
    headers = {"Authorization": f"Bearer {token}"}
    assert api.http.get(f"{PATHS['Secret']}/gravingdock-agent", headers=headers).status_code == 403
    assert api.http.get(PATHS[HOOKS[0]], headers=headers).status_code == 403
    assert api.http.get(f"{PATHS[HOOKS[0]]}/gravingdock", headers=headers).status_code == 200
    other = {"metadata": {"name": "other"}, "webhooks": []}
    assert api.send("POST", PATHS[HOOKS[0]], other).status_code == 201
    patch = {"headers": headers | {"Content-Type": "application/merge-patch+json"}, "json": {"webhooks": []}}
    assert api.http.patch(f"{PATHS[HOOKS[0]]}/other", **patch).status_code == 403
