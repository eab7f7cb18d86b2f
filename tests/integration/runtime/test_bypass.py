"""drift.bypass: each case in which it is true has twins in which it cannot be known, and no alarm is raised."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from lifecycle.admission.loading import load_spool
from lifecycle.admission.models import AdmissionCount, AdmissionDecision, AdmissionLoad
from lifecycle.admission.recording import together_key
from lifecycle.alerts.models import Alert
from lifecycle.clusters.models import Cluster, NamespaceBinding
from lifecycle.core import clock
from lifecycle.inventory.models import Reporter, RunningContainer
from lifecycle.promotion.models import PromotionRequest
from lifecycle.runtime import drift
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, entry, report

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def agent(dock):
    return person("agent", dock.team, "security")


@pytest.fixture
def image(dock):
    made = rows.image("one")
    rows.push(dock.repository, made, "1.0")
    now = clock.now()
    PromotionRequest.objects.create(
        image=made, repository=dock.repository, environment=dock.staging, tag="1.0", state="succeeded", reason="x",
        finished_at=now, requested_by=dock.requester, approve_by=now,
    )  # fmt: skip
    return made


@pytest.fixture
def north(dock):
    now = clock.now()
    made = cluster(dock.team, mode="enforce", enforced_at=now - 3 * DAY, bound_at=now - 3 * DAY)
    NamespaceBinding.objects.create(
        cluster=made, pattern="*", environment=dock.staging, enforced_at=made.enforced_at
    )  # fmt: skip
    AdmissionLoad.objects.create(name="a", loaded_until=now)
    return made


@pytest.fixture
def runs(north, agent, image, dock):
    """Let a Deployment run for an hour, in a cluster whose agent has reported for two days."""
    report(north, agent, 1, entry(image.digest, where=dock.repository))
    Reporter.objects.update(first_at=clock.now() - 2 * DAY)
    RunningContainer.objects.update(since=clock.now() - HOUR)
    return north


def alarmed():
    """Return the live alerts of the kind, after a pass."""
    drift.sweep(clock.now())
    return {row.workload: row.severity for row in Alert.objects.filter(kind="drift.bypass").exclude(state="resolved")}


def count(where, name="api", kind="Deployment", ago=HOUR, **more):
    values = {"namespace": "shop", "workload_kind": kind, "workload_name": name, "count": 1} | more
    return AdmissionCount.objects.create(cluster=where, minute=clock.now() - ago, **values)


def test_what_runs_without_a_decision_is_found_and_closes_with_one(runs):
    assert alarmed() == {"Deployment/api": "high"}
    assert alarmed() == {"Deployment/api": "high"}
    count(runs)  # it was loaded late
    assert alarmed() == {}


@pytest.mark.parametrize(
    ("more", "is_found"),
    [
        ({}, False),
        ({"ago": 6 * DAY}, False),  # it waited for a node
        ({"ago": 9 * DAY}, True),  # the decision about another pod, long ago
        ({"name": "apis"}, True),
        ({"namespace": "else"}, True),
    ],
)
def test_a_decision_counts_for_its_workload_and_time(runs, more, is_found):
    count(runs, **more)
    assert bool(alarmed()) is is_found


def test_a_decision_counts_for_its_images(runs, image):
    count(runs, judged=[rows.sha("another")])
    assert alarmed() == {"Deployment/api": "high"}
    AdmissionCount.objects.update(judged=[rows.sha("another"), image.digest])
    assert alarmed() == {}
    AdmissionCount.objects.update(judged=[rows.sha("another")])
    count(runs, judged=[image.digest], ago=2 * HOUR)  # a Deployment, and its Pods later
    assert alarmed() == {}


@pytest.mark.parametrize("decided", ["index", "platform"])
def test_an_index_and_its_platform_are_one_image(runs, agent, image, dock, decided):
    both = rows.index("both", image, rows.image("arm", architecture="arm64"))
    rows.push(dock.repository, both, "2.0")
    if decided == "platform":
        report(runs, agent, 2, entry(both.digest, where=dock.repository, key="b", tag="2.0"))
        RunningContainer.objects.filter(until=None).update(since=clock.now() - HOUR)
    assert alarmed()
    count(runs, judged=[{"index": both, "platform": image}[decided].digest])
    assert alarmed() == {}


def test_a_foreign_image_is_judged_by_its_reference(runs, agent):
    NamespaceBinding.objects.update(allowed_hosts=["docker.io"])
    report(runs, agent, 2, entry(rows.sha("theirs"), key="b"))
    RunningContainer.objects.filter(until=None).update(since=clock.now() - HOUR)
    count(runs, judged=["docker.io/library/stranger:2.0"])
    assert alarmed()
    AdmissionCount.objects.update(judged=["docker.io/library/stranger:1.0"])
    assert alarmed() == {}


def test_refusals_beyond_those_with_a_row_let_nothing_in(runs):
    count(runs, code="policy")
    assert alarmed()
    AdmissionCount.objects.update(code="")
    assert alarmed() == {}


def test_a_flood_of_workloads_hides_none_that_was_not_decided(runs, image):
    """Beyond WORKLOADS_MAX in a minute, workloads are counted together: each of their images is known by its hash."""
    others = [together_key("shop", f"flood-{number}", image.digest) for number in range(3)]
    others += [together_key("shop", "api", rows.sha("another")), together_key("else", "api", image.digest)]
    row = count(runs, namespace="", name="", kind="a7", judged=others)
    assert alarmed() == {"Deployment/api": "high"}
    row.judged = [*others, together_key("shop", "api", image.digest)]
    row.save()
    assert alarmed() == {}
    row.code = "policy"  # they were refused
    row.save()
    assert alarmed()
    row.code, row.judged = "", None  # there were too many to name them
    row.save()
    assert alarmed()


@pytest.mark.parametrize(("result", "is_found"), [("broke_glass", False), ("would_refuse", False), ("refused", True)])
def test_a_decision_with_a_row_of_its_own(runs, image, *, result, is_found):
    row = AdmissionDecision.objects.create(
        cluster=runs, namespace="shop", workload_kind="Deployment", workload_name="api", key="k", mode="enforce",
        result=result, code="policy", snapshot_number=1, at=clock.now() - HOUR,
    )  # fmt: skip
    assert bool(alarmed()) is is_found
    row.judged = [rows.sha("another")]
    row.save()
    assert alarmed()
    row.judged = [image.digest]
    row.save()
    assert bool(alarmed()) is is_found


@pytest.mark.parametrize(
    ("kind", "name", "decided"),
    [("Pod", "web-x1y2z", "web-"), ("ReplicaSet", "web-5f6d", "web"), ("Job", "night-29401", "night")],
)
def test_a_workload_is_found_under_the_name_that_it_had_at_its_creation(runs, kind, name, decided):
    RunningContainer.objects.update(workload_kind=kind, workload_name=name)
    runs_as = Alert.objects.filter(kind="drift.bypass").exclude(state="resolved")
    from lifecycle.runtime.applying import refresh_images

    refresh_images(runs, clock.now())
    RunningContainer.objects.update(since=clock.now() - HOUR)
    count(runs, name=decided, kind="Pod")
    drift.sweep(clock.now())
    assert not runs_as.exists()
    AdmissionCount.objects.update(workload_name=f"{decided}other")
    drift.sweep(clock.now())
    assert runs_as.exists()


@pytest.mark.parametrize(
    "unknown",
    [
        lambda now: NamespaceBinding.objects.update(enforced_at=None),
        lambda now: Cluster.objects.update(kind="docker"),
        lambda now: NamespaceBinding.objects.update(enforced_at=now - HOUR),  # the pod may be older
        lambda now: Cluster.objects.update(bound_at=now - HOUR),
        lambda now: NamespaceBinding.objects.update(pattern="other"),
        lambda now: Reporter.objects.update(first_at=now - HOUR),  # the agent did not see it start
        lambda now: Reporter.objects.update(is_import=True),
        lambda now: AdmissionLoad.objects.all().delete(),  # nobody loads decisions
        lambda now: AdmissionLoad.objects.create(name="b", loaded_until=now - 2 * HOUR),  # another machine lags
        lambda now: AdmissionLoad.objects.update(lost_at=now - HOUR),
        lambda now: RunningContainer.objects.update(since=now - timedelta(minutes=5)),  # the decision can still come
        lambda now: RunningContainer.objects.update(since=now - 25 * DAY),  # its decision may be deleted
        lambda now: RunningContainer.objects.update(namespace="kube-system"),
    ],
)
def test_nothing_is_said_of_what_cannot_be_known(runs, unknown):
    unknown(clock.now())
    if RunningContainer.objects.filter(namespace="kube-system").exists():
        from lifecycle.runtime.applying import refresh_images

        refresh_images(runs, clock.now())
    assert alarmed() == {}


def test_a_new_image_in_a_pod_that_was_there_before_is_not_a_new_pod(runs, image):
    container = RunningContainer.objects.get()
    container.pk, container.until, container.since = None, clock.now() - HOUR, clock.now() - 9 * DAY
    container.save(force_insert=True)
    assert alarmed() == {}


def test_an_alarm_stays_while_it_runs_although_bindings_change_and_time_passes(runs, agent):
    assert alarmed()
    Cluster.objects.update(bound_at=clock.now())
    RunningContainer.objects.update(since=clock.now() - 25 * DAY)
    assert alarmed()
    report(runs, agent, 2)
    assert alarmed() == {}


def test_the_loader_says_how_far_it_is_and_what_was_lost(db, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    load_spool(tmp_path)
    row = AdmissionLoad.objects.get()
    assert timedelta(seconds=15) < clock.now() - row.loaded_until < timedelta(minutes=1)
    assert row.lost_at is None
    (spool / "1.jsonl").write_text(json.dumps({"dropped": 3}) + "\n")
    load_spool(tmp_path)
    row.refresh_from_db()
    assert row.lost_at is not None
