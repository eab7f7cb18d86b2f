"""Admission with a real API server: what it asks, what it lets through, and what goes on while we are away."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import yaml

from config.embedded import ports
from lifecycle.admission import certificates, snapshot
from lifecycle.admission.manifest import Wish, manifest_of
from tests.factories.reviews import HOST, SECRET, content, image, pod, sha
from tests.kubernetes import Kubernetes

ROOT = Path(__file__).parents[3]
REASON = {"gravingdock.io/break-glass": "INC-7: shop is down"}
PODS = "/api/v1/namespaces/prod/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/prod/deployments"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/gravingdock/serviceaccounts",
    "Secret": "/api/v1/namespaces/gravingdock/secrets",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Deployment": "/apis/apps/v1/namespaces/gravingdock/deployments",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/gravingdock/networkpolicies",
    "ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
}


class Server:
    """The admission server as `make up` runs it, without PostgreSQL and Redis."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "admission"
        (self.port,) = ports.scratch(1)
        snapshot.write(self.folder, content())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {
            **os.environ, "GRAVINGDOCK_HOME": str(self.home), "PUBLIC_URL": "http://localhost:8470",
            "ADMISSION_FOLDER": str(self.folder),
        }  # fmt: skip
        command = [sys.executable, "-m", "config.embedded.admission", str(self.port)]
        with (self.home / "admission.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self.is_up():
            assert time.monotonic() < deadline, (self.home / "admission.log").read_text()[-2000:]
            time.sleep(0.1)

    def is_up(self) -> bool:
        try:
            context = ssl.create_default_context(cadata=certificates.bundle(self.folder))
            return httpx.get(f"https://127.0.0.1:{self.port}/livez", verify=context).status_code == 200
        except (httpx.HTTPError, ssl.SSLError):
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
            self._process = None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Kubernetes(tmp_path_factory.mktemp("kubernetes"), controllers=True)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory, cluster):
    made = Server(tmp_path_factory.mktemp("admission"))
    made.start()
    people = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "people"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "name": "people", "apiGroup": "rbac.authorization.k8s.io"}],
    }  # fmt: skip
    assert cluster.send("POST", PATHS["ClusterRoleBinding"], people).status_code == 201
    for name in ("prod", "prod-observed", "lab"):
        assert cluster.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).status_code == 201
    for document in yaml.safe_load_all(manifest(made)):
        answer = cluster.send("POST", PATHS[document["kind"]], document)
        assert answer.status_code == 201, (document["kind"], answer.text)
    cluster.wait(lambda: create(cluster, PODS, pod("nginx"), dryRun="All").status_code == 403)
    yield made
    made.stop()


def manifest(server):
    wish = Wish(
        "north", f"https://127.0.0.1:{server.port}", "https://g.example", is_enforcing=True, is_mutating=True,
        bundle=certificates.bundle(server.folder),
    )  # fmt: skip
    text = manifest_of(wish).replace("${ADMISSION_SECRET}", SECRET)
    return text.replace("${AGENT_TOKEN}", "gdk_rob_x").replace("${AGENT_IMAGE}", "gravingdock:local")


def create(cluster, path, given, user="alice", **query):
    return cluster.send("POST", path, given, user=user, **query)


def named(given, name):
    return {**given, "metadata": {**given["metadata"], "name": name}}


def deployment(name, reference, annotations=None):
    template = pod(reference, annotations=annotations or {})
    template["metadata"] = {"labels": {"app": name}, "annotations": annotations or {}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_pods_are_let_in_by_their_digest(cluster, server):
    good = create(cluster, PODS, named(pod(image("good")), "good"))
    assert good.status_code == 201, good.text
    refused = create(cluster, PODS, named(pod(image("known")), "known"))
    assert refused.status_code == 403
    message = refused.json()["message"]
    assert ("not_promoted" in message, "/why/" in message, SECRET in message) == (True, True, False)
    tagged = create(cluster, PODS, named(pod(f"{HOST}/shop/api:good"), "tagged"))
    assert tagged.json()["spec"]["containers"][0]["image"] == f"{HOST}/shop/api:good@{sha('good')}"


def test_volumes_and_debug_containers_are_judged(cluster, server):
    volumes = [{"name": "v", "image": {"reference": image("bad")}}]
    refused = create(cluster, PODS, named(pod(image("good"), volumes=volumes), "volume"))
    assert (refused.status_code, "volume v" in refused.json()["message"]) == (403, True)
    assert create(cluster, PODS, named(pod(image("good")), "debugged")).status_code == 201

    def debug(reference):
        added = {"spec": {"ephemeralContainers": [{"name": "debug", "image": reference}]}}
        return cluster.send("PATCH", f"{PODS}/debugged/ephemeralcontainers", added, user="alice", kind=STRATEGIC)

    assert (debug(image("known")).status_code, debug(image("good")).status_code) == (403, 200)


@pytest.mark.parametrize(
    ("path", "kind", "api"),
    [
        ("/apis/apps/v1/namespaces/prod/statefulsets", "StatefulSet", "apps/v1"),
        ("/apis/apps/v1/namespaces/prod/daemonsets", "DaemonSet", "apps/v1"),
        ("/apis/apps/v1/namespaces/prod/replicasets", "ReplicaSet", "apps/v1"),
        ("/apis/apps/v1/namespaces/prod/deployments", "Deployment", "apps/v1"),
    ],
)
def test_person_is_refused_where_they_are(cluster, server, path, kind, api):
    def given(reference):
        return {**deployment("x", reference), "kind": kind, "apiVersion": api}

    for reference, status in ((image("known"), 403), (image("good"), 201)):
        document = given(reference)
        if kind == "DaemonSet":
            del document["spec"]["replicas"]
        answer = create(cluster, path, document, dryRun="All")
        assert (answer.status_code, kind) == (status, kind), answer.text


def test_jobs_and_templates_are_judged(cluster, server):
    for reference, status in ((image("known"), 403), (image("good"), 201)):
        template, running = pod(reference, restartPolicy="Never"), pod(reference)
        running["metadata"] = {"labels": {"app": "x"}}
        template["metadata"] = {"labels": {"app": "x"}}
        job = {"metadata": {"name": "j"}, "spec": {"template": template}}
        cron = {"metadata": {"name": "c"}, "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job["spec"]}}}
        controller = {
            "metadata": {"name": "r"},
            "spec": {"selector": {"app": "x"}, "template": running},
        }
        stored = {"metadata": {"name": "p"}, "template": pod(reference)}
        found = [
            create(cluster, path, given, dryRun="All").status_code
            for path, given in (
                ("/apis/batch/v1/namespaces/prod/jobs", job),
                ("/apis/batch/v1/namespaces/prod/cronjobs", cron),
                ("/api/v1/namespaces/prod/replicationcontrollers", controller),
                ("/api/v1/namespaces/prod/podtemplates", stored),
            )
        ]
        assert found == [status] * 4


def test_breakglass_reaches_the_pods(cluster, server):
    given = deployment("broken", image("known"), REASON)
    refused = create(cluster, DEPLOYMENTS, given, user="alice")
    assert (refused.status_code, "breakglass_not_permitted" in refused.json()["message"]) == (403, True)
    assert create(cluster, DEPLOYMENTS, given, user="kim").status_code == 201
    found = cluster.wait(lambda: cluster.send("GET", PODS, labelSelector="app=broken").json()["items"], 60)
    assert found[0]["spec"]["containers"][0]["image"] == image("known")


def test_warnings_are_shown_where_nothing_is_refused(cluster, server):
    warned = create(cluster, "/api/v1/namespaces/lab/pods", named(pod(image("known")), "warned"))
    assert (warned.status_code, "not_promoted" in warned.headers["Warning"]) == (201, True)
    quiet = create(cluster, "/api/v1/namespaces/prod-observed/pods", named(pod(image("known")), "quiet"))
    assert (quiet.status_code, "Warning" in quiet.headers) == (201, False)


def test_excluded_namespaces_are_not_asked_about(cluster, server):
    answer = create(cluster, "/api/v1/namespaces/kube-system/pods", named(pod("nginx"), "system"))
    assert answer.status_code == 201


def test_labels_and_scaling_go_on_while_we_are_away(cluster, server):
    assert create(cluster, DEPLOYMENTS, deployment("steady", image("good"))).status_code == 201
    assert create(cluster, PODS, named(pod(image("good")), "labelled")).status_code == 201
    server.stop()
    try:
        label = {"metadata": {"labels": {"tier": "one"}}}
        for path in (f"{DEPLOYMENTS}/steady", f"{PODS}/labelled"):
            assert cluster.send("PATCH", path, label, user="alice", kind=MERGE).status_code == 200
        scaled = cluster.send("PATCH", f"{DEPLOYMENTS}/steady", {"spec": {"replicas": 0}}, user="alice", kind=MERGE)
        assert scaled.status_code == 200
        new = create(cluster, PODS, named(pod(image("good")), "new"))
        assert new.status_code == 500  # failurePolicy: Fail
    finally:
        server.start()
    assert cluster.wait(lambda: create(cluster, PODS, pod(image("good")), dryRun="All").status_code == 201, 30)


def test_no_review_fails_while_leaf_and_authority_change(cluster, server):
    stop, failed, count = threading.Event(), [], [0]

    def ask():
        while not stop.is_set():
            answer = create(cluster, PODS, pod(image("good")), dryRun="All")
            count[0] += 1
            if answer.status_code != 201:
                failed.append(answer.text)

    def trust():
        for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
            present = cluster.send("GET", f"{PATHS[kind]}/gravingdock").json()
            for hook, new in zip(present["webhooks"], documents()[kind]["webhooks"], strict=True):
                hook["clientConfig"]["caBundle"] = new["clientConfig"]["caBundle"]
            assert cluster.send("PUT", f"{PATHS[kind]}/gravingdock", present).status_code == 200
        time.sleep(2)  # the API server takes up a changed configuration within a second

    def documents():
        return {row["kind"]: row for row in yaml.safe_load_all(manifest(server))}

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        names = certificates.state(server.folder).names
        certificates.rotate(server.folder)
        trust()
        assert certificates.use_new_authority(server.folder, names)
        assert certificates.reload_server(server.folder)
        time.sleep(4)
    finally:
        stop.set()
        thread.join()
    assert (failed[:3], count[0] > 20) == ([], True)
