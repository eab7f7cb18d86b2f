"""The pages of repositories, images and lineage: access, content and query counts."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import User
from lifecycle.core import clock
from lifecycle.core.errors import Malformed
from lifecycle.core.paging import keyset_page
from lifecycle.environments.models import Environment, Slot
from lifecycle.registry.models import Image, Repository, Tag
from tests.factories import dock

pytestmark = pytest.mark.django_db


def address(name: str, digest: str, **query: str) -> str:
    team = name.partition("/")[0]
    tail = "&".join(f"{key}={value}" for key, value in query.items())
    return reverse("lifecycle:image", args=[team, name, digest]) + (f"?{tail}" if tail else "")


@pytest.fixture
def harbour() -> dict[str, Any]:
    return dock.harbour()


@pytest.fixture
def reader(harbour: dict[str, Any], client: Client) -> Client:
    client.force_login(harbour["reader"])
    return client


def test_other_teams_use_of_same_digest_is_hidden(harbour: dict[str, Any], reader: Client) -> None:
    for team, slug in (("shop", "staging"), ("elsewhere", "secret-dock")):
        owner = dock.team(team)
        environment = Environment.objects.create(team=owner, slug=slug, name=slug, position=0, prefix=slug)
        where = dock.repository(f"{team}/api", owner)
        Slot.objects.create(repository=where, environment=environment, image=harbour["api"], since=clock.now())
    text = reader.get(address("shop/api", harbour["api"].digest)).content.decode()
    assert "staging" in text
    assert "secret-dock" not in text


@pytest.fixture
def stranger(harbour: dict[str, Any]) -> Client:
    """A client whose user has the same roles in another team."""
    other = Client()
    other.force_login(dock.user("elsewhere", "owner", of=dock.team("elsewhere")))
    return other


def pages(harbour: dict[str, Any]) -> list[str]:
    tabs = ("overview", "lineage", "packages", "findings", "promotions", "history")
    return [
        reverse("lifecycle:repository", args=["shop", "shop/api"]),
        reverse("lifecycle:repository", args=["shop", "shop/checkout"]),
        *(reverse("lifecycle:repository", args=["shop", "shop/api"]) + f"?tab={tab}" for tab in ("recipe", "history")),
        *(address("shop/api", harbour["api"].digest, tab=tab) for tab in tabs),
        reverse("lifecycle:lineage-image", args=[harbour["api"].digest]),
    ]


def test_page_answers_users_with_access_and_is_hidden_from_others(
    harbour: dict[str, Any], reader: Client, stranger: Client
) -> None:
    for page in pages(harbour):
        assert reader.get(page).status_code == 200, page
        assert stranger.get(page).status_code == 404, page
        assert Client().get(page).status_code == 302, page


def test_hidden_and_missing_pages_answer_the_same(harbour: dict[str, Any], stranger: Client) -> None:
    hidden = stranger.get(reverse("lifecycle:repository", args=["shop", "shop/api"]))
    absent = stranger.get(reverse("lifecycle:repository", args=["shop", "shop/nothing"]))
    assert b"Repository not found, or you don&#x27;t have access." in hidden.content
    assert b"Repository not found, or you don&#x27;t have access." in absent.content


def test_lists_show_strangers_no_rows_of_other_teams(harbour: dict[str, Any], reader: Client, stranger: Client) -> None:
    for name in ("lifecycle:images", "lifecycle:lineage"):
        assert b"base/debian" in reader.get(reverse(name)).content
        assert b"base/debian" not in stranger.get(reverse(name)).content


def test_findings_show_match_reason_and_who_can_fix_them(harbour: dict[str, Any], reader: Client) -> None:
    text = reader.get(address("shop/api", harbour["api"].digest, tab="findings")).content.decode()
    assert "openssl 3.0.11-1~deb12u2 &lt; 3.0.14-1~deb12u1" in text
    assert "base/python:1.0" in text
    assert "shop/api, own layer" in text
    assert "Who can fix 7 findings" in text


def test_findings_are_filtered_by_severity(harbour: dict[str, Any], reader: Client) -> None:
    text = reader.get(address("shop/api", harbour["api"].digest, tab="findings", severity="critical")).content.decode()
    assert "CVE-2024-5535" in text
    assert "CVE-2011-4116" not in text


def test_page_warns_when_base_tag_has_moved(harbour: dict[str, Any], reader: Client) -> None:
    digest = dock.sha("shop/static")
    assert "1 release behind" in reader.get(address("shop/static", digest)).content.decode()


def test_lineage_page_reports_what_it_drew_and_lists_every_image(harbour: dict[str, Any], reader: Client) -> None:
    text = reader.get(reverse("lifecycle:lineage-image", args=[harbour["api"].digest])).content.decode()
    assert "Shows 4 of 8 images, plus 4 in 1 group." in text
    assert all(f"1.{number}" in text for number in range(4))
    assert "Annotation or label. Confidence low." in text


def test_index_page_shows_platforms_and_their_findings(harbour: dict[str, Any], reader: Client) -> None:
    arm = dock.image("shop/api arm", layers=4, architecture="arm64")
    both = dock.index("shop/api both", harbour["api"], arm)
    dock.push(Repository.objects.get(name="shop/api"), both, "2.0")
    text = reader.get(address("shop/api", both.digest)).content.decode()
    assert "linux/amd64" in text
    assert "linux/arm64" in text
    assert "7 findings" in text
    chosen = reader.get(address("shop/api", both.digest, platform=arm.digest)).content.decode()
    assert "Promotion waits for the scan." in chosen


LISTS = {
    "images": lambda: reverse("lifecycle:images"),
    "lineage roots": lambda: reverse("lifecycle:lineage"),
    "tags": lambda: reverse("lifecycle:repository", args=["shop", "shop/app-0"]),
    "tag history": lambda: reverse("lifecycle:repository", args=["shop", "shop/app-0"]) + "?tab=history",
    "packages": lambda: address("shop/app-0", dock.sha("base 0"), tab="packages"),
    "findings": lambda: address("shop/app-0", dock.sha("base 0"), tab="findings"),
    "graph": lambda: reverse("lifecycle:lineage-image", args=[dock.sha("base 0")]),
}


@pytest.mark.parametrize("name", sorted(LISTS))
def test_list_costs_same_queries_for_one_and_three_rows(name: str, client: Client) -> None:
    client.force_login(_reader_with(1))
    one = _queries_of(client, LISTS[name]())
    _reader_with(3)
    assert _queries_of(client, LISTS[name]()) == one <= 36


def _queries_of(client: Client, page: str) -> int:
    client.get(page)  # warms the content-type caches, which survive a test
    with CaptureQueriesContext(connection) as queries:
        assert client.get(page).status_code == 200
    return len(queries)


def _reader_with(count: int) -> User:
    """Return a user with access to `count` rows of each kind. Existing rows are kept."""
    reader = dock.user("reader", "viewer", of=dock.team("shop"))
    for number in range(count):
        if Image.objects.filter(digest=dock.sha(f"base {number}")).exists():
            continue
        where, first = dock.repository(f"shop/app-{number}"), dock.repository("shop/app-0")
        base, derived = dock.image(f"base {number}", layers=1), dock.image(f"derived {number}", layers=2)
        dock.push(where, base, "1.0")
        dock.push(where, derived, "2.0")
        dock.push(first, derived, f"more-{number}")
        dock.derive(base, derived)
        subject = Image.objects.get(digest=dock.sha("base 0"))
        if number:
            dock.derive(subject, derived)
        package = dock.package(f"package-{number}", "1.0")
        dock.carry(subject, 0, package)
        dock.advisory(f"CVE-2026-000{number}", "high", package, fixed="1.1")
    return reader


def test_keyset_pages_have_no_gaps_or_repeats() -> None:
    for number in range(5):
        dock.repository(f"shop/app-{number}")
    rows, order = Repository.objects.all(), ("-updated_at", "-id")
    first = keyset_page(rows, order, size=2)
    second = keyset_page(rows, order, after=first.older, size=2)
    third = keyset_page(rows, order, after=second.older, size=2)
    names = [row.name for row in (*first.rows, *second.rows, *third.rows)]
    assert names == [f"shop/app-{number}" for number in (4, 3, 2, 1, 0)]
    assert (first.newer, third.older) == ("", "")
    assert keyset_page(rows, order, before=third.newer, size=2).rows == second.rows


def test_cursor_of_another_user_is_refused() -> None:
    with pytest.raises(Malformed):
        keyset_page(Repository.objects.all(), ("-id",), after="made-up")


def test_theme_is_stored_in_cookie_and_redirects_only_to_own_pages(harbour: dict[str, Any], reader: Client) -> None:
    answer = reader.post(reverse("lifecycle:theme"), {"theme": "dark", "next": "https://evil.example/"})
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert b'data-bs-theme="dark"' in reader.get(reverse("lifecycle:images")).content


def test_pages_have_no_inline_script_or_style(harbour: dict[str, Any], reader: Client) -> None:
    for page in (*pages(harbour), reverse("lifecycle:images"), reverse("lifecycle:lineage")):
        text = reader.get(page).content.decode()
        assert " style=" not in text
        assert "<style" not in text
        assert "hx-on" not in text
        assert all("src=" in part.partition(">")[0] for part in text.split("<script")[1:])


def test_worker_tags_are_hidden_by_default(harbour: dict[str, Any], reader: Client) -> None:
    where = Repository.objects.get(name="shop/api")
    artifact = dock.image("a context")
    Image.objects.filter(pk=artifact.pk).update(kind=Image.Kind.ARTIFACT)
    for name, image in (("rebuild-0123456789abcdef", harbour["api"]), ("build-context-0123456789abcdef", artifact)):
        Tag.objects.create(repository=where, name=name, image=image, updated_at=clock.now())
    repository = reverse("lifecycle:repository", args=["shop", "shop/api"])
    plain, whole = (reader.get(repository + query).content.decode() for query in ("", "?own=yes"))
    assert "2 internal tags hidden" in plain
    assert "rebuild-0123456789abcdef" not in plain
    assert "rebuild-0123456789abcdef" not in reader.get(address("shop/api", harbour["api"].digest)).content.decode()
    assert "rebuild-0123456789abcdef" in whole
    assert "not an image" in whole  # a build context cannot be promoted
    assert "rebuild-0123456789abcdef" not in reader.get(reverse("lifecycle:images")).content.decode()


def test_findings_page_lists_what_could_not_be_judged(harbour: dict[str, Any], reader: Client) -> None:
    page = address("shop/api", harbour["api"].digest, tab="findings")
    assert "Could not be judged" not in reader.get(page).content.decode()
    package = dock.package("odd", "1.0", kind="pypi")
    dock.carry(harbour["api"], 0, package)
    match = dock.advisory("PYSEC-ODD", "high", package).matches.get()
    match.state, match.reason, match.fixed_version = "unknown", "an affected range cannot be read: fixed x", ""
    match.save()
    text = reader.get(page).content.decode()
    assert text.count("PYSEC-ODD") == 1
    assert "an affected range cannot be read: fixed x" in text
