"""Open and archived repositories: who sees images without a grant, who pulls, and what stays with the team."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.queries import images_visible_to, repositories_open_to, repositories_visible_to
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.ingest import openness
from lifecycle.oci.scopes import parse_scopes
from lifecycle.promotion import services as promotions
from lifecycle.promotion.queries import promotions_visible_to
from lifecycle.promotion.refusals import why_not_from
from lifecycle.registry.models import Repository
from lifecycle.tokens.rights import allowed_actions
from tests.clients import Caller, browser
from tests.factories import dock as rows
from tests.factories.people import person, robot
from tests.factories.shop import make_request

pytestmark = pytest.mark.django_db
PAGE = "/t/shop/r/shop/api/"


def pulls(user: User, name: str = "shop/api") -> frozenset[str]:
    return allowed_actions(user, parse_scopes([f"repository:{name}:pull,push,delete"])).get(
        ("repository", name), frozenset()
    )


def test_internal_repository_is_seen_and_pulled_by_every_active_account(dock: SimpleNamespace) -> None:
    stranger = person("stranger")
    assert not repositories_open_to(stranger).exists()
    assert not images_visible_to(stranger).exists()
    assert pulls(stranger) == frozenset()
    assert browser(stranger).get(PAGE).status_code == 404
    openness.set_visibility(dock.repository.pk, "internal", actor=dock.owner)
    assert [row.name for row in repositories_open_to(stranger)] == ["shop/api"]
    assert images_visible_to(stranger).get() == dock.image
    assert pulls(stranger) == {"pull"}
    client = browser(stranger)
    assert client.get(PAGE).status_code == 200
    assert client.get(f"{PAGE}i/{dock.image.digest}/").status_code == 200
    assert "shop/api" in client.get("/images/").content.decode()
    event = AuditEvent.objects.get(action="repository.visibility_changed")
    assert (event.actor, event.details) == (dock.owner, {"before": "private", "after": "internal"})
    openness.set_visibility(dock.repository.pk, "private", actor=dock.owner)
    assert (pulls(stranger), client.get(PAGE).status_code) == (frozenset(), 404)


def test_inactive_accounts_and_suspended_robots_see_nothing_of_an_internal_repository(dock: SimpleNamespace) -> None:
    Repository.objects.update(visibility="internal")
    machine = robot(rows.team("other"), maker=person("maker")).user
    assert (pulls(machine), repositories_open_to(machine).count() > 0) == ({"pull"}, True)
    User.objects.filter(username="maker").update(is_active=False)
    machine = User.objects.get(pk=machine.pk)
    assert (pulls(machine), repositories_open_to(machine).count()) == (frozenset(), 0)
    gone = person("gone")
    assert pulls(gone) == {"pull"}
    gone.is_active = False
    gone.save()
    assert (pulls(gone), repositories_open_to(gone).count()) == (frozenset(), 0)


def test_open_repository_shows_nothing_of_what_its_team_does(dock: SimpleNamespace) -> None:
    request = make_request(dock)
    Repository.objects.update(visibility="internal")
    stranger = person("stranger")
    assert not repositories_visible_to(stranger).exists()
    assert not promotions_visible_to(stranger).exists()
    client = browser(stranger)
    for tab in ("overview", "promotions", "policy", "runtime", "pentests", "history"):
        page = client.get(f"{PAGE}i/{dock.image.digest}/?tab={tab}")
        assert page.status_code == 200, tab
        assert f"/promotions/{request.pk}/" not in page.content.decode(), tab
    own = browser(dock.owner).get(f"{PAGE}i/{dock.image.digest}/?tab=promotions").content.decode()
    assert f"/promotions/{request.pk}/" in own
    assert 'href="?tab=recipe"' not in client.get(f"{PAGE}?tab=recipe").content.decode()
    assert 'href="?tab=recipe"' in browser(dock.owner).get(PAGE).content.decode()
    api = Caller(stranger)
    assert api.get(f"repositories/{dock.repository.pk}/recipe/").status_code == 404
    assert api.get(f"images/{dock.image.digest}/").json()["places"][0]["repository"] == "shop/api"


def test_lists_of_images_over_the_api_follow_the_visibility(dock: SimpleNamespace) -> None:
    api = Caller(person("stranger"))
    assert api.get("images/").json()["results"] == []
    Repository.objects.filter(pk=dock.repository.pk).update(visibility="internal")
    assert [row["digest"] for row in api.get("images/").json()["results"]] == [dock.image.digest]
    assert [row["name"] for row in api.get("repositories/").json()["results"]] == ["shop/api"]


def test_visitors_see_public_repositories_only_where_anonymous_access_is_on(
    dock: SimpleNamespace, settings: Any
) -> None:
    with pytest.raises(Conflict, match="ANONYMOUS_ACCESS"):
        openness.set_visibility(dock.repository.pk, "public", actor=dock.owner)
    settings.ANONYMOUS_ACCESS = True
    openness.set_visibility(dock.repository.pk, "public", actor=dock.owner)
    page = Client().get(PAGE)
    assert (page.status_code, dock.image.digest[7:19] in page.content.decode()) == (200, True)
    image = Client().get(f"{PAGE}i/{dock.image.digest}/")
    assert (image.status_code, image["Location"].startswith("/accounts/sign-in/")) == (302, True)
    hidden, absent = Client().get("/t/shop/r/shop/none/"), Client().get("/t/none/r/none/none/")
    assert (hidden.status_code, absent.status_code) == (302, 302)
    settings.ANONYMOUS_ACCESS = False
    assert Client().get(PAGE).status_code == 302
    assert pulls(person("stranger")) == {"pull"}  # as internal


def test_only_who_manages_the_team_opens_and_archives(dock: SimpleNamespace) -> None:
    Repository.objects.update(visibility="internal")
    for change in (
        lambda actor: openness.set_visibility(dock.repository.pk, "private", actor=actor),
        lambda actor: openness.set_archived(dock.repository.pk, True, actor=actor),
    ):
        with pytest.raises(NotPermitted, match=r"team\.manage"):
            change(person(f"stranger{id(change)}"))
        with pytest.raises(NotPermitted, match=r"team\.manage"):
            change(dock.requester)
    Repository.objects.update(visibility="private")
    with pytest.raises(NotFound):
        openness.set_visibility(dock.repository.pk, "internal", actor=person("nobody"))
    with pytest.raises(Malformed):
        openness.set_visibility(dock.repository.pk, "secret", actor=dock.owner)
    assert openness.set_archived(dock.repository.pk, True, actor=dock.owner).is_archived


def test_vault_stays_private(dock: SimpleNamespace) -> None:
    vault = rows.repository("withdrawn/shop/api", dock.team)
    Repository.objects.filter(pk=vault.pk).update(family="shop/api")
    with pytest.raises(Conflict, match="always private"):
        openness.set_visibility(vault.pk, "internal", actor=dock.owner)
    Repository.objects.filter(pk=vault.pk).update(visibility="internal")
    assert pulls(person("stranger"), "withdrawn/shop/api") == frozenset()


def test_archived_repository_takes_no_push_and_no_promotion(dock: SimpleNamespace) -> None:
    request = make_request(dock)
    with pytest.raises(Conflict, match="is open"):
        openness.set_archived(dock.repository.pk, True, actor=dock.owner)
    assert not openness.set_archived(dock.repository.pk, False, actor=dock.owner).is_archived  # as it is
    promotions.withdraw(request.pk, actor=dock.requester)
    assert "push" in pulls(dock.requester)
    openness.set_archived(dock.repository.pk, True, actor=dock.owner)
    assert pulls(dock.requester) == {"pull"}
    dock.repository.refresh_from_db()
    assert "archived" in str(why_not_from(dock.repository, dock.staging))
    with pytest.raises(Conflict, match="archived"):
        make_request(dock)
    assert "Archived" in browser(dock.owner).get(PAGE).content.decode()
    openness.set_archived(dock.repository.pk, False, actor=dock.owner)
    assert "push" in pulls(dock.requester)
    dock.repository.refresh_from_db()
    assert make_request(dock).state == "open"
    assert AuditEvent.objects.filter(action="repository.archived").count() == 2


def test_settings_page_keeps_a_refused_choice(dock: SimpleNamespace) -> None:
    client = browser(dock.owner)
    refused = client.post(f"{PAGE}-/visibility/", {"visibility": "public"})
    assert (refused.status_code, "ANONYMOUS_ACCESS" in refused.content.decode()) == (422, True)
    assert '<option value="public" selected' in refused.content.decode()
    assert client.post(f"{PAGE}-/visibility/", {"visibility": "internal"}).status_code == 302
    assert client.post(f"{PAGE}-/archive/").status_code == 302
    dock.repository.refresh_from_db()
    assert (dock.repository.visibility, dock.repository.is_archived) == ("internal", True)
    assert client.post(f"{PAGE}-/archive/", {"restore": "yes"}).status_code == 302


def test_one_call_changes_all_or_nothing(dock: SimpleNamespace) -> None:
    api, url = Caller(dock.owner), f"repositories/{dock.repository.pk}/"
    refused = api.patch(url, {"description": "new", "visibility": "public"})
    dock.repository.refresh_from_db()
    assert (refused.status_code, dock.repository.description) == (409, "")
    done = api.patch(url, {"description": "new", "visibility": "internal", "archived": True}).json()
    assert (done["description"], done["visibility"], done["archived_at"] is None) == ("new", "internal", False)


def test_commands_list_and_change_repositories(dock: SimpleNamespace, run: Any) -> None:
    assert run(dock.owner, "repository", "set", "shop/api", "--visibility", "internal")[0] == 0
    assert "internal" in run(person("stranger"), "repository", "list")[1]
    assert run(None, "repository", "archive", "shop/api")[0] == 1
    assert run(dock.owner, "repository", "archive", "shop/api")[0] == 0
    assert "archived_at" in run(None, "repository", "show", "shop/api", "--json")[1]
    assert run(None, "repository", "set", "shop/api")[0] == 2
    dock.repository.refresh_from_db()
    assert dock.repository.is_archived
