"""The page of what runs, and the tab of an image."""

from __future__ import annotations

import pytest

from tests.clients import browser
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, entry, report

pytestmark = pytest.mark.django_db


def test_the_page_shows_what_runs_and_its_filters_limit_it(dock):
    boss = person("boss", dock.team, "owner")
    north, _ = cluster(dock.team, "north"), cluster(dock.team, "south")
    api = rows.repository("shop/api", dock.team)
    image = rows.image("one")
    rows.push(api, image, "1.0")
    report(north, boss, 1, entry(image.digest, where=api), entry(rows.sha("x"), key="b"))
    client = browser(boss)

    page = client.get("/running/").content.decode()

    assert f"/t/shop/r/shop/api/i/{image.digest}/" in page
    assert "in none of your registries" in page
    assert "no report yet" in page
    assert "stranger" not in client.get("/running/?cluster=south").content.decode()
    assert "Nothing matches" in client.get("/running/?namespace=nowhere").content.decode()
    assert "Nothing matches" in client.get("/running/?at=2001-01-01T00:00:00Z").content.decode()
    assert client.get("/running/?cluster=nowhere").status_code == 400
    assert client.get("/running/?at=yesterday").status_code == 400
    tab = client.get(f"/t/shop/r/shop/api/i/{image.digest}/?tab=runtime").content.decode()
    assert "Deployment/api" in tab
    outsider = browser(person("out", rows.team("other"), "owner"))
    assert "Deployment/api" not in outsider.get("/running/").content.decode()
