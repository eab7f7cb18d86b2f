"""Access as code: export, comparison and application, and what each refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Role, Team, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import Conflict, NotFound, NotPermitted, StaleVersion
from lifecycle.declared import services
from lifecycle.declared.document import BadFile, as_yaml, json_schema, read_text
from lifecycle.declared.state import export
from lifecycle.environments.models import Environment
from tests.clients import Caller, browser
from tests.factories.people import person, robot

pytestmark = pytest.mark.django_db
RENAMED = "version: 1\nteams: [{name: shop, title: New}]"


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create(username="admin", is_superuser=True)


def applied(text: str, actor: User, *, remove: bool = False) -> services.Applied:
    document = read_text(text)
    etag = services.compare(document, actor=actor).etag
    return services.apply(document, actor=actor, etag=etag, with_removals=remove)


def words(changes: Any) -> list[str]:
    return [f"{change.act} {change.what}" for change in changes]


def test_export_is_what_is_there(dock: SimpleNamespace, admin: User) -> None:
    robot(dock.team, "creator")
    authority.create_role(actor=admin, slug="crew", name="Crew", verbs=["image.view"])
    for actor in (dock.owner, admin):
        text = as_yaml(export(actor))
        assert services.compare(read_text(text), actor=actor).changes == ()
    assert "roles" not in export(dock.owner)
    assert export(admin)["roles"] == [{"name": "crew", "title": "Crew", "verbs": ["image.view"]}]
    assert export(dock.approver)["teams"] == []  # manages none
    assert [team["name"] for team in export(dock.approver, ["shop"])["teams"]] == ["shop"]
    for name in ("shop", "none"):
        with pytest.raises(NotFound):
            export(dock.outsider, [name])


def test_new_team_with_everything_in_one_file(admin: User) -> None:
    person("kim")
    text = """
version: 1
roles:
- {name: release-manager, title: Release manager, verbs: [image.view, promotion.request, promotion.execute]}
teams:
- name: web
  title: The Web
  environments:
  - {name: staging, prefix: web-staging}
  - {name: live, prefix: web-live, production: true}
  robots:
  - name: ci
  grants:
  - {user: kim, role: owner}
  - {user: kim, role: release-manager, environment: live, until: 2099-01-31T00:00:00Z}
  - {robot: ci, role: creator, repositories: web/*}
"""
    plan = services.compare(read_text(text), actor=admin)
    assert not Team.objects.filter(slug="web").exists()
    assert words(plan.changes) == [
        "add role release-manager", "add team web", "add environment web/staging", "add environment web/live",
        "add robot web+ci", "add web: kim as owner of *", "add web: kim as release-manager of * in live",
        "add web: robot ci as creator of web/*",
    ]  # fmt: skip
    assert len(applied(text, admin).done) == 8
    path = Environment.objects.filter(team__slug="web").order_by("position")
    assert list(path.values_list("slug", "is_production")) == [("staging", False), ("live", True)]
    again = services.compare(read_text(text), actor=admin)
    assert words(again.changes) == ["remove web: admin as owner of *"]  # who creates a team owns it at first
    assert words(applied(text, admin, remove=True).done) == words(again.changes)
    assert services.compare(read_text(text), actor=admin).changes == ()
    event = AuditEvent.objects.filter(action="access.file_applied").earliest("pk")
    assert event.details == {"changes": 8, "removals": 0}
    assert AuditEvent.objects.filter(action="grant.created", team__slug="web").count() == 4  # each its own event


def test_nothing_is_removed_without_the_flag_and_the_last_owner_stays(dock: SimpleNamespace) -> None:
    text = "version: 1\nteams:\n- {name: shop, grants: [{user: owner, role: owner}]}"
    kept = applied(text, dock.owner)
    assert (kept.done, len(kept.kept)) == ((), 4)
    assert RoleGrant.objects.filter(team=dock.team).count() == 5
    assert len(applied(text, dock.owner, remove=True).done) == 4
    assert [grant.user for grant in RoleGrant.objects.filter(team=dock.team)] == [dock.owner]
    with pytest.raises(Conflict, match="last owner"):
        applied("version: 1\nteams:\n- {name: shop, grants: []}", dock.owner, remove=True)
    assert RoleGrant.objects.filter(team=dock.team).count() == 1


def test_owner_changes_hands_in_one_file(dock: SimpleNamespace) -> None:
    person("heir")
    admin = User.objects.create(username="admin", is_superuser=True)
    applied("version: 1\nteams:\n- {name: shop, grants: [{user: heir, role: owner}]}", admin, remove=True)
    assert [str(grant.user) for grant in RoleGrant.objects.filter(team=dock.team)] == ["heir"]


def test_each_change_needs_its_right_and_all_or_nothing(dock: SimpleNamespace, admin: User) -> None:
    Role.objects.create(slug="breaker", name="Breaker", verbs=["promotion.breakglass"])
    text = (
        "version: 1\nteams:\n- {name: shop, title: New, grants: [{user: owner, role: owner},"
        " {user: approver, role: breaker}]}"
    )
    with pytest.raises(NotPermitted, match=r"approver as breaker of \*: You can only grant"):
        applied(text, dock.owner)
    dock.team.refresh_from_db()
    assert dock.team.name == "Shop"
    with pytest.raises(NotPermitted):
        applied(RENAMED, dock.approver)
    with pytest.raises(NotPermitted, match="Only admins"):
        applied("version: 1\nroles: [{name: mine, verbs: [image.view]}]", dock.owner)
    for name in ("shop", "none"):
        with pytest.raises(NotFound, match="Only admins create teams"):
            services.compare(read_text(f"version: 1\nteams: [{{name: {name}}}]"), actor=dock.outsider)
    assert applied(text, admin).done


def test_what_changed_since_the_comparison_stops_it(dock: SimpleNamespace) -> None:
    document = read_text(RENAMED)
    etag = services.compare(document, actor=dock.owner).etag
    authority.add_member(dock.team.pk, actor=dock.owner, username="outsider", role="viewer")
    with pytest.raises(StaleVersion):
        services.apply(document, actor=dock.owner, etag=etag)
    assert applied(RENAMED, dock.owner).done


def test_nothing_that_the_file_names_changes_meanwhile(dock: SimpleNamespace, admin: User) -> None:
    document = read_text("version: 1\nroles: []\nteams: [{name: shop}]")
    etag = services.compare(document, actor=admin).etag
    with CaptureQueriesContext(connection) as queries:
        services.apply(document, actor=admin, etag=etag)
    locks = [row["sql"] for row in queries if "FOR " in row["sql"] and "UPDATE" in row["sql"]]
    assert ['"accounts_team"' in locks[0], '"accounts_role"' in locks[1], len(locks)] == [True, True, 2]


def test_environments_are_reordered_renamed_and_removed(dock: SimpleNamespace) -> None:
    text = """
version: 1
teams:
- name: shop
  environments:
  - {name: qa, prefix: qa}
  - {name: staging, prefix: staging, title: Stage, archived: true}
  - {name: dev, prefix: dev2}
"""
    assert words(services.compare(read_text(text), actor=dock.owner).changes) == [
        "add environment shop/qa", "change environment shop/staging", "change environment shop/dev",
        "change promotion path of shop",
    ]  # fmt: skip
    applied(text, dock.owner)
    rows = Environment.objects.filter(team=dock.team).order_by("position")
    assert [(row.slug, row.name, row.prefix, row.is_archived) for row in rows] == [
        ("qa", "qa", "qa", False), ("staging", "Stage", "staging", True), ("dev", "dev", "dev2", False)
    ]  # fmt: skip
    assert services.compare(read_text(text), actor=dock.owner).changes == ()
    less = "version: 1\nteams: [{name: shop, environments: [{name: dev, prefix: dev2}]}]"
    assert len(applied(less, dock.owner, remove=True).done) == 2
    assert [row.slug for row in rows.all()] == ["dev"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2", "version: 1"),
        ("version: [1]", "version: 1"),
        ("version: true", "version: 1"),
        ("version: 1" + ":1" * 100_000, "version: 1"),  # a number in base 60
        ("version: 1\nteams: []\nteams: [{name: x}]", "teams is there twice"),
        ("- 1", "version: 1"),
        ("version: 1\nteam: []", "team: there is no such field. Known are version, roles, teams"),
        ("version: 1\nteams: [{title: x}]", r"teams\[0\]: name is missing"),
        ("version: 1\nteams: [{name: a}, {name: a}]", r"teams\[1\]: name a is there twice"),
        ("version: 1\nteams: [{name: a, environments: [{name: b, prefix: b, required_approvals: 2}]}]", "policy files"),
        ("version: 1\nteams: [{name: a, robots: [{name: b, tokens: []}]}]", "never in an access file"),
        ("version: 1\nteams: [{name: a, grants: [{role: owner}]}]", "one holder"),
        ("version: 1\nroles: [{name: r, verbs: [image.fly]}]", r"there is no image\.fly"),
        ("version: 1\nteams: &a [{name: x}]\nroles: *a", "aliases"),
        ("version: 1\nteams: [{name: a, grants: [{user: k, role: o, until: soon}]}]", "write a time"),
        ("version: 1\nteams: [{name: A B}]", "does not match"),
        ("version: [1", "neither YAML nor JSON"),
    ],
)
def test_bad_files_name_the_place(text: str, says: str) -> None:
    with pytest.raises(BadFile, match=says):
        read_text(text)


def test_schema_and_reader_agree() -> None:
    schema = json_schema()
    team = schema["properties"]["teams"]["items"]
    assert set(team["properties"]) == {"name", "title", "environments", "robots", "grants"}
    assert team["additionalProperties"] is False
    assert "promotion.approve" in json.dumps(schema["properties"]["roles"])


def test_api_compares_and_applies_what_was_compared(dock: SimpleNamespace) -> None:
    api = Caller(dock.owner)
    plan = api.post("access/file/diff/", {"text": RENAMED}).json()
    assert [(row["act"], row["what"]) for row in plan["changes"]] == [("change", "team shop")]
    assert api.post("access/file/apply/", {"text": RENAMED}).status_code == 428
    assert api.get("access/file/schema/").json()["title"] == "Gravingdock access file"
    assert api.post("access/file/diff/", {"text": "version: 9"}).json()["code"] == "bad_access_file"
    exported = api.get("access/file/")
    assert (exported.json()["teams"][0]["name"], "ETag" in exported.headers) == ("shop", True)


def test_page_compares_then_applies_just_that(dock: SimpleNamespace) -> None:
    client = browser(dock.owner)
    assert "name: shop" in client.get("/access/file/").content.decode()
    page = client.post("/access/file/", {"text": RENAMED, "act": "compare"})
    shown = {name: page.context["form"][name].value() for name in ("text", "etag", "compared")} | {"act": "apply"}
    assert "team shop" in page.content.decode()
    assert page.context["changes"] == [(page.context["plan"].changes[0], "title: Shop", "title: New")]
    for change in ({"etag": '"other"'}, {"text": RENAMED.replace("New", "Other")}, {"compared": ""}):
        stale = client.post("/access/file/", shown | change)
        assert (stale.status_code, "Compare it again" in stale.content.decode()) == (422, True)
    sent_by_browsers = shown | {"text": RENAMED.replace("\n", "\r\n")}
    assert client.post("/access/file/", sent_by_browsers).status_code == 302
    dock.team.refresh_from_db()
    assert dock.team.name == "New"
    refused = client.post("/access/file/", {"text": "version: 1\nteam: typed by hand", "act": "compare"})
    assert (refused.status_code, "typed by hand" in refused.content.decode()) == (422, True)
    absent = client.post("/access/file/", {"text": "version: 1\nteams: [{name: typed-by-hand}]", "act": "compare"})
    assert (absent.status_code, "Team typed-by-hand not found" in absent.content.decode()) == (422, True)
    assert "[{name: typed-by-hand}]" in absent.content.decode()


def test_commands_export_compare_and_apply(dock: SimpleNamespace, run: Any, tmp_path: Path) -> None:
    file = tmp_path / "access.yaml"
    code, out, _ = run(dock.owner, "access", "export")
    file.write_text(out)
    assert (code, run(None, "access", "diff", "-f", file)[0]) == (0, 0)
    file.write_text(out.replace("title: Shop", "title: New"))
    code, out, _ = run(None, "access", "diff", "-f", file)
    assert (code, out.splitlines()[0]) == (1, "~ team shop")
    assert run(None, "access", "apply", "-f", file)[0] == 0
    dock.team.refresh_from_db()
    assert dock.team.name == "Shop"  # without --yes
    assert run(None, "access", "apply", "-f", file, "--yes")[0] == 0
    dock.team.refresh_from_db()
    assert dock.team.name == "New"
    file.write_text("scope: team:shop\nenvironments: []")
    code, _, err = run(None, "policy", "diff", file)
    assert (code, "belongs to an access file" in err) == (2, True)
