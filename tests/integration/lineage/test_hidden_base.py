"""A base that the reader cannot see: the image's page tells the truth with one number, and nothing else shows it."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
from django.test import Client
from django.urls import reverse

from lifecycle.lineage.models import Ancestry, Derivation
from tests.factories import dock

pytestmark = pytest.mark.django_db
ROUTES = (
    "lineage", "lineage image", "lineage tab", "image history", "repository", "images", "rebuilds", "rebuild plan",
    "promotions", "inbox", "environments", "search", "api lineage", "api image", "api images", "api findings",
    "api waves", "api watches", "api search",
)  # fmt: skip


@pytest.fixture
def yard() -> SimpleNamespace:
    """shop/api with three layers on base/python, whose two layers have findings; only captain sees both."""
    shop, ground = dock.team("shop"), dock.team("base")
    base, image, leaf = dock.image("python", layers=2), None, None
    image = dock.image("api", layers=3, under=base)
    leaf = dock.image("worker", layers=4, under=image)
    old, own = dock.package("openssl", "1"), dock.package("flask", "1", kind="pypi")
    for made in (image, leaf):
        dock.carry(made, 0, old)
        dock.carry(made, 2, own)
    dock.carry(base, 0, old)
    dock.advisory("CVE-2024-1", "high", old)
    dock.advisory("CVE-2024-2", "low", old)
    dock.advisory("CVE-2024-3", "low", own)
    for made in (base, image, leaf):
        dock.count_risk(made)
    dock.push(dock.repository("base/python", ground), base, "3.11")
    dock.push(dock.repository("shop/api", shop), image, "1.0")
    dock.push(dock.repository("shop/worker", shop), leaf, "1.0")
    dock.derive(base, image)
    dock.derive(image, leaf)
    reader, captain = dock.user("reader", "owner", of=shop), dock.user("captain", "owner", of=shop)
    dock.user("captain", "owner", of=ground)
    clients = []
    for person in (reader, captain):
        client = Client()
        client.force_login(person)
        clients.append(client)
    return SimpleNamespace(base=base, image=image, leaf=leaf, reader=clients[0], captain=clients[1])


def address(yard: SimpleNamespace, route: str) -> str:
    digest, name = yard.image.digest, ["shop", "shop/api"]
    image = reverse("lifecycle:image", args=[*name, digest])
    return {
        "lineage": reverse("lifecycle:lineage"),
        "lineage image": reverse("lifecycle:lineage-image", args=[digest]),
        "lineage tab": f"{image}?tab=lineage",
        "image history": f"{image}?tab=history",
        "repository": reverse("lifecycle:repository", args=name),
        "images": reverse("lifecycle:images"),
        "rebuilds": reverse("lifecycle:waves"),
        "rebuild plan": reverse("lifecycle:wave-plan"),
        "promotions": reverse("lifecycle:promotions"),
        "inbox": reverse("lifecycle:inbox"),
        "environments": reverse("lifecycle:environments"),
        "search": f"{reverse('lifecycle:search')}?q=python",
        "api lineage": f"/api/v1/images/{digest}/lineage/",
        "api image": f"/api/v1/images/{digest}/",
        "api images": "/api/v1/images/",
        "api findings": f"/api/v1/images/{digest}/findings/",
        "api waves": "/api/v1/rebuild-waves/",
        "api watches": "/api/v1/repositories/",
        "api search": "/api/v1/search/?q=python",
    }[route]


def shown(client: Client, url: str) -> str:
    """Return what an address shows, without what differs between two requests, and without the image's plate."""
    answer = client.get(url)
    assert answer.status_code == 200, url
    text = answer.content.decode()
    if url.startswith("/api/"):
        return json.dumps(answer.json(), sort_keys=True)
    text = re.sub(r"<dt>Base image</dt>.*?</dd>", "", text, flags=re.DOTALL)
    return re.sub(r'<time.*?</time>|nonce="[^"]*"|name="csrfmiddlewaretoken" value="[^"]*"', "", text)


@pytest.mark.parametrize("route", ROUTES)
def test_hidden_base_changes_no_count_list_or_total(yard: SimpleNamespace, route: str) -> None:
    url = address(yard, route)
    with_base = shown(yard.reader, url)
    if route in {"lineage", "lineage image", "lineage tab", "api lineage"}:
        assert shown(yard.captain, url) != with_base  # the twin: who sees the base is told more
    Derivation.objects.filter(base=yard.base).delete()
    Ancestry.objects.filter(ancestor=yard.base).delete()
    assert shown(yard.reader, url) == with_base
    assert yard.base.digest not in with_base
    assert "base/python" not in with_base


def test_image_page_says_how_many_findings_come_from_the_hidden_base(yard: SimpleNamespace) -> None:
    url = reverse("lifecycle:image", args=["shop", "shop/api", yard.image.digest])
    text = " ".join(yard.reader.get(url).content.decode().split())
    assert "On a base you cannot see; 2 of 3 findings come from it." in text
    assert "1 is in layers of shop/api" in text
    assert "3 are in layers of shop/api" not in text
    rows = " ".join(yard.reader.get(f"{url}?tab=findings").content.decode().split())
    assert rows.count("a base you cannot see") >= 2
    seen = " ".join(yard.captain.get(url).content.decode().split())
    assert "On a base you cannot see" not in seen
    assert "2 are from base/python" in seen


def test_image_without_a_base_is_not_said_to_have_a_hidden_one(yard: SimpleNamespace) -> None:
    Derivation.objects.filter(base=yard.base).delete()
    url = reverse("lifecycle:image", args=["shop", "shop/api", yard.image.digest])
    text = " ".join(yard.reader.get(url).content.decode().split())
    assert "you cannot see" not in text
    assert "3 are in layers of shop/api" in text


def test_hidden_image_between_two_visible_ones_leaves_no_gap(yard: SimpleNamespace) -> None:
    """The base is visible, shop/api is hidden, the worker is visible to a user of both other repositories."""
    other = dock.team("other")
    dock.push(dock.repository("other/worker", other), yard.leaf, "1.0")
    client = Client()
    client.force_login(dock.user("narrow", "viewer", of=other))
    dock.user("narrow", "viewer", of=dock.team("base"))
    text = " ".join(
        client.get(reverse("lifecycle:lineage-image", args=[yard.base.digest])).content.decode().split()
    )  # fmt: skip
    assert "1 derived image" in text
    assert 'aria-label="Level 1: 1 image"' in text
    assert yard.image.digest not in text
