"""Access requests: who asks, who decides, what is granted, and where a refusal leads."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.models import Role, User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.authority.effective import effective_rights, principal_for
from lifecycle.authority.models import AccessRequest, RoleGrant
from lifecycle.authority.queries import access_requests_in_inbox, access_requests_visible_to
from lifecycle.authority.rights import may
from lifecycle.authority.what_if import what_if_role
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.core.reasons import Denial
from lifecycle.notices.models import InboxItem
from lifecycle.registry.models import Repository
from tests.clients import Caller, browser
from tests.factories.people import person, robot

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(dock: SimpleNamespace) -> AccessRequest:
    return services.ask_for_access(
        "shop", actor=dock.requester, role="deployer", reason="on call", repository_pattern="shop/*", days=7
    )


def test_granted_role_ends_after_the_days(dock: SimpleNamespace, asked: AccessRequest) -> None:
    row = services.grant_access(asked.pk, actor=dock.owner)
    grant = RoleGrant.objects.get(user=dock.requester, role__slug="deployer")
    assert (grant.repository_pattern, grant.granted_by, row.state) == ("shop/*", dock.owner, "granted")
    assert grant.expires_at is not None
    assert timedelta(days=6, hours=23) < grant.expires_at - clock.now() <= timedelta(days=7)
    assert may(dock.requester, Verb.PROMOTION_EXECUTE, repository=dock.repository)
    actions = AuditEvent.objects.filter(subject_kind="accessrequest").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["access.requested", "access.granted"]
    with pytest.raises(Conflict, match="already granted"):
        services.decline_access(asked.pk, actor=dock.owner, comment="late")


def test_owner_shortens_the_days_or_declines(dock: SimpleNamespace, asked: AccessRequest) -> None:
    with pytest.raises(Malformed, match="1 to 366"):
        services.grant_access(asked.pk, actor=dock.owner, days=900)
    with pytest.raises(Malformed, match="Say why"):
        services.decline_access(asked.pk, actor=dock.owner, comment=" ")
    assert services.decline_access(asked.pk, actor=dock.owner, comment="not this week").state == "declined"
    assert not RoleGrant.objects.filter(role__slug="deployer", user=dock.requester).exists()
    again = services.ask_for_access("shop", actor=dock.requester, role="deployer", reason="next week")
    assert services.grant_access(again.pk, actor=dock.owner, days=1).days == 1


def test_only_an_owner_who_did_not_ask_decides(dock: SimpleNamespace, asked: AccessRequest) -> None:
    for actor, error in ((dock.outsider, NotFound), (dock.approver, NotFound), (dock.requester, NotPermitted)):
        for act in (
            lambda who: services.grant_access(asked.pk, actor=who),
            lambda who: services.decline_access(asked.pk, actor=who, comment="x"),
        ):
            with pytest.raises(error):
                act(actor)
    own = services.ask_for_access("shop", actor=dock.owner, role="approver", reason="me too")
    with pytest.raises(NotPermitted, match="your own"):
        services.grant_access(own.pk, actor=dock.owner)
    assert services.grant_access(asked.pk, actor=dock.owner).state == "granted"


def test_nobody_grants_more_than_they_have(dock: SimpleNamespace) -> None:
    row = Role.objects.create(slug="breaker", name="Breaker", verbs=["promotion.breakglass"])
    asked = services.ask_for_access("shop", actor=dock.requester, role=row.slug, reason="x")
    with pytest.raises(NotPermitted, match="only grant permissions that you have"):
        services.grant_access(asked.pk, actor=dock.owner)
    assert services.grant_access(asked.pk, actor=User.objects.create(username="admin", is_superuser=True)).state == (
        "granted"
    )


def test_who_may_ask_and_what_is_refused(dock: SimpleNamespace, asked: AccessRequest) -> None:
    for team in ("shop", "none"):  # hidden and absent alike
        with pytest.raises(NotFound, match="Team not found"):
            services.ask_for_access(team, actor=dock.outsider, role="viewer", reason="x")
    Repository.objects.update(visibility="internal")
    assert services.ask_for_access("shop", actor=dock.outsider, role="viewer", reason="x").state == "open"
    with pytest.raises(NotPermitted, match="Only people"):
        services.ask_for_access("shop", actor=robot(dock.team).user, role="viewer", reason="x")
    with pytest.raises(Conflict, match="already have"):
        services.ask_for_access("shop", actor=dock.requester, role="creator", reason="x")
    with pytest.raises(Malformed, match="does not include"):
        services.ask_for_access("shop", actor=dock.requester, role="viewer", verb="image.delete", reason="x")
    same = services.ask_for_access(
        "shop", actor=dock.requester, role="deployer", reason="again", repository_pattern="shop/*"
    )
    assert same == asked
    with pytest.raises(NotPermitted, match="Only requester"):
        services.withdraw_access_request(asked.pk, actor=dock.owner)
    assert services.withdraw_access_request(asked.pk, actor=dock.requester).state == "withdrawn"


def test_hidden_environment_looks_like_none(dock: SimpleNamespace) -> None:
    Repository.objects.filter(pk=dock.repository.pk).update(visibility="internal")
    stranger = person("stranger")  # can ask the team, because a repository of it is open
    answers = set()
    for environment in ("staging", "nowhere"):
        with pytest.raises(NotFound) as refused:
            services.ask_for_access("shop", actor=stranger, role="viewer", reason="x", environment=environment)
        answers.add(refused.value.message)
    assert len(answers) == 1
    ask = {"actor": dock.requester, "role": "viewer", "reason": "x"}
    assert services.ask_for_access("shop", environment="staging", **ask).environment == dock.staging


def test_role_held_for_good_is_not_shortened(dock: SimpleNamespace, asked: AccessRequest) -> None:
    services.add_member(
        dock.team.pk, actor=dock.owner, username="requester", role="deployer", repository_pattern="shop/*"
    )
    with pytest.raises(Conflict, match="without an end"):
        services.grant_access(asked.pk, actor=dock.owner)
    assert RoleGrant.objects.get(user=dock.requester, role__slug="deployer").expires_at is None


def test_owners_are_told_and_find_it_in_their_inbox(dock: SimpleNamespace, asked: AccessRequest) -> None:
    assert list(access_requests_in_inbox(dock.owner)) == [asked]
    assert not access_requests_in_inbox(dock.requester).exists()
    assert not access_requests_visible_to(dock.approver).exists()
    assert InboxItem.objects.filter(person=dock.owner, notice__topic="access.asked").exists()
    assert not InboxItem.objects.filter(person=dock.approver, notice__topic="access.asked").exists()
    assert str(asked) in browser(dock.owner).get("/inbox/").content.decode()
    services.grant_access(asked.pk, actor=dock.owner)
    assert InboxItem.objects.filter(person=dock.requester, notice__topic="access.decided").exists()
    assert str(asked) not in browser(dock.owner).get("/inbox/").content.decode()


def test_refusal_says_what_is_missing_and_leads_to_the_form(dock: SimpleNamespace) -> None:
    Repository.objects.update(visibility="internal")
    decision = may(dock.approver, Verb.IMAGE_AMEND, repository=dock.repository)
    assert isinstance(decision.reason, Denial)
    assert decision.reason.missing == {"verb": "image.amend", "team": "shop", "repository": "shop/api"}
    answer = Caller(dock.outsider).put(f"repositories/{dock.repository.pk}/protected-tags/", {"patterns": ["v*"]})
    problem = answer.json()
    assert (answer.status_code, problem["missing"], problem["granters"]) == (
        403, decision.reason.missing, ["owner"]
    )  # fmt: skip
    link = problem["ask"].partition("/access-requests/")[2]
    page = browser(dock.outsider).get("/t/shop/r/shop/api/?tab=settings").content.decode()
    assert "/access-requests/" + link.replace("&", "&amp;") in page
    form = browser(dock.outsider).get("/access-requests/" + link).content.decode()
    assert form.index('<option value="maintainer"') < form.index('<option value="owner"')  # the least first
    assert '<option value="viewer"' not in form
    made = browser(dock.outsider).post(
        "/access-requests/new/",
        {"team": "shop", "verb": "image.amend", "role": "maintainer", "repository_pattern": "shop/api", "days": 3,
         "reason": "fix the tag"},
    )  # fmt: skip
    assert made.status_code == 302
    assert AccessRequest.objects.get().verb == "image.amend"
    owner = browser(dock.owner)
    assert owner.post(f"{made['Location']}grant/", {"days": 2}).status_code == 302
    assert Caller(dock.outsider).put(
        f"repositories/{dock.repository.pk}/protected-tags/", {"patterns": ["v*"]}
    ).status_code == 200  # fmt: skip


def test_forms_keep_what_was_typed(dock: SimpleNamespace, asked: AccessRequest) -> None:
    refused = browser(dock.requester).post(
        "/access-requests/new/",
        {"team": "none", "role": "viewer", "repository_pattern": "*", "days": 3, "reason": "typed by hand"},
    )
    assert refused.status_code in {404, 422}
    declined = browser(dock.owner).post(f"/access-requests/{asked.pk}/decline/", {"comment": ""})
    assert (declined.status_code, "Say why" in declined.content.decode()) == (422, True)


def test_effective_rights_name_their_origin_and_what_is_withheld(dock: SimpleNamespace) -> None:
    maker = person("maker", dock.team, "viewer")
    machine = robot(dock.team, "creator", maker=maker).user
    found = effective_rights(machine, reader=dock.owner)
    (right,) = found.rights
    assert (right.verbs, right.team, right.origin) == (("image.view",), "shop", "role creator")
    assert "image.create" in right.withheld
    User.objects.filter(pk=maker.pk).update(is_active=False)
    assert effective_rights(User.objects.get(pk=machine.pk), reader=dock.owner).rights == ()
    Repository.objects.update(visibility="internal")
    (only,) = effective_rights(dock.outsider, reader=dock.outsider).rights
    assert (only.verbs, only.origin) == (("image.view",), "open to every account")
    with pytest.raises(NotFound):
        principal_for(dock.outsider, "owner")
    with pytest.raises(NotFound):
        principal_for(dock.outsider, machine.username)
    assert principal_for(dock.owner, machine.username) == machine
    page = browser(dock.owner).get("/access/?who=approver").content.decode()
    assert "role approver" in page
    assert browser(dock.outsider).get("/access/?who=owner").status_code == 404
    api = Caller(dock.owner).get("access/effective/", who="approver").json()
    assert api["rights"][0]["verbs"] == ["image.view", "promotion.approve", "waiver.approve"]


def test_what_if_of_a_role_leaves_out_what_other_grants_give(dock: SimpleNamespace) -> None:
    admin = User.objects.create(username="admin", is_superuser=True)
    crew = services.create_role(actor=admin, slug="crew", name="Crew", verbs=["image.view", "image.create"])
    for user in (dock.approver, dock.deployer):
        RoleGrant.objects.create(user=user, team=dock.team, role=crew)
    RoleGrant.objects.create(user=dock.deployer, team=dock.team, role=Role.objects.get(slug="creator"))
    found = what_if_role("crew", ["image.view", "image.delete"], actor=admin)
    assert [(row.user, row.gains, row.loses) for row in found] == [
        ("approver", ("image.delete",), ("image.create",)),
        ("deployer", ("image.delete",), ()),  # it has image.create as a creator too
    ]
    with pytest.raises(NotPermitted):
        what_if_role("crew", [], actor=dock.owner)
    page = browser(admin).post("/roles/crew/", {"name": "Crew", "verbs": ["image.view"], "act": "what-if"})
    assert "approver in shop" in page.content.decode()
    assert sorted(Role.objects.get(slug="crew").verbs) == ["image.create", "image.view"]


def test_commands_ask_decide_and_explain(dock: SimpleNamespace, run: Any) -> None:
    asked = ("access", "ask", "deployer", "--team", "shop", "--days", "3", "--reason", "on call")
    assert run(dock.requester, *asked)[0] == 0
    row = AccessRequest.objects.get()
    assert str(row) in run(dock.owner, "access", "requests", "--state", "open")[1]
    assert run(None, "access", "grant", str(row))[0] == 0
    assert "role deployer" in run(None, "access", "show", "requester")[1]
    assert run(None, "access", "explain", "requester", "promotion.execute", "--team", "shop")[0] == 0
    code, out, err = run(None, "access", "explain", "requester", "promotion.approve", "--team", "shop")
    assert (code, "cannot" in out, "owner" in err) == (1, True, True)
    assert run(None, "access", "decline", str(row), "--comment", "late")[0] == 1
