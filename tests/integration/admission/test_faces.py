"""Admission for people: explain, manifest, the page of a decision, and the command line."""

from __future__ import annotations

import json

import pytest
import yaml
from django.test import Client

from lifecycle.admission.models import AdmissionDebt, AdmissionDecision
from lifecycle.audit.models import AuditEvent
from lifecycle.clusters import services as clusters
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine import services as quarantines
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.reviews import deployment, pod

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def cluster(dock, owner, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("lifecycle.admission.queries.READ_AT_ONCE", "SELECT 1")
    settings.ADMISSION_FOLDER = str(tmp_path)
    clusters.create_cluster(dock.team, "north", actor=owner, mode="enforce", breakglass_subjects=["user:kim"])
    clusters.set_bindings("north", [BindingWish("prod", "staging")], actor=owner)
    rows.push(dock.repository, rows.image("known"), "known")
    good = rows.image("good")
    PromotionRequest.objects.create(
        image=good, repository=dock.repository, environment=dock.staging, tag="1.0", state="succeeded", reason="x",
        requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
    )  # fmt: skip


def client_of(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def at(name):
    return f"{rows.registry().host}/shop/api@{rows.sha(name)}"


def explain(asker, **body):
    path = "/api/v1/clusters/north/explain/"
    return client_of(asker).post(path, {"namespace": "prod", **body}, content_type="application/json")


def test_explain_images(dock, cluster):
    answer = explain(dock.requester, images=[at("good"), at("known")]).json()
    assert (answer["allowed"], answer["mode"], answer["environment"]) == (False, "enforce", "shop/staging")
    assert [(row["where"], row["code"], row["allowed"]) for row in answer["images"]] == [
        ("images[0]", "allowed", True),
        ("images[1]", "not_promoted", False),
    ]
    assert set(answer["snapshot"]) == {"number", "age_s"}
    assert explain(dock.requester, images=[at("good")]).json()["allowed"] is True
    assert not AdmissionDecision.objects.exists()


def test_explain_object_with_breakglass(dock, cluster):
    given = deployment(at("known"), annotations={"gravingdock.io/break-glass": "INC-7: shop is down"})
    given |= {"apiVersion": "apps/v1", "kind": "Deployment"}
    asked = explain(dock.requester, object=given, user="kim").json()
    assert (asked["allowed"], asked["breakglass"]["permitted"], asked["breakglass"]["opened"]) == (
        True, True, ["not_promoted"],
    )  # fmt: skip
    other = explain(dock.requester, object=given, user="alice").json()
    assert (other["allowed"], other["breakglass"]["refused"]) == (False, True)


@pytest.mark.parametrize(
    "body",
    [{}, {"images": [], "object": None}, {"images": ["x"], "object": {"kind": "Pod"}}, {"object": {"kind": "Service"}},
     {"images": ["x"] * 101}, {"images": "x"}, {"images": ["x"], "users": "kim"}],
)  # fmt: skip
def test_bad_questions_are_refused(dock, cluster, body):
    assert explain(dock.requester, **body).status_code == 400


def test_image_of_another_team_looks_like_an_unknown_one(dock, cluster):
    other = rows.team("other")
    secret = rows.image("secret")
    rows.push(rows.repository("other/app", other), secret, "1.0")
    host = rows.registry().host
    names = [f"{host}/other/app:1.0", f"{host}/other/app:2.0", at("secret"), at("absent")]
    by_tag, no_tag, by_digest, no_digest = explain(dock.requester, images=names).json()["images"]
    assert (by_tag["code"], by_tag["digest"]) == (no_tag["code"], no_tag["digest"]) == ("unknown_tag", None)
    assert by_digest["code"] == no_digest["code"] == "unknown_digest"
    rows.user(dock.requester.username, "viewer", of=other)
    assert explain(dock.requester, images=names).json()["images"][0]["digest"] == secret.digest


@pytest.mark.parametrize("namespace", ["prod", "unbound"])
def test_nothing_tells_a_hidden_image_from_none(dock, cluster, owner, namespace):
    other = rows.team("other")
    secret, bad = rows.image("secret"), rows.image("bad")
    rows.push(rows.repository("other/app", other), secret, "1.0")
    rows.push(rows.repository("other/app", other), bad, "2.0")
    quarantines.quarantine(bad.digest, actor=person("guard", other, "security"), reason="backdoor")
    host, reason = rows.registry().host, {"gravingdock.io/break-glass": "INC-7: shop is down"}

    def said(reference):
        given = {"apiVersion": "v1", "kind": "Pod", **pod(reference, annotations=reason)}
        answer = explain(dock.requester, object=given, user="kim", namespace=namespace).json()
        del answer["snapshot"]
        return json.dumps(answer).replace(reference, "it").replace(reference.partition("@")[2] or "-", "it")

    for tag in ("1.0", "2.0"):
        assert said(f"{host}/other/app:{tag}") == said(f"{host}/other/app:3.0")
    for name in ("secret", "bad"):
        assert said(at(name)) == said(at("absent"))
    assert said(at("known")) != said(at("absent")) or namespace == "unbound"
    rows.user(dock.requester.username, "viewer", of=other)
    assert said(at("bad")) != said(at("absent"))


def test_manifest_is_for_kubectl(dock, cluster, owner, settings):
    settings.ADMISSION_URL, settings.ADMISSION_PORT = "https://admission.example.com:8471", 0
    answer = client_of(owner).get("/api/v1/clusters/north/manifest/")
    assert answer["Content-Type"] == "application/yaml"
    documents = {row["kind"]: row for row in yaml.safe_load_all(answer.content)}
    hooks = documents["ValidatingWebhookConfiguration"]["webhooks"]
    assert {hook["failurePolicy"] for hook in hooks} == {"Fail"}
    assert {hook["timeoutSeconds"] for hook in hooks} == {3}
    url = "https://admission.example.com:8471/admission/north/${ADMISSION_SECRET}"
    assert {hook["clientConfig"]["url"] for hook in hooks} == {url}
    asked = {name for hook in hooks for rule in hook["rules"] for name in rule["resources"]}
    assert asked == {
        "pods", "pods/ephemeralcontainers", "deployments", "statefulsets", "daemonsets", "replicasets",
        "replicationcontrollers", "podtemplates", "jobs", "cronjobs",
    }  # fmt: skip
    assert documents["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"] == "${AGENT_IMAGE}"
    assert "secrets" not in json.dumps(documents["ClusterRole"])
    assert "MutatingWebhookConfiguration" not in documents
    clusters.change_cluster("north", actor=owner, mode="warn", mutate=True)
    text = client_of(owner).get("/clusters/north/manifest/").content.decode()
    assert ("failurePolicy: Fail" in text, "MutatingWebhookConfiguration" in text) == (False, True)


def test_other_kinds_have_no_manifest(dock, cluster, owner):
    clusters.create_cluster(dock.team, "hosts", actor=owner, kind="docker")
    assert client_of(owner).get("/api/v1/clusters/hosts/manifest/").status_code == 400


def test_new_secret_fills_the_manifest_once(dock, cluster, owner):
    page = client_of(owner).post("/clusters/north/secrets/", {"kind": "admission"}).content.decode()
    assert ("${ADMISSION_SECRET}" in page, "${AGENT_TOKEN}" in page, page.count("/admission/north/gdc_adm_")) == (
        False, True, 5,
    )  # fmt: skip
    other = client_of(owner).post("/clusters/north/secrets/", {"kind": "alerts"}).content.decode()
    assert "kubectl" not in other


def test_page_of_a_decision(dock, cluster):
    row = AdmissionDecision.objects.create(
        cluster_id=dock.team.clusters.get().pk, key="abc", namespace="prod", object_kind="Pod", object_name="web-1",
        workload_kind="Deployment", workload_name="web", result="refused", code="not_promoted", mode="enforce",
        images=[{"where": "container web", "reference": at("known"), "digest": rows.sha("known"), "allowed": False,
                 "code": "not_promoted", "reason": "It was not promoted.", "who": "Request a promotion."}],
        snapshot_number=3, at=clock.now(), user_name="alice",
    )  # fmt: skip
    page = client_of(dock.requester).get(f"/why/{row.key}/").content.decode()
    for text in (at("known"), "not_promoted", "Request a promotion.", "Deployment prod/web", "alice"):
        assert text in page
    hidden = client_of(dock.outsider).get(f"/why/{row.key}/")
    absent = client_of(dock.outsider).get("/why/abd/")
    assert (hidden.status_code, absent.status_code) == (404, 404)
    assert "not recorded yet" in hidden.content.decode()


def test_break_glass_is_reviewed_by_another_person(dock, cluster):
    debt = AdmissionDebt.objects.create(
        cluster=dock.team.clusters.get(), namespace="prod", workload_kind="Deployment", workload_name="web",
        digests=[rows.sha("known")], fingerprint="0" * 64, decision_key="abc", reason="INC-7: shop is down",
        user_name=dock.approver.username, opened_at=clock.now(), last_at=clock.now(), due_at=clock.now(),
    )  # fmt: skip
    page = client_of(dock.requester).get("/clusters/north/").content.decode()
    assert ("Deployment prod/web" in page, "INC-7: shop is down" in page) == (True, True)
    assert "New Pods are refused until it is called justified" in page  # its review is overdue
    path, form = f"/clusters/north/debts/{debt.pk}/review/", {"outcome": "justified", "comment": "It was down."}
    assert client_of(dock.approver).post(path, form).status_code == 403  # broke it
    assert client_of(dock.requester).post(path, form).status_code == 403  # no right
    assert client_of(dock.second).post(path, form | {"comment": ""}).status_code == 422
    assert client_of(dock.second).post(path, form).status_code == 302
    debt.refresh_from_db()
    assert (debt.outcome, debt.reviewed_by, debt.comment) == ("justified", dock.second, "It was down.")
    assert client_of(dock.second).post(path, form).status_code == 422
    assert AuditEvent.objects.filter(action="admission.debt_reviewed").count() == 1


def test_command_line(dock, cluster, run, tmp_path):
    code, out, err = run(dock.requester, "admission", "explain", "--cluster", "north", "-n", "prod", at("good"))
    assert (code, "Allowed in shop/staging" in err) == (0, True)
    code, out, err = run(
        dock.requester, "admission", "explain", "--cluster", "north", "-n", "prod", at("known"), "--json"
    )
    assert (code, json.loads(out)["allowed"]) == (3, False)
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **pod(at("known"))}))
    assert run(dock.requester, "admission", "explain", "--cluster", "north", "-n", "prod", "-f", file)[0] == 3
    assert run(dock.requester, "admission", "explain", "--cluster", "north", "-n", "prod")[0] == 2
    file.write_text("- 1")
    assert run(dock.requester, "admission", "explain", "--cluster", "north", "-n", "prod", "-f", file)[0] == 2


def test_break_glass_is_reviewed_from_the_command_line(dock, cluster, run):
    debt = AdmissionDebt.objects.create(
        cluster=dock.team.clusters.get(), namespace="prod", workload_kind="Deployment", workload_name="web",
        digests=[rows.sha("known")], fingerprint="0" * 64, decision_key="abc", reason="INC-7: shop is down",
        user_name=dock.approver.username, opened_at=clock.now(), last_at=clock.now(), due_at=clock.now(),
    )  # fmt: skip
    listed = run(dock.requester, "admission", "debts", "--cluster", "north")[1]
    assert ("Deployment prod/web" in listed, "INC-7: shop is down" in listed) == (True, True)
    review = ("admission", "review", str(debt.pk), "--cluster", "north", "--outcome", "justified", "--comment", "Down.")
    assert run(dock.approver, *review)[0] != 0  # broke it
    code, shown, _ = run(dock.second, *review, "--json")
    assert (code, json.loads(shown)["reviewed_by"], json.loads(shown)["outcome"]) == (
        0, dock.second.username, "justified",
    )  # fmt: skip
    assert "prod/web" not in run(dock.requester, "admission", "debts", "--cluster", "north")[1]
    assert run(dock.second, *review)[0] != 0  # once
    outsider = person("far", rows.team("other"), "owner")
    assert client_of(outsider).get("/api/v1/clusters/north/debts/").status_code == 404
