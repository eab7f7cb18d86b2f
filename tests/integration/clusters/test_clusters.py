"""Clusters in the API, on pages and in the command line: settings, bindings and secrets."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.test import Client

from accounts.models import ApiToken, Robot
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.authority.services.robots import create_robot, create_robot_token, grant_robot
from lifecycle.clusters import services
from lifecycle.clusters.agents import create_agent_token
from lifecycle.clusters.models import Cluster, ClusterSecret
from lifecycle.clusters.queries import binding_for, bindings_of, cluster_with_secret
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, StaleVersion
from lifecycle.promotion.environments import contents_of
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import document

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def cluster(dock, owner):
    return services.create_cluster(dock.team, "north", actor=owner)


def client_of(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def call(client, method, path, body=None, **headers):
    return getattr(client, method)(
        f"/api/v1/clusters/{path}", body or {}, content_type="application/json", headers=headers
    )


def test_life_of_a_cluster_in_the_api(dock, owner):
    client = client_of(owner)
    made = call(client, "post", "", {"slug": "north", "team": "shop", "breakglass_subjects": ["user:kim"]})
    assert (made.status_code, made["ETag"]) == (201, '"1"')
    shown = made.json()
    assert {name: shown[name] for name in ("kind", "mode", "tags", "unbound", "stale_after_s")} == {
        "kind": "kubernetes", "mode": "observe", "tags": "resolve", "unbound": "observe", "stale_after_s": 86_400,
    }  # fmt: skip
    assert call(client, "patch", "north/", {"mode": "enforce"}).status_code == 428
    changed = call(client, "patch", "north/", {"mode": "enforce", "mutate": True}, **{"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["mode"], changed["ETag"]) == (200, "enforce", '"2"')
    assert (shown["mutate"], changed.json()["mutate"]) == (False, True)
    assert call(client, "patch", "north/", {"mode": "off"}, **{"If-Match": '"1"'}).status_code == 412
    assert [row["slug"] for row in client.get("/api/v1/clusters/").json()["results"]] == ["north"]
    events = AuditEvent.objects.filter(action__startswith="cluster.").order_by("pk")
    assert [event.action for event in events] == ["cluster.created", "cluster.changed"]
    assert Cluster.objects.get().enforced_at is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "deny"),
        ("kind", "nomad"),
        ("slug", "North Cluster"),
        ("breakglass_subjects", ["kim"]),
        ("breakglass_subjects", ["user:" + "x" * 300]),
        ("stale_after_s", 5),
        ("is_admin", True),
    ],
)
def test_bad_settings_are_refused_by_name(dock, owner, field, value):
    answer = call(client_of(owner), "post", "", {"slug": "north", "team": "shop", field: value})
    assert (answer.status_code, field in answer.content.decode()) == (400, True)
    assert not Cluster.objects.exists()


def test_name_is_used_once_and_no_change_is_no_event(dock, owner, cluster):
    with pytest.raises(Conflict):
        services.create_cluster(dock.team, "north", actor=owner)
    services.change_cluster("north", actor=owner, mode="observe")
    assert not AuditEvent.objects.filter(action="cluster.changed").exists()


def test_who_cannot_manage_environments_changes_nothing(dock, owner, cluster):
    with pytest.raises(NotPermitted):
        services.change_cluster("north", actor=dock.approver, mode="off")
    with pytest.raises(NotFound):
        services.change_cluster("north", actor=dock.outsider, mode="off")
    with pytest.raises(StaleVersion):
        services.change_cluster("north", actor=owner, revision=7, mode="off")
    assert services.change_cluster("north", actor=owner, revision=1, mode="off").mode == "off"


def test_longest_pattern_counts_for_a_namespace(dock, owner, cluster):
    wishes = [BindingWish("*", "dev"), BindingWish("shop-*", "shop/staging", "enforce", ("Quay.io",))]
    services.set_bindings("north", wishes, actor=owner)
    bindings = list(bindings_of(cluster))
    found = {name: binding_for(bindings, name) for name in ("shop-web", "kube-system")}
    assert {name: row.environment.slug for name, row in found.items()} == {"shop-web": "staging", "kube-system": "dev"}
    assert (found["shop-web"].mode, found["shop-web"].allowed_hosts) == ("enforce", ["quay.io"])
    assert contents_of(dock.dev) == ["namespaces of clusters bound to it"]


def test_stars_make_no_pattern_longer(dock, owner, cluster):
    patterns = ["*" * 10, "pay*", "payments", "*-payments-*", "p******s"]
    services.set_bindings("north", [BindingWish(pattern, "dev") for pattern in patterns], actor=owner)
    bindings = list(bindings_of(cluster))
    found = {name: binding_for(bindings, name).pattern for name in ("payments", "paying", "x-payments-y", "ps", "web")}
    assert found == {
        "payments": "payments", "paying": "pay*", "x-payments-y": "*-payments-*", "ps": "p******s", "web": "*" * 10,
    }  # fmt: skip


def test_bindings_in_the_api(dock, owner, cluster):
    client = client_of(owner)
    body = {"bindings": [{"pattern": "prod", "environment": "staging", "mode": None, "allowed_hosts": []}]}
    answer = call(client, "put", "north/bindings/", body)
    assert (answer.status_code, answer["ETag"]) == (200, '"2"')
    assert answer.json() == {
        "bindings": [{"pattern": "prod", "environment": "shop/staging", "mode": None, "allowed_hosts": []}]
    }
    assert call(client, "put", "north/bindings/", body, **{"If-Match": '"1"'}).status_code == 412
    assert call(client, "get", "north/bindings/").json() == answer.json()


@pytest.mark.parametrize(
    "wishes",
    [
        [BindingWish("prod", "nowhere")],
        [BindingWish("prod", "dev"), BindingWish("prod", "staging")],
        [BindingWish("prod space", "dev")],
        [BindingWish("", "dev")],
        [BindingWish("prod", "dev", allowed_hosts=("https://quay.io",))],
        [BindingWish("prod", "dev", mode="deny")],
        [BindingWish(f"prod-{number}", "dev") for number in range(501)],
    ],
)
def test_bad_bindings_are_refused_as_a_whole(dock, owner, cluster, wishes):
    services.set_bindings("north", [BindingWish("stays", "dev")], actor=owner)
    with pytest.raises(Malformed):
        services.set_bindings("north", wishes, actor=owner)
    assert [row.pattern for row in bindings_of(cluster)] == ["stays"]


def test_environment_of_another_team_needs_a_right_there(dock, owner, cluster):
    other = rows.team("other")
    rows.user("theirs", "owner", of=other)

    create_environment(other, actor=person("them", other, "owner"), slug="live", name="Live", prefix="live")
    with pytest.raises(Malformed):
        services.set_bindings("north", [BindingWish("live", "other/live")], actor=owner)
    rows.user("boss", "viewer", of=other)
    with pytest.raises(NotPermitted):
        services.set_bindings("north", [BindingWish("live", "other/live")], actor=owner)
    rows.user("boss", "owner", of=other)
    services.set_bindings("north", [BindingWish("live", "other/live")], actor=owner)
    assert [str(row.environment) for row in bindings_of(cluster)] == ["live"]


def test_new_secret_leaves_the_one_before_valid_for_a_day(dock, owner, cluster, monkeypatch):
    _, first = services.create_secret("north", "admission", actor=owner)
    _, second = services.create_secret("north", "admission", actor=owner)
    _, alerts = services.create_secret("north", "alerts", actor=owner)
    for secret in (first, second):
        assert cluster_with_secret("north", secret, "admission") == cluster
        assert cluster_with_secret("north", secret, "alerts") is None
    assert cluster_with_secret("south", second, "admission") is None
    later = clock.now() + timedelta(hours=25)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert cluster_with_secret("north", first, "admission") is None
    assert cluster_with_secret("north", second, "admission") == cluster
    assert cluster_with_secret("north", alerts, "alerts") == cluster


def test_secret_is_shown_once_and_stored_nowhere(dock, owner, cluster):
    client = client_of(owner)
    headers = {"Idempotency-Key": "one"}
    made = call(client, "post", "north/secrets/", {"kind": "admission"}, **headers)
    secret = made.json()["secret"]
    assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
    again = call(client, "post", "north/secrets/", {"kind": "admission"}, **headers)
    assert (again.json()["secret"], ClusterSecret.objects.count()) == (None, 1)
    assert secret.encode() != bytes(ClusterSecret.objects.get().sha256)
    assert secret not in json.dumps(list(AuditEvent.objects.values("details")))
    shown = [client.get(path).content.decode() for path in ("/clusters/north/", "/api/v1/clusters/north/")]
    assert not any(secret in text for text in shown)


def test_pages_add_change_bind_and_show_a_secret(dock, owner):
    client = client_of(owner)
    settings = {"mode": "warn", "tags": "resolve", "unbound": "deny", "stale_after_hours": "12"}
    form = {**settings, "slug": "north", "team": "shop", "kind": "docker", "breakglass_subjects": "nonsense"}
    refused = client.post("/clusters/new/", form)
    assert (refused.status_code, "is not a subject" in refused.content.decode()) == (422, True)
    made = client.post("/clusters/new/", form | {"breakglass_subjects": "user:kim\ngroup:oncall\n"})
    assert made["Location"] == "/clusters/north/"
    cluster = Cluster.objects.get()
    assert (cluster.breakglass_subjects, cluster.stale_after_s) == (["user:kim", "group:oncall"], 43_200)
    assert client.post("/clusters/north/", settings | {"revision": "9"}).status_code == 422
    assert client.post("/clusters/north/", settings | {"revision": "1", "mode": "off"}).status_code == 302
    rows_ = {"form-TOTAL_FORMS": "2", "form-INITIAL_FORMS": "0", "form-0-pattern": "prod-*", "form-1-pattern": ""}
    lacking = client.post("/clusters/north/bindings/", rows_)
    assert (lacking.status_code, "Choose an environment." in lacking.content.decode()) == (422, True)
    bound = rows_ | {"form-0-environment": "shop/staging", "form-0-allowed_hosts": "quay.io, ghcr.io"}
    assert client.post("/clusters/north/bindings/", bound).status_code == 302
    assert bindings_of(cluster).get().allowed_hosts == ["quay.io", "ghcr.io"]
    secret = client.post("/clusters/north/secrets/", {"kind": "admission"}).content.decode()
    assert (secret.count("gdc_adm_") > 0, ClusterSecret.objects.count()) == (True, 1)
    viewer = client_of(person("viewer-of-shop", dock.team, "viewer")).get("/clusters/north/").content.decode()
    assert ("prod-*" in viewer, "Save bindings" in viewer) == (True, False)


def test_the_page_makes_a_token_that_can_only_report(dock, owner, cluster):
    client = client_of(owner)
    page = client.post("/clusters/north/secrets/", {"kind": "agent"}).content.decode()
    token = re.search(r"gdk_[A-Za-z0-9_]+", page)[0]
    robot = Robot.objects.get(name="agent-north")
    (grant,) = RoleGrant.objects.filter(user=robot.user)
    assert (grant.role.slug, grant.role.verbs) == ("agent", ["runtime.report"])
    assert ("${AGENT_TOKEN}" in page, "${ADMISSION_SECRET}" in page, ClusterSecret.objects.count()) == (False, True, 0)
    headers = {"Authorization": f"Bearer {token}"}
    body = json.dumps(document(1))
    agent = Client()
    sent = agent.post("/api/v1/clusters/north/reports/", body, content_type="application/json", headers=headers)
    assert sent.status_code == 202, sent.content
    assert agent.get("/api/v1/images/", headers=headers).json()["results"] == []
    assert agent.post("/api/v1/clusters/north/secrets/", {"kind": "alerts"}, headers=headers).status_code == 403
    both = client.post("/clusters/north/secrets/", {"kind": "both"}).content.decode()
    assert ("${AGENT_TOKEN}" in both, "${ADMISSION_SECRET}" in both) == (False, False)
    assert Robot.objects.filter(name="agent-north").count() == 1


def reports(token, slug):
    """Return the status of a report, and that of the page for its bundle."""
    headers, agent = {"Authorization": f"Bearer {token}"}, Client()
    body = json.dumps(document(1))
    sent = agent.post(f"/api/v1/clusters/{slug}/reports/", body, content_type="application/json", headers=headers)
    return sent.status_code, agent.get(f"/api/v1/clusters/{slug}/bundle/", headers=headers).status_code


def test_an_agent_speaks_for_its_cluster_only(dock, owner, cluster):
    services.create_cluster(dock.team, "south", actor=owner)
    north, south = (create_agent_token(slug, actor=owner) for slug in ("north", "south"))
    assert [reports(north, slug) for slug in ("north", "south", "absent")] == [(202, 200), (404, 404), (404, 404)]
    assert [reports(south, slug) for slug in ("north", "south")] == [(404, 404), (202, 200)]
    for robot in Robot.objects.all():  # whatever it is granted
        grant_robot(robot.pk, actor=owner, role="security")
    assert (reports(north, "south"), reports(south, "north")) == ((404, 404), (404, 404))
    assert AuditEvent.objects.filter(action="cluster.agent_bound").count() == 2


def test_a_robot_that_a_person_granted_reports_for_the_team(dock, owner, cluster):
    services.create_cluster(dock.team, "south", actor=owner)
    robot = create_robot(dock.team.pk, actor=owner, name="import")
    token = create_robot_token(robot.pk, actor=owner, name="ci")[1]
    assert reports(token, "north")[0] in {403, 404}
    grant_robot(robot.pk, actor=owner, role="agent")
    assert [reports(token, slug)[0] for slug in ("north", "south")] == [202, 202]


def test_an_agent_of_a_deleted_cluster_speaks_for_no_other(dock, owner, cluster):
    services.create_cluster(dock.team, "south", actor=owner)
    token = create_agent_token("north", actor=owner)
    Cluster.objects.filter(slug="north").delete()
    assert reports(token, "south") == (404, 404)


def test_a_robot_with_more_than_the_role_of_agents_is_not_reused(dock, owner, cluster):
    manual = create_robot(dock.team.pk, actor=owner, name="agent-north")  # made by hand: not bound
    grant_robot(manual.pk, actor=owner, role="agent")
    create_agent_token("north", actor=owner)
    assert ApiToken.objects.get().user.username == "shop+agent-north-2"
    create_agent_token("north", actor=owner)
    assert Robot.objects.count() == 2
    grant_robot(Robot.objects.get(name="agent-north-2").pk, actor=owner, role="viewer")
    create_agent_token("north", actor=owner)
    users = ApiToken.objects.order_by("-pk").values_list("user__username", flat=True)
    assert users[0] == "shop+agent-north-3"
    (grant,) = RoleGrant.objects.filter(user__username="shop+agent-north-3")
    assert grant.role.slug == "agent"


def test_names_of_agents_that_would_be_cut_to_one_are_two(dock, owner):
    for ending in "ab":
        services.create_cluster(dock.team, "n" * 56 + ending, actor=owner)
        create_agent_token("n" * 56 + ending, actor=owner)
    assert [len(robot.name) for robot in Robot.objects.all()] == [60, 60]


def test_a_token_of_the_agent_needs_robots_and_reports(dock, cluster):
    client = client_of(person("guard", dock.team, "security"))
    assert client.post("/clusters/north/secrets/", {"kind": "agent"}).status_code == 403
    assert not Robot.objects.filter(name="agent-north").exists()


def test_command_line(dock, owner, run):
    code, out, _ = run(owner, "cluster", "create", "north", "--team", "shop", "--mode", "observe", "--json")
    assert (code, json.loads(out)["slug"]) == (0, "north")
    assert run(owner, "cluster", "bind", "north", "--binding", "prod-*=staging:enforce")[0] == 0
    assert run(owner, "cluster", "set", "north", "--mode", "enforce", "--breakglass-subject", "user:kim")[0] == 0
    assert run(owner, "cluster", "set", "north", "--mutate")[0] == 0
    shown = json.loads(run(owner, "cluster", "show", "north", "--json")[1])
    assert shown["mutate"] is True
    assert (shown["mode"], shown["bindings"][0]["environment"]) == ("enforce", "shop/staging")
    assert "prod-*" in run(owner, "cluster", "show", "north")[1]
    assert "north" in run(owner, "cluster", "list")[1]
    assert "gdc_adm_" in run(owner, "cluster", "secret", "north")[1]
    assert run(owner, "cluster", "set", "north")[0] == 2
    assert run(owner, "cluster", "bind", "north", "--binding", "prod")[0] == 2
