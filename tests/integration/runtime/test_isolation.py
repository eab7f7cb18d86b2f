"""Alerts about pods that run and fail an isolation check of their environment, and twins that raise none."""

from __future__ import annotations

import hashlib

import orjson
import pytest

from lifecycle.alerts.models import Alert
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.core import clock
from lifecycle.inventory.models import PodSpec
from lifecycle.jobs.models import Job
from lifecycle.promotion.models import PromotionRequest
from lifecycle.runtime import drift, isolation
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import place, rule, save
from tests.factories.running import cluster, entry, report, work

pytestmark = pytest.mark.django_db
PRIVILEGED = {"securityContext": {"privileged": True}}


@pytest.fixture
def agent(dock):
    return person("agent", dock.team, "security")


@pytest.fixture
def north(dock):
    made = cluster(dock.team)
    NamespaceBinding.objects.create(cluster=made, pattern="*", environment=dock.staging)
    return made


@pytest.fixture
def image(dock):
    made = rows.image("one", config={"config": {"User": "1000"}})
    rows.push(dock.repository, made, "1.0")
    now = clock.now()
    PromotionRequest.objects.create(
        image=made, repository=dock.repository, environment=dock.staging, tag="1.0", state="succeeded", reason="x",
        finished_at=now, requested_by=dock.requester, approve_by=now,
    )  # fmt: skip
    return made


def wants(dock, mode, *checks, key="apart"):
    save(place(dock.staging), rule(key, "isolation", checks=list(checks), modes={"admission": mode}))


def pod(container=None, name="app", **fields):
    return {"containers": [{"name": name, "image": "x", **(container or {})}], **fields}


def sends(north, agent, number, spec, *entries, **more):
    """Report a pod with this spec."""
    sha = hashlib.sha256(orjson.dumps([number, spec])).hexdigest()
    with_spec = [each | {"spec": sha} for each in entries]
    report(north, agent, number, *with_spec, specs={sha: spec}, **more)


def found():
    """Return {check: (severity, mode)} of the live alerts of the kind, after a pass."""
    drift.sweep(clock.now())
    live = Alert.objects.filter(kind="isolation").exclude(state="resolved")
    return {row.rule: (row.severity, row.evidence["mode"]) for row in live}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("enforce", {"privileged": ("high", "enforce")}),
        ("warn", {"privileged": ("high", "warn")}),
        ("observe", {}),
        ("off", {}),
    ],
)
def test_the_mode_of_a_check_decides(dock, north, agent, *, mode, expected):
    wants(dock, mode, "privileged")
    sends(north, agent, 1, pod(PRIVILEGED), entry(rows.sha("nobody's")))
    assert found() == expected


def test_it_says_what_fails_where_and_what_to_do(dock, north, agent, image):
    wants(dock, "enforce", "privileged", "limits")
    sends(north, agent, 1, pod(PRIVILEGED), entry(image.digest, where=dock.repository))
    assert found() == {"privileged": ("high", "enforce"), "limits": ("medium", "enforce")}
    alert = Alert.objects.get(rule="privileged")
    assert (alert.team, alert.cluster, alert.digest) == (dock.team, north, image.digest)
    assert (alert.namespace, alert.workload) == ("shop", "Deployment/api")
    assert alert.evidence["why"] == "Not privileged: container app: Runs privileged."
    assert alert.evidence["fix"] == "Remove securityContext.privileged."


@pytest.mark.parametrize(
    ("profile", "expected"),
    [("unconfined", {"apparmor": ("high", "enforce")}), ("runtime/default", {}), ("localhost/strict", {})],
)
def test_annotations_of_the_pod_count(dock, north, agent, *, profile, expected):
    wants(dock, "enforce", "apparmor")
    annotations = {"container.apparmor.security.beta.kubernetes.io/app": profile}
    sends(north, agent, 1, pod(annotations=annotations), entry(rows.sha("nobody's")))
    assert found() == expected


def test_production_is_one_step_more_severe(dock, north, agent, image):
    wants(dock, "enforce", "privileged", "limits")
    dock.staging.is_production = True
    dock.staging.save()
    sends(north, agent, 1, pod(PRIVILEGED), entry(image.digest, where=dock.repository))
    assert found() == {"privileged": ("critical", "enforce"), "limits": ("high", "enforce")}


def test_it_closes_when_the_pod_the_rule_or_the_binding_changes(dock, north, agent, image):
    wants(dock, "enforce", "privileged")
    one = entry(image.digest, where=dock.repository)
    sends(north, agent, 1, pod(PRIVILEGED), one)
    assert found()
    sends(north, agent, 2, pod(), one)
    assert found() == {}
    sends(north, agent, 3, pod(PRIVILEGED), one)
    assert found()
    wants(dock, "observe", "privileged")
    assert found() == {}
    wants(dock, "enforce", "privileged")
    assert found()
    NamespaceBinding.objects.update(pattern="else")
    assert found() == {}
    assert {row.reason for row in Alert.objects.filter(kind="isolation")} == {drift.GONE}


def test_a_failure_belongs_to_the_image_of_its_container(dock, north, agent, image):
    wants(dock, "enforce", "privileged", "host-network")
    side = rows.image("side")
    rows.push(dock.repository, side, "2.0")
    spec = {
        "hostNetwork": True,
        "containers": [{"name": "app", "image": "x"}, {"name": "side", "image": "y", **PRIVILEGED}],
    }
    sends(
        north, agent, 1, spec, entry(image.digest, where=dock.repository),
        entry(side.digest, where=dock.repository, key="side", name="side", tag="2.0"),
    )  # fmt: skip
    assert set(found()) == {"privileged", "host-network"}
    of = {row.rule: row.digest for row in Alert.objects.filter(kind="isolation")}
    assert of == {"privileged": side.digest, "host-network": image.digest}


def test_a_finished_init_container_counts_for_the_pod(dock, north, agent, image):
    wants(dock, "enforce", "privileged")
    spec = pod() | {"initContainers": [{"name": "setup", "image": "y", **PRIVILEGED}]}
    sends(north, agent, 1, spec, entry(image.digest, where=dock.repository))
    assert set(found()) == {"privileged"}
    assert Alert.objects.get(kind="isolation").evidence["why"].endswith("init container setup: Runs privileged.")


def test_replicas_and_specs_of_one_workload_are_one_alert(dock, north, agent, image):
    wants(dock, "enforce", "privileged")
    shas, specs = [], {}
    for number in range(4):
        spec = pod(PRIVILEGED, nodeName=f"node-{number}")
        shas.append(hashlib.sha256(orjson.dumps(spec)).hexdigest())
        specs[shas[-1]] = spec
    replicas = [entry(image.digest, where=dock.repository, key=sha[:9], spec=sha) for sha in shas]
    report(north, agent, 1, *replicas, specs=specs)
    assert found()
    assert Alert.objects.filter(kind="isolation").count() == 1


@pytest.mark.parametrize(("user", "is_found"), [("", True), ("0", True), ("1000", False)])
def test_the_image_decides_where_the_pod_says_nothing(dock, north, agent, user, is_found):
    wants(dock, "enforce", "run-as-root")
    image = rows.image(f"user-{user}", config={"config": {"User": user}})
    rows.push(dock.repository, image, "1.0")
    one = entry(image.digest, where=dock.repository)
    spec = pod({"image": one["image"]}, securityContext={"runAsNonRoot": True})
    sends(north, agent, 1, spec, one)
    assert bool(found()) is is_found


def test_what_nobody_knows_is_no_alarm(dock, north, agent, image):
    wants(dock, "enforce", "privileged", "network-policy", "run-as-root")
    one = entry(image.digest, where=dock.repository)
    report(north, agent, 1, one)
    assert found() == {}  # without a spec
    nobody = entry(rows.sha("nobody's"))
    sends(north, agent, 2, pod({"image": nobody["image"]}, securityContext={"runAsNonRoot": True}), nobody)
    assert found() == {}  # the image and the network policies are not known
    sends(north, agent, 3, pod(PRIVILEGED), nobody)
    assert "privileged" in found()


@pytest.mark.parametrize(("policies", "is_found"), [(0, True), (1, False), (None, False)])
def test_a_namespace_without_network_policies(dock, north, agent, *, policies, is_found):
    wants(dock, "enforce", "network-policy")
    spaces = [{"name": "shop", "network_policies": policies}]
    sends(north, agent, 1, pod(), entry(rows.sha("nobody's")), namespaces=spaces)
    assert bool(found()) is is_found


def test_namespaces_of_the_system_are_left_out_as_at_admission(dock, north, agent, image):
    wants(dock, "enforce", "privileged")
    sends(north, agent, 1, pod(PRIVILEGED), entry(image.digest, where=dock.repository, namespace="kube-system"))
    assert found() == {}


def test_a_spec_that_is_none_hurts_nobody(dock, north, agent, image):
    wants(dock, "enforce", "privileged")
    one = entry(image.digest, where=dock.repository)
    sends(north, agent, 1, {"containers": "none"}, one)
    assert found() == {}
    sends(north, agent, 2, {"containers": [{"name": 5, "securityContext": "x"}]}, one)
    assert found() == {}


def test_a_report_alone_raises_it_and_verdicts_are_kept(dock, north, agent, image, monkeypatch):
    wants(dock, "enforce", "privileged")
    sends(north, agent, 1, pod(PRIVILEGED), entry(image.digest, where=dock.repository))
    assert Job.objects.filter(kind="drift", state=Job.State.WAITING).exists()
    work("drift")
    assert Alert.objects.filter(kind="isolation", state="open").exists()
    monkeypatch.setattr(PodSpec, "objects", None)  # no spec is read again
    assert found()


def test_kept_values_have_a_limit():
    kept: isolation._Kept[int, int] = isolation._Kept(2)
    for number in range(3):
        kept.put(number, number)
    assert [kept.get(number) for number in range(3)] == [None, 1, 2]
