"""Drift: each kind has a case in which it is true, and the same one in which it is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lifecycle.alerts.models import Alert
from lifecycle.authority.services import create_environment
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.core import clock
from lifecycle.environments.models import Slot
from lifecycle.inventory.models import Reporter
from lifecycle.notices.models import Notice
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine import services as quarantines
from lifecycle.registry.models import Image
from lifecycle.runtime import drift, services
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import place as scope
from tests.factories.policies import rule, save
from tests.factories.running import cluster, entry, report, work

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent(dock):
    return person("agent", dock.team, "security")


@pytest.fixture
def place(dock, agent):
    owner = person("boss", dock.team, "owner")
    return create_environment(dock.team, actor=owner, slug="live", name="Live", prefix="live")


@pytest.fixture
def north(dock, place):
    made = cluster(dock.team)
    NamespaceBinding.objects.create(cluster=made, pattern="shop", environment=place)
    return made


@pytest.fixture
def api(dock):
    return rows.repository("shop/api", dock.team)


@pytest.fixture
def image(api):
    made = rows.image("one")
    rows.push(api, made, "1.0")
    return made


def ask(api, image, environment, state):
    now = clock.now()
    return PromotionRequest.objects.create(
        image=image, repository=api, environment=environment, tag="1.0", state=state, reason="x", finished_at=now,
        requested_by=rows.user("asker"), approve_by=now,
    )  # fmt: skip


def found():
    """Return {kind: severity} of the live alerts, after a pass."""
    drift.sweep(clock.now())
    return {row.kind: row.severity for row in Alert.objects.exclude(state="resolved")}


def test_what_was_promoted_there_is_no_drift(north, agent, api, image, place):
    ask(api, image, place, "succeeded")
    report(north, agent, 1, entry(image.digest, where=api))
    assert found() == {}


def test_an_unknown_image_is_rogue_unless_its_registry_is_allowed(north, agent, api, dock):
    report(north, agent, 1, entry(rows.sha("nobody's")))
    assert found() == {"drift.rogue": "high"}
    alert = Alert.objects.get()
    assert (alert.team, alert.cluster, alert.namespace, alert.workload) == (dock.team, north, "shop", "Deployment/api")
    NamespaceBinding.objects.update(allowed_hosts=["docker.io"])
    assert found() == {}
    alert.refresh_from_db()
    assert (alert.state, alert.reason, alert.resolved_by) == ("resolved", drift.GONE, None)


def test_an_image_that_was_promoted_nowhere_or_elsewhere_or_rejected(north, agent, api, image, dock):
    place = NamespaceBinding.objects.get().environment
    report(north, agent, 1, entry(image.digest, where=api))
    assert found() == {"drift.not_promoted": "high"}
    first = Alert.objects.get()
    assert (first.team, first.repository_ids) == (api.team, [api.pk])
    ask(api, image, dock.dev, "succeeded")
    assert found() == {"drift.wrong_environment": "medium"}
    ask(api, image, place, "rejected")
    assert found() == {"drift.rejected": "high"}
    ask(api, image, place, "succeeded")
    assert found() == {}


def test_production_is_one_step_more_severe(north, agent, api, image, place):
    place.is_production = True
    place.save()
    report(north, agent, 1, entry(image.digest, where=api))
    assert found() == {"drift.not_promoted": "critical"}


def test_a_namespace_without_environment_has_no_promotion_to_miss(north, agent, api, image):
    report(north, agent, 1, entry(image.digest, where=api, namespace="tools"))
    assert found() == {}
    NamespaceBinding.objects.update(pattern="tools")
    services.rebind()
    assert found() == {"drift.not_promoted": "high"}


def test_a_quarantine_of_what_runs_is_critical_until_it_is_gone(north, agent, api, image, place):
    ask(api, image, place, "succeeded")
    report(north, agent, 1, entry(image.digest, where=api))
    quarantines.quarantine(image.digest, actor=agent, reason="backdoor")
    assert found() == {"drift.quarantined": "critical"}
    report(north, agent, 2)
    assert found() == {}


def test_a_moved_tag_a_newer_current_image_and_a_waiting_rebuild(north, agent, api, image, place):
    ask(api, image, place, "succeeded")
    newer = rows.image("newer")
    report(north, agent, 1, entry(image.digest, where=api))
    slot = Slot.objects.create(repository=api, environment=place, image=newer, tag="1.0", since=clock.now())
    assert found() == {}
    slot.since = clock.now() - timedelta(hours=25)
    slot.save()
    rows.push(api, newer, "1.0")
    assert found() == {"drift.behind": "low", "drift.tag_moved": "low"}
    slot.image = image
    slot.save()
    rows.push(api, image, "1.0")
    assert found() == {}


@pytest.mark.parametrize(
    ("kind", "mode", "is_found"),
    [
        ("image_age", {"request": "enforce"}, True),
        ("image_age", {"admission": "warn"}, True),
        ("image_age", {"request": "observe"}, False),
        ("rebuilt_within", {"request": "enforce"}, False),  # it was pushed today
    ],
)
def test_an_image_ages_while_it_runs(north, agent, api, place, *, kind, mode, is_found):
    image = rows.image("old")
    rows.push(api, image, "1.0")
    ask(api, image, place, "succeeded")
    report(north, agent, 1, entry(image.digest, where=api))
    save(scope(place), rule("fresh", kind, modes=mode, max_days=30))
    assert found() == {}
    Image.objects.filter(pk=image.pk).update(created_at=clock.now() - timedelta(days=31))
    assert found() == ({"drift.stale": "medium"} if is_found else {})
    Image.objects.filter(pk=image.pk).update(created_at=None)
    assert found() == {}
    Image.objects.filter(pk=image.pk).update(first_seen_at=clock.now() - timedelta(days=31))
    assert bool(found()) is (kind == "rebuilt_within")


def test_the_platform_that_runs_is_as_old_as_it_is(north, agent, api, image, place):
    old = rows.image("arm", architecture="arm64")
    Image.objects.filter(pk=old.pk).update(created_at=clock.now() - timedelta(days=40))
    both = rows.index("both", image, old)
    rows.push(api, both, "1.0")
    ask(api, both, place, "succeeded")
    save(scope(place), rule("fresh", "image_age", modes={"request": "enforce"}, max_days=30))
    report(north, agent, 1, entry(both.digest, where=api, arch="amd64"))
    assert found() == {}
    report(north, agent, 2, entry(both.digest, where=api, arch="arm64"))
    assert found() == {"drift.stale": "medium"}
    why = Alert.objects.get(kind="drift.stale").evidence["why"]
    assert why == "It was created 40 days ago; Image age allows 30."
    report(north, agent, 3, entry(both.digest, where=api, arch=""))
    assert found() == {"drift.stale": "medium"}  # nobody knows which one runs


def test_a_promoted_platform_is_its_index_too(north, agent, api, image, place):
    both = rows.index("both", image, rows.image("arm", architecture="arm64"))
    rows.push(api, both, "2.0")
    ask(api, both, place, "succeeded")
    report(north, agent, 1, entry(image.digest, where=api), entry(both.digest, key="b", where=api))
    assert "drift.not_promoted" not in found()


def test_an_agent_that_is_silent_or_doubled(north, agent):
    report(north, agent, 1)
    assert found() == {}
    Reporter.objects.update(seen_at=clock.now() - timedelta(minutes=11), doubled_at=clock.now())
    assert found() == {"agent.silent": "medium", "agent.doubled": "medium"}
    Reporter.objects.update(seen_at=clock.now(), doubled_at=None)
    assert found() == {}


def test_one_alert_lasts_and_teams_are_told_at_the_start_and_at_the_end(north, agent, api, image):
    report(north, agent, 1, entry(image.digest, where=api))
    work("drift")
    for _ in range(3):
        found()
    alert = Alert.objects.get()
    assert alert.count == 1
    assert Notice.objects.filter(topic="drift.not_promoted").count() == 1
    report(north, agent, 2)
    found()
    ended = Notice.objects.filter(topic="drift.not_promoted").order_by("pk").last()
    assert ended.subject.startswith("Closed: ")
    report(north, agent, 3, entry(image.digest, where=api))
    found()
    assert Alert.objects.order_by("pk").last().former == alert


def test_what_a_person_resolved_stays_so_for_a_day(north, agent, api, image):
    from lifecycle.alerts import services as alerts

    report(north, agent, 1, entry(image.digest, where=api))
    found()
    alerts.resolve(Alert.objects.get().pk, actor=agent, reason="Known.")
    assert found() == {}


def test_an_index_is_promoted_by_the_platform_that_runs_not_by_another(north, agent, api, image, place):
    arm = rows.image("evil", architecture="arm64")
    mixed = rows.index("mixed", image, arm)
    for number, each in enumerate((mixed, arm)):
        rows.push(api, each, f"2.{number}")
    ask(api, image, place, "succeeded")
    report(north, agent, 1, entry(mixed.digest, where=api, tag="2.0", arch="arm64"))
    assert found() == {"drift.not_promoted": "high"}
    report(north, agent, 2, entry(mixed.digest, where=api, tag="2.0", arch=""))
    assert found() == {"drift.not_promoted": "high"}
    report(north, agent, 3, entry(mixed.digest, where=api, tag="2.0", arch="amd64"))
    assert found() == {}
    ask(api, arm, place, "succeeded")
    for number, arch in enumerate(("arm64", ""), start=4):
        report(north, agent, number, entry(mixed.digest, where=api, tag="2.0", arch=arch))
        assert found() == {}


def test_an_invented_name_makes_no_alert_of_another_team(north, agent, api, image):
    theirs = rows.repository("other/app", rows.team("other"))
    rows.push(theirs, rows.image("theirs"), "1.0")
    report(north, agent, 1, entry(image.digest, where=theirs))
    assert found() == {"drift.not_promoted": "high"}
    assert {(row.team, tuple(row.repository_ids)) for row in Alert.objects.all()} == {(api.team, (api.pk,))}
    rows.push(theirs, image, "2.0")
    assert found() == {"drift.not_promoted": "high", "drift.tag_moved": "low"}
    live = Alert.objects.exclude(state="resolved")
    assert {(row.team.slug, row.kind) for row in live} == {
        ("other", "drift.not_promoted"), ("other", "drift.tag_moved"), (api.team.slug, "drift.not_promoted"),
    }  # fmt: skip


def test_many_workloads_of_one_cluster_are_one_alert_of_another_team(north, agent, monkeypatch):
    monkeypatch.setattr(drift, "FOREIGN_MAX", 2)
    theirs, image = rows.repository("other/app", rows.team("other")), rows.image("theirs")
    rows.push(theirs, image, "1.0")
    own = rows.sha("nobody's")
    places = [{"key": str(number), "workload": {"kind": "Job", "name": f"j{number}"}} for number in range(5)]
    report(
        north, agent, 1, *(entry(image.digest, where=theirs, **place) for place in places),
        *(entry(own, **place | {"key": f"own-{place['key']}"}) for place in places),
    )  # fmt: skip
    for _ in range(2):
        assert found() == {"drift.not_promoted": "high", "drift.many": "high", "drift.rogue": "high"}
        kinds = [row.kind for row in Alert.objects.exclude(state="resolved").filter(team__slug="other")]
        assert sorted(kinds) == ["drift.many", "drift.not_promoted", "drift.not_promoted"]
        assert Alert.objects.filter(kind="drift.rogue").count() == 10  # theirs are unknown to the cluster's team
    assert Alert.objects.get(kind="drift.many").evidence["why"].startswith("3 more workloads of cluster north")
    report(north, agent, 2)
    assert found() == {}
