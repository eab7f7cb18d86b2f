"""Deleting a cluster: what waits for it, what ends with it, and what stays known."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from lifecycle.admission.ending import HISTORY_KEPT, delete_cluster, forget_clusters, what_ends_with
from lifecycle.admission.models import AdmissionDebt, AdmissionDecision
from lifecycle.admission.queries import snapshot_content
from lifecycle.admission.snapshot import Snapshot
from lifecycle.alerts.models import Alert
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services.teams import contents_of, why_not_delete_team
from lifecycle.clusters import services
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.queries import cluster_with_secret
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, NotFound, NotPermitted, StaleVersion
from lifecycle.inventory.models import RunningContainer, RunningImage, RuntimeReport
from lifecycle.runtime import accepting, drift
from tests.clients import Caller, browser
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import document, entry, report, work

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def agent(dock):
    return person("agent", dock.team, "security")


@pytest.fixture
def north(dock, owner):
    made = services.create_cluster(dock.team, "north", actor=owner)
    services.set_bindings("north", [BindingWish("shop", "staging")], actor=owner)
    return made


def owe(cluster):
    return AdmissionDebt.objects.create(
        cluster=cluster, digests=["sha256:a"], fingerprint="0" * 64, decision_key="k", reason="INC-7",
        opened_at=clock.now(), last_at=clock.now(), due_at=clock.now(),
    )  # fmt: skip


def test_what_runs_there_ends_and_stays_known(dock, owner, agent, north):
    _, secret = services.create_secret("north", "admission", actor=owner)
    report(north, agent, 1, entry(rows.sha("stranger")))
    drift.sweep(clock.now())
    assert Alert.objects.filter(cluster=north).exclude(state="resolved").exists()
    assert what_ends_with(north) == {
        "bindings": 1, "secrets": 1, "running_images": 1, "running_containers": 1, "past_images": 0,
        "alerts": Alert.objects.filter(cluster=north).exclude(state="resolved").count(), "decisions": 0,
    }  # fmt: skip
    delete_cluster("north", actor=owner)
    assert not RunningContainer.objects.filter(until=None).exists()
    (image,) = RunningImage.objects.all()
    assert (image.until is not None, image.cluster.slug) == (True, "north")
    assert cluster_with_secret("north", secret, "admission") is None
    assert "north" not in Snapshot.of(snapshot_content(1)[0]).clusters
    drift.sweep(clock.now())
    assert not Alert.objects.filter(cluster=north).exclude(state="resolved").exists()
    api = Caller(owner)
    assert [api.get(f"clusters/{path}").status_code for path in ("north/", "north/bindings/")] == [404, 404]
    assert api.get("clusters/").json()["results"] == []
    then = clock.now().isoformat()
    assert api.get("running/", cluster="north", at=image.since.isoformat()).json()["results"] != []
    assert api.get("running/", cluster="north", at=then).json()["results"] == []
    with pytest.raises(Conflict):
        services.create_cluster(dock.team, "north", actor=owner)
    event = AuditEvent.objects.get(action="cluster.deleted")
    assert (event.details["slug"], event.details["running_containers"]) == ("north", 1)


def test_late_reports_bring_nothing_back(owner, agent, north):
    delete_cluster("north", actor=owner)
    with pytest.raises(NotFound):
        report(north, agent, 1, entry(rows.sha("one")))
    assert not RuntimeReport.objects.exists()


def test_reports_that_wait_are_applied_to_its_history(dock, owner, agent, north):
    report(north, agent, 1, entry(rows.sha("old")), entry(rows.sha("same"), key="same/main/app"))
    report(north, agent, 1, entry(rows.sha("host"), key="host/main/app"), reporter="host-1", boot="h")
    waiting = (entry(rows.sha("same"), key="same/main/app"), entry(rows.sha("new"), key="new/main/app"))
    accepting.accept("north", json.dumps(document(2, *waiting)).encode(), actor=agent)
    accepting.accept("north", json.dumps(document(3, *waiting[1:])).encode(), actor=agent)
    delete_cluster("north", actor=owner)
    ended_at = Cluster.objects.get().ended_at
    assert RunningContainer.objects.filter(until=ended_at).count() == 3
    work()
    assert not RuntimeReport.objects.filter(applied_at=None).exists()
    for model in (RunningContainer, RunningImage):
        ends = dict(model.objects.values_list("digest", "until"))
        assert {name: ends[rows.sha(name)] < ended_at for name in ("old", "same")} == {"old": True, "same": True}
        assert {ends[rows.sha(name)] for name in ("host", "new")} == {ended_at}
        assert (len(ends), model.objects.count()) == (4, 4)
    assert set(RunningImage.objects.values_list("environment__slug", flat=True)) == {"staging"}


def test_enforcing_clusters_and_open_debts_are_not_deleted(dock, owner, north):
    services.change_cluster("north", actor=owner, mode="enforce")
    with pytest.raises(Conflict, match="enforces"):
        delete_cluster("north", actor=owner)
    services.change_cluster("north", actor=owner, mode="observe")
    services.set_bindings("north", [BindingWish("shop", "staging", "enforce")], actor=owner)
    with pytest.raises(Conflict, match="enforces"):
        delete_cluster("north", actor=owner)
    services.set_bindings("north", [], actor=owner)
    debt = owe(north)
    with pytest.raises(Conflict, match="wait for their review"):
        delete_cluster("north", actor=owner)
    debt.delete()
    with pytest.raises(NotPermitted):
        delete_cluster("north", actor=dock.approver)
    with pytest.raises(NotFound):
        delete_cluster("north", actor=dock.outsider)
    with pytest.raises(StaleVersion):
        delete_cluster("north", actor=owner, revision=1)
    delete_cluster("north", actor=owner)
    assert Cluster.objects.get().ended_at is not None


def test_history_goes_later_and_then_the_team_may_go(dock, owner, agent, north):
    report(north, agent, 1, entry(rows.sha("one")))
    AdmissionDecision.objects.create(cluster=north, key="k", mode="observe", snapshot_number=1, at=clock.now())
    delete_cluster("north", actor=owner)
    root = person("root")
    root.is_superuser = True
    assert contents_of(dock.team)["clusters"] == 1
    assert "1 cluster" in str(why_not_delete_team(root, dock.team))
    assert forget_clusters(clock.now()) == 0
    assert forget_clusters(clock.now() + HISTORY_KEPT + timedelta(minutes=1)) == 1
    assert (Cluster.objects.count(), RunningImage.objects.count(), contents_of(dock.team)["clusters"]) == (0, 0, 0)


def test_page_asks_for_the_name(dock, owner, north):
    client = browser(owner)
    assert "/clusters/north/delete/" in client.get("/clusters/north/").content.decode()
    page = client.get("/clusters/north/delete/").content.decode()
    assert ("kubectl delete validatingwebhookconfiguration" in page, "90 days" in page) == (True, True)
    refused = client.post("/clusters/north/delete/", {"slug": "south", "revision": "2"})
    assert (refused.status_code, "not the short name" in refused.content.decode()) == (422, True)
    assert client.post("/clusters/north/delete/", {"slug": "north", "revision": "1"}).status_code == 422
    owe(north)
    assert "wait for their review" in client.get("/clusters/north/delete/").content.decode()
    assert client.post("/clusters/north/delete/", {"slug": "north", "revision": "2"}).status_code == 422
    AdmissionDebt.objects.all().delete()
    assert client.post("/clusters/north/delete/", {"slug": "north", "revision": "2"}).status_code == 302
    assert client.get("/clusters/north/").status_code == 404
    assert "/clusters/north/delete/" not in browser(dock.approver).get("/clusters/").content.decode()


def test_api_and_command_line(owner, north, run):
    api = Caller(owner)
    found = api.get("clusters/north/contents/").json()
    assert (found["bindings"], found["why_not_delete"]) == (1, "")
    owe(north)
    assert "review" in api.get("clusters/north/contents/").json()["why_not_delete"]
    assert api.delete("clusters/north/").status_code == 409
    AdmissionDebt.objects.all().delete()
    assert api.delete("clusters/north/?revision=1").status_code == 412
    assert api.delete("clusters/north/?revision=x").status_code == 400
    code, _, err = run(owner, "cluster", "delete", "north")
    assert (code, "add --yes" in err, Cluster.objects.get().ended_at) == (2, True, None)
    assert run(owner, "cluster", "delete", "north", "--yes")[0] == 0
    assert Cluster.objects.get().ended_at is not None
    assert api.delete("clusters/north/").status_code == 404
