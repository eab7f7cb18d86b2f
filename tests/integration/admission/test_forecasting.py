"""What enforce would refuse: shown before the mode changes, in the API, on pages and in the command line."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest

from lifecycle.admission.forecasting import forecast, forecast_of_bindings
from lifecycle.admission.models import AdmissionDebt, AdmissionEntry
from lifecycle.audit.models import AuditEvent
from lifecycle.clusters import services as clusters
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.core.errors import NotPermitted
from lifecycle.inventory.models import PodSpec, RunningContainer, RuntimeReport
from lifecycle.promotion.models import PromotionRequest
from lifecycle.runtime import accepting
from lifecycle.runtime.services import tidy
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


def sha_of(spec):
    return hashlib.sha256(json.dumps(spec).encode()).hexdigest()


def template(name, spec, kind="CronJob", namespace="prod"):
    return {"namespace": namespace, "kind": kind, "name": name, "spec": sha_of(spec)}


def named(image, **more):
    return {"containers": [{"name": "app", "image": f"{rows.registry().host}/shop/api@{rows.sha(image)}"} | more]}


@pytest.mark.parametrize(
    "kind",
    ["ReplicationController", "PodTemplate", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"],
)
def test_templates_without_pods_are_judged_too(dock, owner, north, kind):
    bad, good = named("known"), named("good")
    noted = named("good") | {"annotations": {"gravingdock.io/break-glass": TEXT}}
    placeholder = {"containers": [{"name": "later", "image": "auto"}, *good["containers"]]}
    specs = {sha_of(spec): spec for spec in (bad, good, noted, placeholder)}
    templates = [
        template("night", bad, kind), template("fine", good, kind), template("noted", noted, kind),
        template("web", bad, "Deployment"), template("dns", bad, kind, "kube-system"),
        template("mesh", placeholder, kind),
    ]  # fmt: skip
    body = document(1, runs(dock, "good", "web"), specs=specs, templates=templates)
    accepting.accept("north", json.dumps(body).encode(), actor=person("agent", dock.team, "security"))
    work()
    found = forecast(north, actor=owner)
    assert shown(found.refused) == [(f"{kind} prod/night", ["not_promoted"])]  # web runs: what it runs counts
    assert [row.workload for row in found.annotated] == [f"{kind} prod/noted"]
    assert (found.workloads, found.templates, found.containers) == (5, 4, 1)
    assert not any("Templates" in sentence for sentence in found.unknown)
    save(place(dock.staging), rule("isolation", "isolation", modes={"admission": "enforce"}, checks=["run-as-root"]))
    assert "isolation" in {image.code.value for row in forecast(north, actor=owner).refused for image in row.images}


def test_templates_are_replaced_by_the_next_report_that_names_them(dock, owner, north):
    bad = named("known")
    agent = person("agent", dock.team, "security")

    def told(sequence, **more):
        body = document(sequence, specs={sha_of(bad): bad}, kind="full" if sequence == 1 else "delta", **more)
        accepting.accept("north", json.dumps(body).encode(), actor=agent)
        work()
        return [row.workload_name for row in forecast(north, actor=owner).refused]

    assert told(1, templates=[template("one", bad), template("two", bad)]) == ["one", "two"]
    assert told(2) == ["one", "two"]  # it names none: nothing is said
    assert told(3, templates=[template("two", bad), {"name": "bad"}]) == ["two"]
    assert RuntimeReport.objects.get(sequence=3).refused == [
        {"pointer": "/templates/1/spec", "why": "Must be a sha256 in 64 hex digits, a key of specs."}
    ]
    PodSpec.objects.update(seen_at=clock.now() - timedelta(days=400))
    tidy(clock.now())
    assert told(4) == ["two"]  # its skeleton stays
    assert told(5, templates=[]) == []


BOUND = [BindingWish("prod", "staging", "enforce"), BindingWish("lab", "staging", "observe")]


def test_bindings_that_begin_to_enforce_are_forecast(dock, owner, north):
    report(dock, runs(dock, "known", "api"), runs(dock, "good", "web"), runs(dock, "known", "test", namespace="lab"))
    found = forecast_of_bindings("north", BOUND, actor=owner)
    assert shown(found.refused) == [("Deployment prod/api", ["not_promoted"])]
    assert [row.mode for row in north.bindings.order_by("pattern")] == ["observe", ""]  # nothing changed
    assert not AuditEvent.objects.filter(action="cluster.bindings_changed", subject_id=north.pk)[1:].exists()
    clusters.set_bindings("north", BOUND, actor=owner)
    assert forecast_of_bindings("north", BOUND, actor=owner).refused == ()  # it is refused already
    wider = [BindingWish("*", "staging", "enforce")]
    assert shown(forecast_of_bindings("north", wider, actor=owner).refused) == [
        ("Deployment lab/test", ["not_promoted"])
    ]
    other = [BindingWish("prod", "dev", "enforce")]  # an environment that nothing was bound to
    assert shown(forecast_of_bindings("north", other, actor=owner).refused) == [
        ("Deployment prod/web", ["not_promoted"])
    ]
    assert forecast_of_bindings("north", [BindingWish("*", "staging", "warn")], actor=owner).refused == ()
    with pytest.raises(NotPermitted):
        forecast_of_bindings("north", BOUND, actor=dock.approver)


def test_page_api_and_command_line_ask_before_bindings_enforce(dock, owner, north, run):
    report(dock, runs(dock, "known", "api"))
    form = {
        "form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "0", "form-0-pattern": "prod",
        "form-0-environment": "shop/staging", "form-0-mode": "enforce", "form-0-allowed_hosts": "", "revision": "2",
    }  # fmt: skip
    client = browser(owner)
    asked = client.post("/clusters/north/bindings/", form)
    text = asked.content.decode()
    assert (asked.status_code, Cluster.objects.get().revision) == (200, 2)
    for part in ("Deployment prod/api", "Save the bindings?", 'name="form-0-pattern" value="prod"'):
        assert part in text
    wanted = {"bindings": [{"pattern": "prod", "environment": "staging", "mode": "enforce"}]}
    assert Caller(owner).post("clusters/north/forecast/", wanted).json()["refused_count"] == 1
    code, out, err = run(owner, "cluster", "bind", "north", "--binding", "prod=staging:enforce")
    assert (code, "Deployment prod/api" in out or "api" in out, "add --yes" in err) == (3, True, True)
    assert Cluster.objects.get().revision == 2
    assert client.post("/clusters/north/bindings/", form | {"confirmed": "yes"}).status_code == 302
    assert north.bindings.get().mode == "enforce"
    assert run(owner, "cluster", "bind", "north", "--binding", "prod=staging")[0] == 0
    assert run(owner, "cluster", "bind", "north", "--binding", "prod=staging:enforce", "--yes")[0] == 0
