"""Who sees what of a running image: its place, its repository, and whether we know it."""

from __future__ import annotations

import pytest

from accounts.models import Role
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.runtime import services
from tests.clients import Caller, browser
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, entry, report

pytestmark = pytest.mark.django_db
PLACE = ("cluster", "namespace", "workload_kind", "workload_name", "environment")


@pytest.fixture
def agent(dock):
    return person("agent", dock.team, "security")


@pytest.fixture
def north(dock):
    return cluster(dock.team)


@pytest.fixture
def secret_app():
    """A repository of another team, with a scanned image."""
    return rows.repository("other/secret", rows.team("other"))


def grant(user, team, pattern="*"):
    RoleGrant.objects.create(user=user, team=team, role=Role.objects.get(slug="viewer"), repository_pattern=pattern)


def running(who, **query):
    return Caller(who).get("running/", **query).json()["results"]


def test_who_sees_one_repository_of_a_team_sees_not_what_else_it_runs(dock, north, agent):
    api, hidden = rows.repository("shop/api", dock.team), rows.repository("shop/hidden", dock.team)
    one, two = rows.image("one"), rows.image("two")
    rows.push(api, one, "1.0")
    rows.push(hidden, two, "1.0")
    report(north, agent, 1, entry(one.digest, where=api), entry(two.digest, key="b", where=hidden))
    guest = rows.user("guest")
    grant(guest, dock.team, "shop/api")

    (seen,) = running(guest)

    assert (seen["repository"], seen["cluster"], seen["workload_name"]) == ("shop/api", "north", "api")
    assert "shop/hidden" not in browser(guest).get("/running/").content.decode()
    assert len(running(person("viewer", dock.team, "viewer"))) == 2


@pytest.mark.parametrize("named", ["manifest", "config"])
def test_a_reporter_learns_nothing_of_images_that_it_cannot_see(dock, north, agent, secret_app, named):
    config = rows.sha("configuration")
    image = rows.image("theirs", config_digest=config)
    rows.push(secret_app, image, "1.0")
    reported = {"manifest": image.digest, "config": config}[named]
    invented = rows.sha("invented")
    report(north, agent, 1, entry(reported, key="a", where=secret_app), entry(invented, key="b", where=secret_app))

    seen = running(agent)

    assert {row["digest"] for row in seen} == {reported, invented}
    assert {(row["repository"], row["is_known"], row["known_now"]) for row in seen} == {(None, False, None)}
    assert [len(running(agent, digest=each)) for each in (invented, reported)] == [1, 1]
    if named == "config":
        assert running(agent, digest=image.digest) == []
    page = browser(agent).get("/running/").content.decode()
    assert page.count("in none of your registries") == 2
    report(north, agent, 2)
    ended = running(agent, at=seen[0]["since"])
    assert {row["digest"] for row in ended} == {reported, invented}
    grant(agent, secret_app.team)
    report(north, agent, 3, entry(reported, key="a", where=secret_app))
    (seen,) = running(agent)
    assert (seen["repository"], seen["digest"], seen["is_known"]) == ("other/secret", image.digest, True)


def test_a_shared_base_does_not_tell_where_other_teams_run_it(dock, north, agent, secret_app):
    image = rows.image("base")
    rows.push(secret_app, image, "1.0")
    NamespaceBinding.objects.create(cluster=north, pattern="shop", environment=dock.dev)
    report(north, agent, 1, entry(image.digest, where=secret_app))
    owner = person("boss", secret_app.team, "owner")
    live = create_environment(secret_app.team, actor=owner, slug="live", name="Live", prefix="live")

    (seen,) = running(owner)

    assert [seen[name] for name in PLACE] == ["", "", "", "", None]
    assert (seen["is_known"], seen["repository"]) == (True, "other/secret")
    (ran,) = Caller(owner).get(f"images/{image.digest}/runtime/").json()["results"]
    assert [ran[name] for name in PLACE] == ["", "", "", "", None]
    tab = browser(owner).get(f"/t/other/r/other/secret/i/{image.digest}/?tab=runtime").content.decode()
    for text in (browser(owner).get("/running/").content.decode(), tab):
        assert "a cluster of another team" in text
        assert "Deployment/api" not in text
        assert "north" not in text
    assert running(owner, namespace="shop") == running(owner, environment=f"shop/{dock.dev.slug}") == []
    assert len(running(person("viewer", dock.team, "viewer"), namespace="shop")) == 1
    NamespaceBinding.objects.update(environment=live)
    services.rebind()
    assert running(owner)[0]["cluster"] == "north"


def test_an_invented_name_shows_nothing_to_the_team_of_the_repository(north, agent, secret_app):
    report(north, agent, 1, entry(rows.sha("invented"), where=secret_app))
    assert running(person("boss", secret_app.team, "owner")) == []
    assert len(running(agent)) == 1
