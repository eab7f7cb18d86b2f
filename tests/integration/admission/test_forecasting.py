"""What enforce would refuse: shown before the mode changes, in the API, on pages and in the command line."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest

from lifecycle.admission.forecasting import forecast
from lifecycle.admission.models import AdmissionDebt, AdmissionEntry
from lifecycle.clusters import services as clusters
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.core.errors import NotPermitted
from lifecycle.inventory.models import RunningContainer
from lifecycle.promotion.models import PromotionRequest
from lifecycle.runtime import accepting
from tests.clients import Caller, browser
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import place, rule, save
from tests.factories.running import document, entry, work

pytestmark = pytest.mark.django_db
TEXT = "INC-7: shop is down"
PLAIN = {"containers": [{"name": "app", "securityContext": {"privileged": True}}]}
NOTED = PLAIN | {"annotations": {"gravingdock.io/break-glass": TEXT}}
SETTINGS = {"mode": "enforce", "tags": "resolve", "unbound": "observe", "stale_after_hours": "24"}


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def north(dock, owner, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("lifecycle.admission.queries.READ_AT_ONCE", "SELECT 1")
    settings.ADMISSION_FOLDER = str(tmp_path)
    made = clusters.create_cluster(dock.team, "north", actor=owner, mode="observe")
    wishes = [BindingWish("prod", "staging"), BindingWish("lab", "staging", "observe")]
    clusters.set_bindings("north", wishes, actor=owner)
    good = rows.image("good")
    for name, image in (("good", good), ("known", rows.image("known"))):
        rows.push(dock.repository, image, name)
    PromotionRequest.objects.create(
        image=good, repository=dock.repository, environment=dock.staging, tag="1.0", state="succeeded",
        reason="x", requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
    )  # fmt: skip
    return made


def runs(dock, name, workload, *, namespace="prod", spec=None, digest="", **more):
    """Return the entry of a container that runs an image by digest."""
    sha = hashlib.sha256(json.dumps(spec).encode()).hexdigest() if spec else ""
    made = entry(
        digest or rows.sha(name), key=f"{namespace}-{workload}/main/app", where=dock.repository, namespace=namespace,
        workload={"kind": "Deployment", "name": workload}, spec=sha, **more,
    )  # fmt: skip
    return made | {"image": f"{rows.registry().host}/shop/api@{rows.sha(name)}"}


def report(dock, *entries, specs=(), sequence=1):
    named = {hashlib.sha256(json.dumps(spec).encode()).hexdigest(): spec for spec in specs}
    body = json.dumps(document(sequence, *entries, specs=named)).encode()
    accepting.accept("north", body, actor=person("agent", dock.team, "security"))
    work()


def shown(rows_):
    return [(row.workload, [image.code.value for image in row.images]) for row in rows_]


def test_what_runs_is_judged_as_its_pods_will_be(dock, owner, north):
    report(
        dock, runs(dock, "good", "web"), runs(dock, "known", "api"), runs(dock, "known", "test", namespace="lab"),
        runs(dock, "known", "dns", namespace="kube-system"), runs(dock, "known", "loose", namespace="unbound"),
    )  # fmt: skip
    found = forecast(north, actor=owner)
    assert shown(found.refused) == [("Deployment prod/api", ["not_promoted"])]
    assert (found.workloads, found.containers, found.annotated) == (4, 4, ())
    clusters.change_cluster("north", actor=owner, unbound="deny")
    assert [row.workload for row in forecast(north, actor=owner).refused] == [
        "Deployment prod/api", "Deployment unbound/loose",
    ]  # fmt: skip
    assert forecast(north, actor=owner).refused[0].images[0].reference.endswith(rows.sha("known"))
    with pytest.raises(NotPermitted):
        forecast(north, actor=dock.approver)


def test_annotations_from_before_open_nothing_and_are_listed(dock, owner, north):
    report(dock, runs(dock, "known", "api", spec=NOTED), runs(dock, "good", "web", spec=PLAIN), specs=(NOTED, PLAIN))
    assert shown(forecast(north, actor=owner).refused) == [("Deployment prod/api", ["not_promoted"])]
    (row,) = forecast(north, actor=owner).annotated
    assert (row.workload, row.breakglass, row.breakglass_counts) == ("Deployment prod/api", TEXT, False)
    clusters.change_cluster("north", actor=owner, mode="enforce")
    now, place = clock.now(), {"namespace": "prod", "workload_kind": "Deployment", "workload_name": "api"}
    debt = AdmissionDebt.objects.create(
        cluster=north, **place, digests=[rows.sha("known")], fingerprint="f", decision_key="k", reason=TEXT,
        user_name="kim", opened_at=now, last_at=now, due_at=now + timedelta(hours=24),
    )  # fmt: skip
    AdmissionEntry.objects.create(
        cluster=north, **place, user_name="kim", entered_at=now, debt=debt, fingerprint="f",
        text_sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
    )  # fmt: skip
    north.refresh_from_db()
    found = forecast(north, actor=owner)
    assert (found.refused, found.annotated[0].breakglass_counts) == ((), True)


def test_settings_of_pods_are_judged_where_checks_enforce(dock, owner, north):
    report(dock, runs(dock, "good", "web", spec=PLAIN), specs=(PLAIN,))
    assert forecast(north, actor=owner).refused == ()
    save(place(dock.staging), rule("isolation", "isolation", modes={"admission": "enforce"}, checks=["privileged"]))
    (row,) = forecast(north, actor=owner).refused
    assert ([image.code.value for image in row.images], row.images[0].reference) == (["isolation"], "privileged")


def test_what_is_not_known_is_said(dock, owner, north):
    assert "Nobody has reported" in forecast(north, actor=owner).unknown[0]
    report(dock, runs(dock, "good", "web"))
    said = forecast(north, actor=owner).unknown
    assert ("1 containers were reported without their pod spec" in said[0], "scaled to zero" in said[1]) == (True, True)


def test_hidden_images_look_like_unknown_ones(dock, owner, north):
    other = rows.team("other")
    secret = rows.image("secret")
    rows.push(rows.repository("other/app", other), secret, "1.0")
    report(dock, runs(dock, "secret", "api"), runs(dock, "absent", "web"))
    codes = {row.workload_name: row.images[0].code.value for row in forecast(north, actor=owner).refused}
    assert codes == {"api": "unknown_digest", "web": "unknown_digest"}
    rows.user(owner.username, "viewer", of=other)
    codes = {row.workload_name: row.images[0].code.value for row in forecast(north, actor=owner).refused}
    assert codes == {"api": "not_promoted", "web": "unknown_digest"}


def test_page_asks_before_enforcement_begins(dock, owner, north):
    report(dock, runs(dock, "known", "api", spec=NOTED), specs=(NOTED,))
    client = browser(owner)
    asked = client.post("/clusters/north/", SETTINGS | {"revision": "2", "breakglass_subjects": "user:kim"})
    text = asked.content.decode()
    assert (asked.status_code, Cluster.objects.get().mode) == (200, "observe")
    for part in ("Deployment prod/api", "not_promoted", TEXT, "Enforce now?", "user:kim"):
        assert part in text
    assert client.post("/clusters/north/", SETTINGS | {"revision": "2", "confirmed": "yes"}).status_code == 302
    assert Cluster.objects.get().mode == "enforce"
    assert client.post("/clusters/north/", SETTINGS | {"revision": "3"}).status_code == 302  # it enforces already
    assert "Enforce now?" not in client.get("/clusters/north/forecast/").content.decode()


def test_api_and_command_line_say_it_first(dock, owner, north, run):
    report(dock, runs(dock, "known", "api", spec=NOTED), specs=(NOTED,))
    answer = Caller(owner).get("clusters/north/forecast/").json()
    assert (answer["refused_count"], answer["annotated_count"], answer["workloads"]) == (1, 1, 1)
    (row,) = answer["refused"]
    assert (row["workload_name"], row["images"][0]["code"], row["breakglass"]) == ("api", "not_promoted", TEXT)
    code, out, err = run(owner, "cluster", "set", "north", "--mode", "enforce")
    assert (code, "Deployment prod/api" in out, "add --yes" in err) == (3, True, True)
    assert Cluster.objects.get().mode == "observe"
    assert run(owner, "cluster", "forecast", "north")[0] == 3
    assert run(owner, "cluster", "set", "north", "--mode", "enforce", "--yes")[0] == 0
    assert Cluster.objects.get().mode == "enforce"
    RunningContainer.objects.update(until=clock.now())
    assert run(owner, "cluster", "forecast", "north", "--json")[0] == 0
    clusters.change_cluster("north", actor=owner, mode="observe")
    assert run(owner, "cluster", "set", "north", "--mode", "enforce")[0] == 0
