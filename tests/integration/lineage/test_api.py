"""The lineage of an image over the API: edges with evidence, total counts, and only visible images."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts import tokens
from tests.factories import dock

pytestmark = pytest.mark.django_db


def get(user, address, **query):
    token = tokens.create_token(user, kind="pat", name="t")[1]
    return Client().get(address, query, headers={"Authorization": f"Bearer {token}"})


def lineage(user, image, **query):
    return get(user, f"/api/v1/images/{image.digest}/lineage/", **query).json()


@pytest.fixture
def yard():
    """base -> python -> (api, another team's secret image) -> worker on api. An index has api as its amd64 child."""
    shop, other = dock.team("shop"), dock.team("other")
    images = {name: dock.image(name) for name in ("base", "python", "api", "worker", "secret")}
    for name in ("base", "python", "api", "worker"):
        dock.push(dock.repository(f"shop/{name}", shop), images[name], "1")
    dock.push(dock.repository("other/secret", other), images["secret"], "1")
    dock.derive(images["base"], images["python"], evidence=("annotation", "layers"))
    dock.derive(images["python"], images["api"])
    dock.derive(images["python"], images["secret"])
    dock.derive(images["api"], images["worker"], evidence=("annotation",), confidence="low")
    images["index"] = dock.index("index", images["api"])
    dock.push(dock.repository("shop/multi", shop), images["index"], "1")
    return images | {"reader": dock.user("reader", "viewer", of=shop)}


def test_edges_have_evidence_and_all_are_counted(yard):
    assert lineage(yard["reader"], yard["python"]) == {
        "digest": yard["python"].digest,
        "ancestors": {
            "count": 1,
            "immediate": [
                {
                    "digest": yard["base"].digest,
                    "of": yard["python"].digest,
                    "repositories": ["shop/base"],
                    "evidence": ["annotation", "layers"],
                    "confidence": "high",
                    "is_quarantined": False,
                }
            ],
        },
        "descendants": {
            "count": 2,
            "immediate": [
                {
                    "digest": yard["api"].digest,
                    "of": yard["python"].digest,
                    "repositories": ["shop/api"],
                    "evidence": ["layers"],
                    "confidence": "high",
                    "is_quarantined": False,
                }
            ],
            "next": None,
        },
    }


def test_hidden_images_are_neither_listed_nor_counted(yard):
    assert yard["secret"].digest not in str(lineage(yard["reader"], yard["base"]))
    assert lineage(yard["reader"], yard["base"])["descendants"]["count"] == 3
    dock.user("reader", "viewer", of=dock.team("other"))
    assert lineage(yard["reader"], yard["base"])["descendants"]["count"] == 4


def test_index_lineage_covers_its_platforms(yard):
    found = lineage(yard["reader"], yard["index"])
    assert [edge["of"] for edge in found["ancestors"]["immediate"]] == [yard["api"].digest]
    assert (found["ancestors"]["count"], found["descendants"]["count"]) == (2, 1)


@pytest.mark.parametrize("digest", ["sha256:" + "e" * 64, "latest", "sha256:zz"])
def test_hidden_or_unknown_image_is_not_found(yard, digest):
    assert get(yard["reader"], f"/api/v1/images/{digest}/lineage/").status_code == 404


@pytest.mark.parametrize("count", [1, 3])
def test_lineage_costs_same_queries_for_any_number_of_images(yard, count, django_assert_num_queries):
    for number in range(count):
        image = dock.image(f"many {number}")
        dock.push(dock.repository(f"shop/many{number}"), image, "1")
        dock.derive(yard["worker"], image)
    lineage(yard["reader"], yard["worker"])
    # Two for the token (create, read with its grants), its use, image, bases, derived, names, two counts, quarantines.
    with django_assert_num_queries(10):
        found = lineage(yard["reader"], yard["worker"], limit=2)
    assert len(found["descendants"]["immediate"]) == min(count, 2)
    assert (found["descendants"]["next"] is None) == (count < 3)
    if count == 3:
        rest = get(yard["reader"], found["descendants"]["next"]).json()
        assert [edge["repositories"] for edge in rest["descendants"]["immediate"]] == [["shop/many2"]]
