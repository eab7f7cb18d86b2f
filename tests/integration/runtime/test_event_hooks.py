"""Events of Falco and CloudEvents: who may send, what they become, and what a flood becomes."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client

from lifecycle.alerts.models import Alert
from lifecycle.clusters import services as clusters
from lifecycle.core import clock
from lifecycle.inventory.models import RunningContainer
from lifecycle.notices.models import Notice
from lifecycle.runtime import events
from lifecycle.runtime.models import RuntimeEvent
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, entry, report, work

pytestmark = pytest.mark.django_db
STRUCTURED = "application/cloudevents+json"


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def north(dock):
    return cluster(dock.team)


@pytest.fixture
def secret(north, owner):
    return clusters.create_secret("north", "alerts", actor=owner)[1]


@pytest.fixture
def image(dock):
    made = rows.image("one")
    rows.push(rows.repository("other/api", rows.team("other")), made, "1.0")
    return made


def falco(**more):
    fields = more.pop("fields", {})
    return {"rule": "Terminal shell", "priority": "Warning", "output": "a shell", "output_fields": fields} | more


def post(secret, body, path="/hooks/falco/north"):
    return Client().post(f"{path}/{secret}", body, content_type="application/json").status_code


def send(secret, *many):
    for event in many:
        assert post(secret, event) == 202


def fold():
    """Fold what waits, and return {(kind, rule): (severity, count)}."""
    while events.fold_some(clock.now())[0]:
        pass
    return {(row.kind, row.rule): (row.severity, row.count) for row in Alert.objects.exclude(state="resolved")}


def test_only_the_secret_of_the_source_opens_the_door(north, secret, owner, dock):
    admission = clusters.create_secret("north", "admission", actor=owner)[1]
    cluster(rows.team("other"), "south")
    assert post("wrong", falco()) == 401
    assert post(admission, falco()) == 401
    assert post(secret, falco(), "/hooks/falco/south") == 401
    assert post(secret, falco(), "/hooks/falco/nowhere") == 401
    assert RuntimeEvent.objects.count() == 0
    assert post(secret, falco()) == 202
    assert RuntimeEvent.objects.count() == 1


def test_bad_bodies_are_refused_and_wrong_secrets_first(secret, north, caplog):
    assert post(secret, "x" * (1024 * 1024 + 1)) == 413
    assert post("wrong", "x" * (1024 * 1024 + 1)) == 401
    assert post(secret, "{") == 400
    assert post(secret, "[]") == 400
    assert Client().get(f"/hooks/falco/north/{secret}").status_code == 405
    assert secret not in caplog.text


def test_events_of_one_cluster_that_wait_are_bounded(north, secret, owner, dock, monkeypatch):
    monkeypatch.setattr(events, "WAITING_MAX", 3)
    cluster(dock.team, "south")
    other = clusters.create_secret("south", "alerts", actor=owner)[1]
    send(secret, falco(), falco(), falco())
    refused = Client().post(f"/hooks/falco/north/{secret}", falco(), content_type="application/json")
    assert (refused.status_code, refused["Retry-After"]) == (503, "10")
    assert "wait" in refused.json()["detail"]
    assert post(other, falco(), "/hooks/falco/south") == 202
    events._Waiting.counts.clear()  # as a second later
    assert post(secret, falco()) == 503
    assert RuntimeEvent.objects.count() == 4
    fold()
    events._Waiting.counts.clear()
    assert post(secret, falco()) == 202


def test_the_oldest_ids_are_forgotten_first(north, secret, monkeypatch):
    send(secret, *[falco(uuid=f"event-{at}") for at in range(5)])
    fold()
    newest = set(RuntimeEvent.objects.order_by("-pk").values_list("pk", flat=True)[:2])
    events.tidy(clock.now())
    assert RuntimeEvent.objects.count() == 5
    monkeypatch.setattr(events, "IDS_MAX", 2)
    events.tidy(clock.now())
    assert set(RuntimeEvent.objects.values_list("pk", flat=True)) == newest


def test_equal_events_are_one_alert_with_a_count(secret, north):
    send(secret, *[falco(time=f"2026-01-01T00:00:{at:02}Z") for at in range(30)])
    assert fold() == {("falco", "Terminal shell"): ("medium", 30)}
    send(secret, *[falco()] * 12)
    assert fold() == {("falco", "Terminal shell"): ("medium", 42)}
    alert = Alert.objects.get()
    assert (alert.cluster, alert.team, alert.digest) == (north, north.team, None)
    assert alert.evidence["why"] == "It is tied to no container that is known here."


@pytest.mark.parametrize("how", ["digest", "container", "pod", "tag"])
@pytest.mark.parametrize("whose", ["own", "other"])
def test_an_event_is_tied_to_what_runs_and_told_the_team_of_its_repository(north, secret, owner, *, how, whose):
    repository = rows.repository("other/api") if whose == "other" else rows.repository("shop/tied", north.team)
    image = rows.image("tied")
    rows.push(repository, image, "1.0")
    report(north, owner, 1, entry(image.digest, where=repository))
    container = RunningContainer.objects.get()
    place = f"{repository.registry.host}/{repository.name}"
    fields = {
        "digest": {"container.image.digest": image.digest},
        "container": {"container.id": container.short_id},
        "pod": {"k8s.ns.name": "shop", "k8s.pod.name": container.pod},
        "tag": {"container.image.repository": place, "container.image.tag": "1.0"},
    }[how]

    send(secret, falco(fields=fields))
    fold()

    team = repository.team.slug
    if whose == "own":
        alert = Alert.objects.get()
    elif how == "tag":  # a weak tie tells nobody else, and its sender not that the tag is there
        alert = Alert.objects.get()
        assert (alert.team, alert.digest, alert.evidence["tied_by"]) == (north.team, None, "")
        return
    else:
        mine = Alert.objects.get(team=north.team)
        assert (mine.repository_ids, mine.digest, mine.workload) == ([], image.digest, "Deployment/api")
        alert = Alert.objects.get(team__slug="other")
    assert (alert.digest, (alert.team.slug, alert.repository_ids)) == (image.digest, (team, [repository.pk]))
    assert alert.evidence["tied_by"] == how
    assert alert.workload == ("" if how == "tag" else "Deployment/api")
    assert ("weak" in alert.evidence.get("why", "")) is (how == "tag")


def test_a_flood_is_one_alert_and_critical_events_are_never_in_it(secret, north):
    send(secret, *[falco(rule=f"rule {number}") for number in range(events.NEW_MAX + 30)])
    send(secret, *[falco(rule=f"grave {number}", priority="Critical") for number in range(5)])

    found = fold()

    assert found.pop(("flood", "")) == ("high", 30)
    assert len([rule for _, rule in found if rule.startswith("grave")]) == 5
    assert len(found) == events.NEW_MAX + 5
    send(secret, falco(rule="rule 1"), falco(rule="rule of later"))
    found = fold()
    assert (found["falco", "rule 1"], found["flood", ""]) == (("medium", 2), ("high", 31))
    Alert.objects.update(first_at=clock.now() - timedelta(minutes=2))
    send(secret, falco(rule="rule of much later"))
    assert ("falco", "rule of much later") in fold()


def test_teams_are_told_of_critical_events_at_once_and_of_others_together(secret, north):
    send(secret, falco(rule="grave", priority="critical"), falco(rule="a"), falco(rule="b"))
    fold()
    assert [notice.facts["alerts"] for notice in Notice.objects.all()] == ["1"]
    events.tell_untold(clock.now())
    events.tell_untold(clock.now())
    assert [notice.facts["alerts"] for notice in Notice.objects.order_by("pk")] == ["1", "2"]


def test_cloud_events_come_with_a_bearer_and_count_once(secret, north, image):
    def put(event, content_type=STRUCTURED, token=secret, **headers):
        headers = {"Authorization": f"Bearer {token}"} | headers
        return Client().post("/hooks/events/north", event, content_type=content_type, headers=headers).status_code

    event = {
        "specversion": "1.0", "id": "1", "source": "/scanner", "type": "found", "data": {"severity": "high"},
        "subject": f"app@{image.digest}",
    }  # fmt: skip
    body = json.dumps(event)
    assert put(body, token="wrong") == 401
    assert Client().post("/hooks/events/north", body, content_type=STRUCTURED).status_code == 401
    assert put(body) == put(body) == 202
    assert put(json.dumps([event | {"id": "2"}, event]), "application/cloudevents-batch+json") == 202
    binary = {"ce-specversion": "1.0", "ce-id": "3", "ce-source": "/scanner", "ce-type": "found"}
    assert put("{}", "application/json", **binary, **{"ce-subject": event["subject"]}) == 202
    assert put("{}", "application/json") == 400
    assert fold() == {("event", "found"): ("high", 3)}
    assert put(body) == 202
    assert fold() == {("event", "found"): ("high", 3)}
    events.tidy(clock.now() + timedelta(hours=25))
    assert put(body) == 202
    assert fold() == {("event", "found"): ("high", 4)}


def test_secrets_in_events_are_masked_before_they_are_stored(secret, north):
    send(
        secret,
        falco(
            output="curl -H 'Authorization: Bearer topsecret123'", fields={"proc.cmdline": "x --password=topsecret123"}
        ),
    )
    assert "topsecret123" not in json.dumps(RuntimeEvent.objects.get().event)


def test_the_examples_of_falco_are_taken(secret, north):
    folder = Path(__file__).parents[2] / "data" / "falco"
    lines = (folder / "events.jsonl").read_text().splitlines()
    send(secret, *[json.loads(line)["event"] for line in lines])
    found = fold()
    assert sum(count for _, count in found.values()) == len(lines)
    assert found["falco", "Fake rule"] == ("high", 1)


def test_the_job_folds_what_waits(secret, north):
    send(secret, falco())
    events.queue()
    work("events")
    assert Alert.objects.get().count == 1
    assert not events.is_pending()


def test_the_flood_of_one_cluster_does_not_delay_another(secret, north, dock, owner, monkeypatch):
    monkeypatch.setattr(events, "_BATCH", 10)
    cluster(dock.team, "south")
    other = clusters.create_secret("south", "alerts", actor=owner)[1]
    send(secret, *[falco()] * 30)
    assert post(other, falco(rule="grave", priority="Critical"), "/hooks/falco/south") == 202

    assert events.fold_some(clock.now())[0] <= 10

    assert Alert.objects.filter(rule="grave").exists()
    assert Alert.objects.filter(rule="Terminal shell").get().count < 30
    fold()
    assert Alert.objects.filter(rule="Terminal shell").get().count == 30


def test_events_tell_another_team_only_of_what_runs_and_is_theirs(secret, north, owner, image):
    theirs = rows.repository("other/api")
    place = f"{theirs.registry.host}/{theirs.name}"
    own = rows.image("own")
    report(north, owner, 1, entry(own.digest, where=theirs))
    invented = {"container.id": RunningContainer.objects.get().short_id}
    named = {"container.image.repository": place, "container.image.tag": "1.0"}
    send(secret, *[falco(rule=str(at), fields=each) for at, each in enumerate((invented, named))])
    send(secret, falco(rule="2", fields={"container.image.digest": image.digest}))
    fold()
    assert {(row.rule, row.team, tuple(row.repository_ids)) for row in Alert.objects.all()} == {
        (str(at), north.team, ()) for at in range(3)
    }
    rows.push(theirs, own, "2.0")
    send(secret, falco(rule="3", fields=invented))
    fold()
    assert {row.team for row in Alert.objects.filter(rule="3")} == {theirs.team, north.team}


def test_critical_events_of_one_cluster_about_another_team_are_a_flood_too(secret, north, owner, image):
    report(north, owner, 1, entry(image.digest, where=rows.repository("other/api")))
    fields = {"container.id": RunningContainer.objects.get().short_id}
    many = events.FOREIGN_MAX + 5
    send(secret, *[falco(rule=f"grave {at}", priority="Critical", fields=fields) for at in range(many)])
    fold()
    found = Alert.objects.filter(team__slug="other")
    assert found.exclude(kind="flood").count() == events.FOREIGN_MAX
    assert found.get(kind="flood").count == 5
    send(secret, *[falco(rule=f"mine {at}", priority="Critical") for at in range(many)])
    fold()
    assert Alert.objects.filter(team=north.team, rule__startswith="mine").count() == many


def test_events_about_a_container_that_ended_a_moment_ago_are_tied(secret, north, owner, image):
    report(north, owner, 1, entry(image.digest, where=rows.repository("other/api")))
    report(north, owner, 2)
    container = RunningContainer.objects.get()
    send(secret, falco(fields={"container.id": container.short_id}))
    fold()
    assert {row.evidence["tied_by"] for row in Alert.objects.all()} == {"container"}
    RunningContainer.objects.update(since=clock.now() - timedelta(hours=3), until=clock.now() - timedelta(hours=2))
    send(secret, falco(rule="late", fields={"container.id": container.short_id}))
    fold()
    assert Alert.objects.get(rule="late").evidence["tied_by"] == ""


def test_odd_events_are_taken_and_a_fault_shows_no_secret(secret, north, monkeypatch, caplog):
    assert post(secret, json.dumps(falco(priority="X")).replace('"X"', "[" * 1000 + "]" * 1000)) == 202
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    for number, more in enumerate(({"data_base64": "ä"}, {"data": {"severity": 1}}, {"data": {"priority": ["x"]}})):
        body = json.dumps(event | {"id": str(number)} | more)
        headers = {"Authorization": f"Bearer {secret}"}
        answer = Client().post("/hooks/events/north", body, content_type=STRUCTURED, headers=headers)
        assert answer.status_code == 202
    assert {severity for severity, _ in fold().values()} == {"unknown"}

    def broken(*_):
        raise RecursionError

    monkeypatch.setattr(events, "take", broken)
    assert post(secret, falco()) == 503
    assert secret not in caplog.text
