"""Who sees what of an alert: two teams on each surface, one that runs the image and one that owns it."""

from __future__ import annotations

import pytest

from accounts.models import Role
from lifecycle.alerts.models import Alert
from lifecycle.alerts.sight import ELSEWHERE
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.core import clock
from lifecycle.notices.models import Notice
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine import services as quarantines
from lifecycle.runtime import drift
from tests.clients import Caller, browser
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, entry, report

pytestmark = pytest.mark.django_db
SECRETS = ("north", "shop-space", "Deployment/hidden-api", "hidden-api")


@pytest.fixture
def agent(dock):
    return person("agent", dock.team, "security")


@pytest.fixture
def north(dock):
    made = cluster(dock.team)
    NamespaceBinding.objects.create(cluster=made, pattern="*", environment=dock.staging)
    return made


@pytest.fixture
def theirs():
    """A repository of another team, with an image."""
    made = rows.repository("other/secret", rows.team("other"))
    rows.push(made, rows.image("theirs"), "1.0")
    return made


@pytest.fixture
def boss(theirs):
    return person("boss", theirs.team, "owner")


def runs(north, agent, number, digest, where=None, **more):
    workload = {"kind": "Deployment", "name": "hidden-api"}
    report(north, agent, number, entry(digest, where=where, namespace="shop-space", workload=workload, **more))
    drift.sweep(clock.now())


def alerts(who, **query):
    return Caller(who).get("alerts/", **query).json()["results"]


def shown_alike(row):
    """Return what tells one alert from another, without numbers and times."""
    return {name: row[name] for name in ("kind", "severity", "cluster", "namespace", "workload", "team", "evidence")}


def test_the_team_of_the_image_sees_the_kind_and_the_digest_but_not_the_place(north, agent, theirs, boss):
    runs(north, agent, 1, rows.sha("theirs"), theirs)

    (row,) = alerts(boss)

    assert (row["kind"], row["digest"], row["team"]) == ("drift.not_promoted", rows.sha("theirs"), "other")
    assert (row["cluster"], row["namespace"], row["workload"], row["evidence"]) == ("", "", "", {"why": ELSEWHERE})
    detail = Caller(boss).get(f"alerts/{row['id']}/").json()
    assert [each["repository"] for each in detail["repositories"]] == ["other/secret"]
    pages = [browser(boss).get(address).content.decode() for address in ("/alerts/", f"/alerts/{row['id']}/")]
    notices = [f"{each.subject} {each.text}" for each in Notice.objects.filter(team=theirs.team)]
    assert notices
    for text in (str(detail), *pages, *notices):
        assert not [word for word in SECRETS if word in text], text
    assert alerts(boss, cluster="north") == []
    assert "cluster-of" not in browser(boss).get("/alerts/?cluster=north").content.decode()
    assert "No alerts match" in browser(boss).get("/alerts/?cluster=north").content.decode()


def test_the_team_of_the_cluster_sees_the_place_and_an_unknown_image(north, agent, theirs):
    runs(north, agent, 1, rows.sha("theirs"), theirs)

    (row,) = alerts(agent)

    assert (row["kind"], row["cluster"], row["namespace"]) == ("drift.rogue", "north", "shop-space")
    assert row["workload"] == "Deployment/hidden-api"
    assert alerts(agent, cluster="north") == [row]
    page = browser(agent).get(f"/alerts/{row['id']}/").content.decode()
    assert "Cluster north, team shop" in page
    assert row["evidence"].pop("image").startswith("localhost:1/other/secret")  # what their own pod says
    assert "other" not in str(row)
    told = [f"{each.subject} {each.text}" for each in Notice.objects.filter(team=north.team)]
    assert any("in cluster north" in text for text in told)
    assert "other" not in str(told)


@pytest.mark.parametrize("named", ["manifest", "config"])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_hidden_image_and_one_that_does_not_exist_look_the_same(north, agent, *, named, is_named):
    config = rows.sha("configuration")
    theirs = rows.repository("other/secret", rows.team("other"))
    image = rows.image("theirs", config_digest=config)
    rows.push(theirs, image, "1.0")
    reported = {"manifest": image.digest, "config": config}[named]
    seen = []
    for number, digest in enumerate((reported, rows.sha("invented")), start=1):
        runs(north, agent, number, digest, theirs if is_named else None)
        found = [row for row in alerts(agent, state="live") if row["digest"] == digest]
        seen.append([shown_alike(row) for row in found])
        assert len(found) == len(alerts(agent, state="live"))
    assert seen[0] == seen[1] != []


def test_an_image_that_is_open_to_all_is_no_secret(north, agent, theirs):
    theirs.visibility = "internal"
    theirs.save()
    runs(north, agent, 1, rows.sha("theirs"), theirs)
    assert [row["kind"] for row in alerts(agent)] == ["drift.not_promoted"]


def test_who_sees_nothing_of_both_sees_no_alert(north, agent, theirs):
    runs(north, agent, 1, rows.sha("theirs"), theirs)
    third = person("third", rows.team("third"), "owner")
    for row in Alert.objects.all():
        assert Caller(third).get(f"alerts/{row.pk}/").status_code == 404
        assert browser(third).get(f"/alerts/{row.pk}/").status_code == 404
    assert alerts(third) == []
    own, foreign = Alert.objects.get(team=north.team), Alert.objects.get(team=theirs.team)
    assert Caller(agent).get(f"alerts/{own.pk}/").status_code == 200
    assert Caller(agent).get(f"alerts/{foreign.pk}/").status_code == 404


def test_counts_of_clusters_are_of_alerts_that_one_sees(north, agent, theirs, boss):
    runs(north, agent, 1, rows.sha("theirs"), theirs)
    assert Alert.objects.filter(cluster=north).count() == 2
    from lifecycle.pages.runtime.page_queries import cluster_lines

    assert [(line.cluster, line.alerts) for line in cluster_lines(agent)] == [(north, 1)]
    assert cluster_lines(boss) == []


def test_the_team_of_the_environment_and_that_of_the_cluster_see_all_of_its_images(north, agent, theirs, boss):
    live = create_environment(theirs.team, actor=boss, slug="live", name="Live", prefix="live")
    NamespaceBinding.objects.update(environment=live)
    runs(north, agent, 1, rows.sha("theirs"), theirs)

    for who in (boss, agent):
        (row,) = alerts(who)
        assert (row["kind"], row["cluster"], row["team"]) == ("drift.not_promoted", "north", "other")
        assert row["evidence"]["environment"] == "other/live"
    (notice,) = Notice.objects.filter(topic="drift.not_promoted")
    assert "in cluster north" in notice.text


def test_an_image_promoted_to_the_bound_environment_is_known_there(dock, north, agent, theirs):
    PromotionRequest.objects.create(
        image=rows.image("promoted"), repository=theirs, environment=dock.staging, tag="1.0", state="succeeded",
        reason="x", finished_at=clock.now(), requested_by=rows.user("asker"), approve_by=clock.now(),
    )  # fmt: skip
    rows.push(theirs, PromotionRequest.objects.get().image, "2.0")
    runs(north, agent, 1, rows.sha("promoted"), theirs, tag="2.0")
    assert alerts(agent) == []


def test_a_quarantine_is_told_to_both_and_its_reason_to_its_owner(north, agent, theirs):
    guard = person("guard", theirs.team, "security")
    quarantines.quarantine(rows.sha("theirs"), actor=guard, reason="backdoor in build 7")
    runs(north, agent, 1, rows.sha("theirs"), theirs)
    mine = {row["kind"]: row for row in alerts(agent)}
    assert set(mine) == {"drift.rogue", "drift.quarantined"}
    assert "backdoor" not in str(mine)
    assert "drift.quarantined" in {row["kind"] for row in alerts(guard)}


def test_a_grant_for_one_repository_shows_no_cluster(dock, north):
    guest = rows.user("guest")
    for pattern, status in (("shop/api", 404), ("*", 200)):
        RoleGrant.objects.create(
            user=guest, team=dock.team, role=Role.objects.get(slug="viewer"), repository_pattern=pattern
        )
        assert Caller(guest).get("clusters/north/").status_code == status
        assert len(Caller(guest).get("clusters/").json()["results"]) == (status == 200)
        assert browser(guest).get("/clusters/north/").status_code == status


def test_who_sees_one_repository_sees_where_its_team_runs_it(dock, north, agent):
    api = rows.repository("shop/api", dock.team)
    rows.push(api, rows.image("own"), "1.0")
    runs(north, agent, 1, rows.sha("own"), api)
    guest = rows.user("guest")
    RoleGrant.objects.create(
        user=guest, team=dock.team, role=Role.objects.get(slug="viewer"), repository_pattern="shop/api"
    )
    (row,) = alerts(guest)
    assert (row["cluster"], row["workload"]) == ("north", "Deployment/hidden-api")
