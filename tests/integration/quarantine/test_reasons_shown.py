"""Why an image is quarantined is told to its teams, not to everybody who can see an open repository."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.queries import system_user
from lifecycle.quarantine import services
from lifecycle.quarantine.queries import covers_shown
from lifecycle.registry.models import Repository
from tests.clients import Caller, browser
from tests.factories.dock import team
from tests.factories.people import person

pytestmark = pytest.mark.django_db
SECRET = "credentials of the payment service leaked"


@pytest.mark.parametrize("visibility", ["internal", "public"])
def test_reader_of_an_open_image_learns_that_it_is_quarantined_but_not_why(dock: Any, visibility: str) -> None:
    guard, stranger = person("guard", dock.team, "security"), person("stranger")
    Repository.objects.filter(pk=dock.repository.pk).update(visibility=visibility)
    row = services.quarantine(dock.image.digest, actor=guard, reason=SECRET)
    pages = ["/quarantines/", f"/search/?q=Q-{row.pk}", "/images/", "/repositories/shop/shop/api/", "/lineage/"]
    pages.append(f"/images/shop/shop/api/{dock.image.digest}/")
    for who, is_told in ((guard, True), (stranger, False)):
        client, told = browser(who), ""
        for page in pages:
            told += client.get(page, follow=True).content.decode()
        assert "uarantined" in told, who
        assert (SECRET in told) is is_told
        assert client.get(f"/quarantines/{row.pk}/").status_code == (200 if is_told else 404)
        api = Caller(who)
        assert len(api.get("quarantines/").json()["results"]) == int(is_told)
        assert api.get(f"quarantines/{row.pk}/").status_code == (200 if is_told else 404)
        for path in (f"images/{dock.image.digest}/", "images/"):
            answer = api.get(path)
            assert answer.status_code == 200
            assert (SECRET in answer.content.decode()) is is_told
            assert b'"direct":true' in answer.content.replace(b" ", b"")


def test_reason_is_read_with_the_covers_also_by_who_has_no_grant(dock: Any, django_assert_num_queries: Any) -> None:
    guard = person("guard", dock.team, "security")
    with django_assert_num_queries(0):
        assert covers_shown([], guard) == {}
    assert covers_shown([dock.image.pk], guard) == {}
    services.quarantine(dock.image.digest, actor=guard, reason=SECRET)
    for who, reason in ((guard, SECRET), (person("stranger"), ""), (person("other", team("other"), "owner"), "")):
        (cover,) = covers_shown([dock.image.pk], who)[dock.image.pk]
        assert (cover.reason, cover.is_direct) == (reason, True)
    assert covers_shown([dock.image.pk], system_user())[dock.image.pk][0].reason == SECRET
