"""Pages for teams, roles, people and tokens. Lists use a constant number of queries."""

from __future__ import annotations

import re
from html import escape, unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import tokens
from accounts.models import ApiToken, Role, Team, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.models import RoleGrant
from lifecycle.environments.models import Environment
from tests.factories.people import person

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
TOKEN = re.compile(r"gdk_(?:pat|rob)_[A-Za-z0-9]{40}")


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture
def admin(db):
    return User.objects.create(username="admin", is_superuser=True)


def test_admin_creates_team_and_owns_it(admin, dock):
    answer = browser(admin).post("/teams/", {"slug": "web", "name": "Web"})
    assert answer["Location"] == "/teams/web/"
    assert RoleGrant.objects.get(user=admin).team.slug == "web"
    assert browser(dock.owner).post("/teams/", {"slug": "mine"}).status_code == 403
    assert "New team" not in browser(dock.owner).get("/teams/").content.decode()


def test_owner_grants_and_revokes_role(dock):
    client = browser(dock.owner)
    form = {"username": "outsider", "role": "creator", "repository_pattern": "shop/*", "environment": "", "until": ""}
    assert client.post("/teams/shop/members/", form)["Location"] == "/teams/shop/"
    grant = RoleGrant.objects.get(user=dock.outsider)
    assert (grant.role.slug, grant.repository_pattern, grant.granted_by) == ("creator", "shop/*", dock.owner)
    page = client.get("/teams/shop/").content.decode()
    assert "outsider" in page
    where = reverse("lifecycle:team-revoke-grant", args=["shop", grant.pk])
    assert "Revoke role creator from outsider?" in client.get(where).content.decode()
    assert RoleGrant.objects.filter(pk=grant.pk).exists()  # the confirmation page changes nothing
    client.post(where)
    assert not RoleGrant.objects.filter(pk=grant.pk).exists()


def test_grant_of_another_team_is_not_found(dock, admin):
    other = services.create_team(actor=admin, slug="other", name="")
    foreign = RoleGrant.objects.get(team=other)
    assert browser(dock.owner).post(f"/teams/shop/grants/{foreign.pk}/revoke/").status_code == 404
    assert RoleGrant.objects.filter(pk=foreign.pk).exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"username": "nobody-here"}, "No active account nobody-here found. Check the user name."),
        ({"role": "king"}, "Select a valid choice"),
        ({"until": "2001-01-01"}, "The date is in the past. Choose a later date."),
        ({"environment": "moon"}, "Select a valid choice"),
    ],
)
def test_invalid_form_is_shown_again_with_the_reason(dock, change, words):
    form = {"username": "outsider", "role": "viewer", "repository_pattern": "*"} | change
    answer = browser(dock.owner).post("/teams/shop/members/", form)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not RoleGrant.objects.filter(user=dock.outsider).exists()


@pytest.mark.parametrize(
    ("address", "typed", "reason"),
    [
        ("/teams/", {"slug": "shop", "name": "Corner shop"}, "Team shop already exists. Choose another name."),
        ("/teams/", {"slug": "Shop!", "name": "Corner shop"}, "Enter a short name of up to 60 lower-case letters"),
        (
            "/teams/shop/members/",
            {"username": "outsider", "role": "viewer", "repository_pattern": "../*"},
            "../* is not a valid repository pattern. Use shop/api, shop/* or *.",
        ),
        (
            "/teams/shop/environments/",
            {"slug": "live", "name": "Our live", "target_prefix": "shop", "required_approvals": "3"},
            "A team is named shop, and its members can push there. Choose another target prefix.",
        ),
        ("/teams/shop/robots/", {"name": "Deploy Bot"}, "Enter a name of up to 60 lower-case letters and digits"),
        ("/people/", {"username": "owner"}, "Account owner already exists. Choose another name."),
        ("/people/", {"username": "Own Er"}, "Enter a user name of up to 60 lower-case letters and digits"),
        ("/roles/", {"slug": "viewer", "name": "Looker", "verbs": ["image.view"]}, "Role viewer already exists."),
    ],
)
def test_error_of_the_service_is_shown_on_the_form_with_all_that_was_typed(admin, dock, address, typed, reason):
    before = AuditEvent.objects.count()
    answer = browser(admin).post(address, typed)
    page = answer.content.decode()
    assert answer.status_code == 422
    assert reason in unescape(page)
    for value in typed.values():
        for text in [value] if isinstance(value, str) else value:
            assert re.search(rf'value="{re.escape(escape(text))}"', page), text
    assert AuditEvent.objects.count() == before


def test_viewer_sees_team_without_forms(dock):
    viewer = browser(person("viewer", dock.team, "viewer"))
    for tab in ("members", "robots", "environments", "why"):
        page = viewer.get(f"/teams/shop/?tab={tab}").content.decode()
        assert 'method="post" action="/teams/' not in page
    assert browser(dock.outsider).get("/teams/shop/").status_code == 404


def test_new_environment_is_added_at_the_end(dock):
    form = {"slug": "production", "name": "", "target_prefix": "production", "required_approvals": "2"}
    answer = browser(dock.owner).post("/teams/shop/environments/", form)
    assert answer["Location"] == "/teams/shop/?tab=environments"
    made = Environment.objects.get(slug="production")
    assert (made.position, made.prefix, made.required_approvals) == (2, "production", 2)
    assert "production/shop/" in browser(dock.owner).get("/teams/shop/?tab=environments").content.decode()


def test_robot_is_created_granted_a_token_and_retired(dock):
    client = browser(dock.owner)
    where = client.post("/teams/shop/robots/", {"name": "ci"})["Location"]
    client.post(f"{where}grants/", {"grant-role": "creator", "grant-repository_pattern": "shop/*"})
    made = client.post(f"{where}tokens/", {"name": "pipeline", "days": "30"})
    text = TOKEN.search(made.content.decode())[0]
    assert tokens.find_token(text).user.username == "shop+ci"
    assert "docker login localhost:" in made.content.decode()
    assert "no-store" in made["Cache-Control"]
    assert TOKEN.search(client.get(where).content.decode()) is None  # shown once
    client.post(f"{where}tokens/{ApiToken.objects.get().pk}/revoke/")
    assert tokens.find_token(text) is None
    assert client.post(f"{where}retire/").status_code == 302
    assert "Deactivated" in client.get(where).content.decode()


def test_team_page_explains_missing_access(dock):
    question = "/teams/shop/?tab=why&who=requester&verb=promotion.approve&repository=shop/api&environment=staging"
    page = browser(dock.requester).get(question).content.decode()
    assert "requester cannot use promotion.approve on shop/api in staging." in page
    assert "Grant a role that includes promotion.approve." in page
    assert "approver, owner, second" in page


def test_only_admin_can_create_change_and_delete_role(admin, dock):
    client = browser(admin)
    form = {"slug": "crew", "name": "Crew", "verbs": ["promotion.request", "promotion.approve"]}
    assert client.post("/roles/", form)["Location"] == "/roles/crew/"
    page = client.get("/roles/crew/").content.decode()
    assert "This role can both request and approve promotions." in page
    client.post("/roles/crew/", {"name": "Crew", "verbs": ["image.view"]})
    assert Role.objects.get(slug="crew").verbs == ["image.view"]
    assert client.post("/roles/crew/", {"name": "Crew"}).status_code == 422
    assert client.post("/roles/viewer/", {"name": "Viewer", "verbs": ["image.delete"]}).status_code == 403
    assert "Save" not in client.get("/roles/viewer/").content.decode()
    assert "Save" not in browser(dock.owner).get("/roles/crew/").content.decode()
    assert browser(dock.owner).get("/roles/?new").status_code == 403
    client.post("/roles/crew/delete/")
    assert not Role.objects.filter(slug="crew").exists()


def test_account_is_created_deactivated_and_reactivated(admin):
    client = browser(admin)
    made = client.post("/people/", {"username": "lee", "with_password": "1"})
    lee = User.objects.get(username="lee")
    password = re.search(r'<copy-field value="([^"]{20})"', made.content.decode())[1]
    assert lee.check_password(password)
    assert "no-store" in made["Cache-Control"]
    assert password not in client.get("/people/").content.decode()
    assert "Deactivate lee?" in client.get(f"/people/{lee.pk}/deactivate/").content.decode()
    client.post(f"/people/{lee.pk}/deactivate/")
    lee.refresh_from_db()
    assert not lee.is_active
    again = client.post(f"/people/{lee.pk}/reactivate/").content.decode()
    lee.refresh_from_db()
    assert not lee.has_usable_password()
    assert re.search(r'<copy-field value="http://localhost:\d+/account/link/[^"]{43}/"', again)


def test_personal_token_is_shown_once_and_works_until_revoked(dock):
    client = browser(dock.requester)
    made = client.post("/account/tokens/", {"name": "laptop", "days": "7"}).content.decode()
    text = TOKEN.search(made)[0]
    assert "skopeo login localhost:" in made
    assert Client(headers={"Authorization": f"Bearer {text}"}).get("/api/v1/images/").status_code == 200
    later = client.get("/account/tokens/").content.decode()
    assert text not in later
    assert "127.0.0.1" in later
    assert client.post("/account/tokens/", {"name": "x", "days": "400"}).status_code == 422
    assert browser(dock.owner).post(f"/account/tokens/{ApiToken.objects.get().pk}/revoke/").status_code == 404
    client.post(f"/account/tokens/{ApiToken.objects.get().pk}/revoke/")
    assert Client(headers={"Authorization": f"Bearer {text}"}).get("/api/v1/images/").status_code == 401


LISTS = (
    "/teams/",
    "/teams/shop/",
    "/teams/shop/?tab=robots",
    "/teams/shop/robots/{robot}/",
    "/roles/viewer/",
    "/people/",
)


@pytest.mark.parametrize("page", [*LISTS, "/account/tokens/", "/audit/"])
def test_list_uses_as_many_queries_for_three_rows_as_for_one(page, admin):
    team = services.create_team(actor=admin, slug="shop", name="Shop")
    client = browser(admin)
    _rows(team, admin, 1)
    where = page.format(robot=team.robots.get(name="r0").pk)
    one = _queries(client, where)
    _rows(team, admin, 3)
    assert _queries(client, where) == one <= 22


def _rows(team: Team, admin: User, count: int) -> None:
    for number in range(count):
        if User.objects.filter(username=f"p{number}").exists():
            continue
        user = User.objects.create(username=f"p{number}")
        services.add_member(team.pk, actor=admin, username=user.username, role="viewer")
        made = services.create_robot(team.pk, actor=admin, name=f"r{number}")
        first = team.robots.get(name="r0")
        services.create_robot_token(made.pk, actor=admin, name="t")
        services.create_robot_token(first.pk, actor=admin, name=f"t{number}")
        services.grant_robot(first.pk, actor=admin, role="viewer", repository_pattern=f"shop/{number}")
        services.create_role(actor=admin, slug=f"role-{number}", name="", verbs=["image.view"])
        services.create_team(actor=admin, slug=f"team-{number}", name="")
        services.create_api_token(admin, actor=admin, name=f"t{number}")
    assert AuditEvent.objects.count() >= count


def _queries(client: Client, page: str) -> int:
    client.get(page)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(page).status_code == 200
    return len(queries)
