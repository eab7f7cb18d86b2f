"""Settings and approval rules of environments: who may change them, what they refuse, and how they judge requests."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Role, Team, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, PolicyBlocked, StaleVersion
from lifecycle.environments.models import ApprovalRule, Environment, Slot
from lifecycle.environments.queries import previous_environment
from lifecycle.pages.promotion.environment_forms import EnvironmentSettingsForm
from lifecycle.policies.models import Policy, PolicyRevision
from lifecycle.promotion import services
from lifecycle.promotion.environments import (
    RuleWish,
    change_environment,
    contents_of,
    recheck_approvers,
    remove_environment,
)
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.registry.models import Image, Registry, Repository
from tests.clients import browser
from tests.factories.people import person
from tests.factories.shop import make_request

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
SECURITY = RuleWish("security", 1, role="security")


def requirements(request, name="approvals"):
    request.refresh_from_db()
    latest = services.reevaluate(request)
    return [item for item in latest.requirements if item["name"] == name]


@pytest.fixture
def security(dock):
    """A member of role security who can approve too."""
    user = person("sue", dock.team, "security")
    RoleGrant.objects.create(user=user, team=dock.team, role=Role.objects.get(slug="approver"))
    return user


def test_settings_are_changed_and_audited(dock):
    changed = change_environment(
        dock.staging.pk, actor=dock.owner, name="Stage", is_production=True, soak_s=3600, execute_within_s=7200
    )
    changed.refresh_from_db()
    assert (changed.name, changed.is_production, changed.soak_s, changed.revision) == ("Stage", True, 3600, 2)
    event = AuditEvent.objects.get(action="environment.changed")
    assert event.details["before"] == {
        "name": "staging", "is_production": "no", "soak_s": "0", "execute_within_s": "259200"
    }  # fmt: skip
    assert event.details["is_about_approvals"] is True  # production can need a fresh factor of who approves
    change_environment(dock.staging.pk, actor=dock.owner, soak_s=60)
    assert AuditEvent.objects.filter(action="environment.changed").latest("pk").details["is_about_approvals"] is False


def test_only_users_with_environment_manage_change_settings(dock):
    for actor, error in ((dock.outsider, NotFound), (dock.approver, NotPermitted)):
        with pytest.raises(error):
            change_environment(dock.staging.pk, actor=actor, name="Mine")
    assert change_environment(dock.staging.pk, actor=dock.owner, name="Ours").name == "Ours"
    assert AuditEvent.objects.filter(action="environment.changed").count() == 1


def test_second_of_two_editors_is_refused(dock):
    change_environment(dock.staging.pk, actor=dock.owner, revision=1, name="First")
    with pytest.raises(StaleVersion):
        change_environment(dock.staging.pk, actor=dock.owner, revision=1, name="Second")
    assert Environment.objects.get(pk=dock.staging.pk).name == "First"


def test_unchanged_values_leave_no_trace(dock):
    change_environment(dock.staging.pk, actor=dock.owner, name="staging")
    assert not AuditEvent.objects.filter(action="environment.changed").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"approve_within_s": 1},
        {"soak_s": 10**9},
        {"queue_policy": "random"},
        {"position": 9},
        {"approval_rules": [RuleWish("x", 1)]},
        {"approval_rules": [RuleWish("x", 1, role="nobody")]},
        {"approval_rules": [RuleWish("x", 1, people=("nobody",))]},
        {"approval_rules": [RuleWish("x", 1, role="approver", team="shop")]},
        {"approval_rules": [RuleWish("x", 0, role="approver")]},
        {"approval_rules": [RuleWish("x", 1, role="approver"), RuleWish("x", 1, team="shop")]},
    ],
)
def test_bad_settings_are_refused(dock, values):
    with pytest.raises(Malformed):
        change_environment(dock.staging.pk, actor=dock.owner, **values)
    assert not ApprovalRule.objects.exists()


def test_environment_moves_on_the_path(dock):
    last = authority.create_environment(dock.team, actor=dock.owner, slug="live", name="Live", prefix="live")
    change_environment(last.pk, actor=dock.owner, position=0)
    path = Environment.objects.filter(team=dock.team).order_by("position").values_list("slug", "position")
    assert list(path) == [("live", 0), ("dev", 1), ("staging", 2)]


def test_prefix_changes_while_nothing_is_below_it(dock, request_):
    with pytest.raises(Conflict, match="not finished"):
        change_environment(dock.staging.pk, actor=dock.owner, prefix="stage")
    services.withdraw(request_.pk, actor=dock.requester)
    for taken in ("dev", "shop"):  # of another environment, and a team that can push there
        with pytest.raises(Conflict, match="Choose another"):
            change_environment(dock.staging.pk, actor=dock.owner, prefix=taken)
    assert change_environment(dock.staging.pk, actor=dock.owner, prefix="stage").prefix == "stage"
    details = AuditEvent.objects.filter(action="environment.changed").latest("pk").details
    assert (details["before"], details["after"]) == ({"prefix": "staging"}, {"prefix": "stage"})
    Repository.objects.create(
        registry=dock.repository.registry, team=dock.team, name="stage/shop/api", family="shop/api",
        source=dock.repository, environment=dock.staging,
    )  # fmt: skip
    with pytest.raises(Conflict, match="below stage/"):
        change_environment(dock.staging.pk, actor=dock.owner, prefix="staging")


def test_archived_environment_takes_no_promotion_and_is_no_step(dock, request_):
    with pytest.raises(Conflict, match="not finished"):
        change_environment(dock.staging.pk, actor=dock.owner, is_archived=True)
    live = authority.create_environment(dock.team, actor=dock.owner, slug="live", name="Live", prefix="live")
    assert previous_environment(live) == dock.staging
    services.withdraw(request_.pk, actor=dock.requester)
    assert change_environment(dock.staging.pk, actor=dock.owner, is_archived=True).is_archived
    assert previous_environment(live) == dock.dev
    dock.staging.refresh_from_db()
    with pytest.raises(Conflict, match="staging is archived"):
        make_request(dock)
    client = browser(dock.owner)
    assert "Archived" in client.get(f"/promotions/environments/{dock.staging.pk}/").content.decode()
    change_environment(dock.staging.pk, actor=dock.owner, is_archived=False)
    dock.staging.refresh_from_db()
    assert make_request(dock).state == "open"


def test_rule_that_nobody_could_satisfy_is_refused(dock):
    """The security role approves nothing by itself, so one grant decides."""
    sue = person("sue", dock.team, "security")
    with pytest.raises(PolicyBlocked) as refused:
        change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[SECURITY])
    assert refused.value.details["reasons"] == ["security needs 1, and no user can approve there."]
    RoleGrant.objects.create(user=sue, team=dock.team, role=Role.objects.get(slug="approver"))
    change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[SECURITY])
    assert ApprovalRule.objects.get().role.slug == "security"


def test_rules_that_need_one_person_twice_are_refused(dock, security):
    wishes = [SECURITY, RuleWish("named", 1, people=("sue",))]
    with pytest.raises(PolicyBlocked, match="Nobody could promote") as refused:
        change_environment(dock.staging.pk, actor=dock.owner, approval_rules=wishes)
    assert "different people" in refused.value.details["reasons"][0]
    wishes = [SECURITY, RuleWish("named", 1, people=("sue", "approver"))]
    assert change_environment(dock.staging.pk, actor=dock.owner, approval_rules=wishes).revision == 2


def test_accounts_of_one_person_count_once_for_a_rule(dock):
    User.objects.filter(username__in=("approver", "second", "owner")).update(
        email="one@example.com", email_verified_at=timezone.now()
    )
    with pytest.raises(PolicyBlocked):
        change_environment(dock.staging.pk, actor=dock.owner, required_approvals=2)
    User.objects.filter(username="second").update(email="two@example.com")
    assert change_environment(dock.staging.pk, actor=dock.owner, required_approvals=2).required_approvals == 2


def test_rule_decides_who_approves(dock, request_, security):
    change_environment(dock.staging.pk, actor=dock.owner, required_approvals=2, approval_rules=[SECURITY])
    dock.staging.refresh_from_db()
    services.approve(request_.pk, actor=dock.approver, reason="")
    services.approve(request_.pk, actor=dock.second, reason="")
    (rule,) = requirements(request_, "approval_rule")
    assert (rule["title"], rule["status"], rule["who"]) == ("1 approval by security", "pending", ["sue"])
    (all_,) = requirements(request_)
    assert (all_["status"], all_["counts"]["given"], all_["who"]) == ("pending", 1, ["sue"])
    assert "The approval of second fills no open place." in all_["summary"]
    services.approve(request_.pk, actor=security, reason="")
    request_.refresh_from_db()
    assert request_.state == State.READY


def test_looser_rule_releases_and_stricter_rule_regresses(dock, request_, security):
    services.approve(request_.pk, actor=dock.approver, reason="")
    request_.refresh_from_db()
    assert request_.state == State.READY
    change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[SECURITY])
    services.judge_open()
    request_.refresh_from_db()
    assert request_.state == State.OPEN
    change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[])
    services.judge_open()
    request_.refresh_from_db()
    assert request_.state == State.READY


def test_lost_role_between_vote_and_execution_counts(dock, request_, security):
    change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[SECURITY])
    services.approve(request_.pk, actor=security, reason="")
    request_.refresh_from_db()
    assert request_.state == State.READY
    RoleGrant.objects.filter(user=security, role__slug="security").delete()
    with pytest.raises(PolicyBlocked):
        services.execute(request_.pk, actor=dock.deployer)
    RoleGrant.objects.create(user=security, team=dock.team, role=Role.objects.get(slug="security"))
    services.reevaluate(request_)
    assert services.execute(request_.pk, actor=dock.deployer).state == State.EXECUTING


def test_member_who_leaves_makes_the_rule_impossible_and_the_owner_is_told(dock, request_, security):
    change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[SECURITY])
    recheck_approvers()
    assert not AuditEvent.objects.filter(action="environment.unsatisfiable").exists()
    User.objects.filter(pk=security.pk).update(is_active=False)
    recheck_approvers()
    recheck_approvers()
    dock.staging.refresh_from_db()
    assert dock.staging.unsatisfiable_since is not None
    event = AuditEvent.objects.get(action="environment.unsatisfiable")
    assert event.reason == "security needs 1, and no user can approve there."
    (rule,) = requirements(request_, "approval_rule")
    assert rule["status"] == "unsatisfied"
    client = Client()
    for user, is_told in ((dock.owner, True), (dock.deployer, False)):
        client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
        assert ("Nobody can promote to shop/staging" in client.get("/inbox/").content.decode()) is is_told
    User.objects.filter(pk=security.pk).update(is_active=True)
    recheck_approvers()
    dock.staging.refresh_from_db()
    assert dock.staging.unsatisfiable_since is None


def test_user_who_changed_the_rules_after_the_request_cannot_approve(dock, request_):
    """An admin lowers the number of approvals, and then approves alone."""
    RoleGrant.objects.create(user=dock.owner, team=dock.team, role=Role.objects.get(slug="approver"))
    User.objects.filter(pk=dock.owner.pk).update(is_superuser=True)
    dock.owner.refresh_from_db()
    change_environment(dock.staging.pk, actor=dock.owner, required_approvals=2)
    with pytest.raises(NotPermitted, match="you changed the rules after the request"):
        services.approve(request_.pk, actor=dock.owner, reason="")
    Environment.objects.filter(pk=dock.staging.pk).update(excludes_policy_author=False)
    assert services.approve(request_.pk, actor=dock.owner, reason="").votes.count() == 1


def test_author_of_a_policy_revision_after_the_request_cannot_approve(dock, request_):
    policy = Policy.objects.create(environment=dock.staging)
    revision = PolicyRevision.objects.create(policy=policy, number=1, author=dock.approver, digest="sha256:x")
    with pytest.raises(NotPermitted, match="you changed the rules after the request"):
        services.approve(request_.pk, actor=dock.approver, reason="")
    PolicyRevision.objects.filter(pk=revision.pk).update(at=request_.created_at - timedelta(seconds=1))
    services.approve(request_.pk, actor=dock.approver, reason="")
    request_.refresh_from_db()
    assert request_.state == State.READY


def rebuilt_by(dock, user):
    wave = RebuildWave.objects.create(
        repository=dock.repository, new_base=dock.image, planned_by=dock.requester, confirmed_by=user, state="running"
    )
    old = Image.objects.create(digest="sha256:" + "b" * 64, kind=Image.Kind.MANIFEST, media_type="x", manifest=b"{}")
    RebuildJob.objects.create(
        wave=wave, repository=dock.repository, level=1, old_image=old, new_image=dock.image, tag="1.0",
        state="done", finished_at=timezone.now(),
    )  # fmt: skip


def test_user_who_started_the_rebuild_cannot_approve(dock, request_):
    rebuilt_by(dock, dock.approver)
    with pytest.raises(NotPermitted, match="you started the rebuild of this image"):
        services.approve(request_.pk, actor=dock.approver, reason="")
    (item,) = requirements(request_)
    assert item["who"] == ["owner", "second"]
    assert "approver does not count: they started the rebuild of this image." in item["summary"]
    change_environment(dock.staging.pk, actor=dock.owner, excludes_build_trigger=False)
    services.approve(request_.pk, actor=dock.approver, reason="")
    (item,) = requirements(request_)
    assert item["status"] == "satisfied"
    assert "This environment lets the user who started the rebuild approve." in item["summary"]


@pytest.mark.parametrize("is_verified", [True, False])
def test_committer_of_the_image_cannot_approve(dock, request_, is_verified):
    """The label counts only for an account whose mail an admin has confirmed."""
    dock.image.labels = {"org.opencontainers.image.authors": "Kim <Kim@Example.com>, shop"}
    dock.image.save()
    at = timezone.now() if is_verified else None
    User.objects.filter(pk=dock.approver.pk).update(email="kim@example.com", email_verified_at=at)
    dock.approver.refresh_from_db()
    if is_verified:
        with pytest.raises(NotPermitted, match="committer that the image names"):
            services.approve(request_.pk, actor=dock.approver, reason="")
    else:
        services.approve(request_.pk, actor=dock.approver, reason="")
        request_.refresh_from_db()
        assert request_.state == State.READY


def test_requester_can_approve_where_the_environment_says_so(dock, request_):
    RoleGrant.objects.create(user=dock.requester, team=dock.team, role=Role.objects.get(slug="approver"))
    with pytest.raises(NotPermitted, match="your own request"):
        services.approve(request_.pk, actor=dock.requester, reason="")
    change_environment(dock.staging.pk, actor=dock.owner, excludes_requester=False)
    services.approve(request_.pk, actor=dock.requester, reason="")
    (item,) = requirements(request_)
    assert item["status"] == "satisfied"
    assert "This environment lets the requester approve." in item["summary"]


def test_unused_environment_is_removed_and_a_used_one_names_what_stands_on_it(dock, request_):
    Slot.objects.filter(environment=dock.dev).update(tag="1.0", since=timezone.now())
    assert contents_of(dock.dev) == ["the deployed images of shop/api"]
    with pytest.raises(Conflict, match="1 unfinished request"):
        remove_environment(dock.staging.pk, actor=dock.owner)
    unused = authority.create_environment(dock.team, actor=dock.owner, slug="live", name="Live", prefix="live")
    with pytest.raises(NotPermitted):
        remove_environment(unused.pk, actor=dock.approver)
    remove_environment(unused.pk, actor=dock.owner)
    assert not Environment.objects.filter(pk=unused.pk).exists()
    assert AuditEvent.objects.get(action="environment.removed").details == {"slug": "live", "prefix": "live"}


def test_role_and_team_of_a_rule_cannot_be_deleted(dock, security):
    admin = User.objects.create(username="admin", is_superuser=True)
    authority.create_role(actor=admin, slug="watch", name="Watch", verbs=["promotion.approve"])
    RoleGrant.objects.create(user=dock.approver, team=dock.team, role=Role.objects.get(slug="watch"))
    change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[RuleWish("watch", 1, role="watch")])
    RoleGrant.objects.filter(role__slug="watch").delete()
    with pytest.raises(Conflict, match="approval rule watch"):
        authority.delete_role("watch", actor=admin)
    ops = Team.objects.create(slug="ops", name="Ops")
    ApprovalRule.objects.update(role=None, team=ops)
    with pytest.raises(Conflict, match="1 approval rule"):
        authority.delete_team(ops.pk, actor=admin)
    change_environment(dock.staging.pk, actor=dock.owner, approval_rules=[])
    authority.delete_team(ops.pk, actor=admin)


def test_deadlines_follow_the_environment(dock):
    change_environment(dock.dev.pk, actor=dock.owner, approve_within_s=3600, execute_within_s=60)
    dock.dev.refresh_from_db()
    before = timezone.now()
    made = services.request_promotion(
        dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="release"
    )
    assert made.state == State.READY
    assert timedelta(0) <= made.approve_by - before - timedelta(hours=1) < timedelta(seconds=30)
    assert timedelta(0) <= made.execute_by - before - timedelta(minutes=1) < timedelta(seconds=30)


def test_api_changes_an_environment_with_its_etag(dock, security):
    client = Client()
    client.force_login(dock.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = f"/api/v1/environments/{dock.staging.pk}/"
    read = client.get(where)
    assert (read["ETag"], read.json()["approval_rules"], read.json()["problem"]) == ('"1"', [], "")
    rule = {"name": "security", "role": "security"}
    first = client.patch(
        where, {"approval_rules": [rule], "soak_s": 60}, content_type="application/json", headers={"If-Match": '"1"'}
    )
    assert (first.status_code, first["ETag"], first.json()["soak_s"]) == (200, '"2"', 60)
    assert first.json()["approval_rules"] == [
        {"name": "security", "required_approvals": 1, "role": "security", "team": None, "people": []}
    ]
    late = client.patch(where, {"soak_s": 0}, content_type="application/json", headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["code"]) == (412, "stale_version")
    odd = client.patch(where, {"soak_s": 0}, content_type="application/json", headers={"If-Match": "abc"})
    assert odd.status_code == 400
    impossible = client.patch(where, {"required_approvals": 9}, content_type="application/json")
    assert (impossible.status_code, impossible.json()["code"]) == (422, "policy_blocked")
    assert client.delete(where).status_code == 204


def test_only_an_admin_chooses_another_registry_on_page_and_api(dock):
    harbor = Registry.objects.create(name="harbor", endpoint="https://harbor.example.com", is_added=True)
    Registry.objects.create(name="quay-io", endpoint="https://quay.io")  # only named by an inventory
    where, page = f"/api/v1/environments/{dock.dev.pk}/", f"/promotions/environments/{dock.dev.pk}/"
    form = {
        "revision": 2, "name": "Dev", "position": 1, "required_approvals": 0, "approve_hours": 24, "execute_hours": 24,
        "soak_hours": 0, "queue_policy": "queue",
    }  # fmt: skip
    owner, admin = Client(), Client()
    owner.force_login(dock.owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    admin.force_login(
        User.objects.create_superuser("root"), backend="allauth.account.auth_backends.AuthenticationBackend"
    )
    refused = owner.patch(where, {"registry": "harbor"}, content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    assert 'name="registry"' not in owner.get(page).content.decode()
    unknown = admin.patch(where, {"registry": "quay-io"}, content_type="application/json")
    assert (unknown.status_code, unknown.json()["code"]) == (400, "malformed")
    changed = admin.patch(where, {"registry": "harbor"}, content_type="application/json")
    assert (changed.json()["registry"], changed["ETag"]) == ("harbor", '"2"')
    event = AuditEvent.objects.get(action="environment.changed")
    assert (event.details["before"], event.details["after"]) == ({"registry": "managed"}, {"registry": "harbor"})
    assert "harbor.example.com/dev/" in owner.get(page).content.decode()
    assert "harbor.example.com/dev/" in owner.get("/promotions/environments/").content.decode()
    assert owner.post(page, form).status_code == 302  # who cannot choose keeps what is chosen
    dock.dev.refresh_from_db()
    assert dock.dev.registry == harbor
    request = services.request_promotion(
        dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="release"
    )
    assert "harbor.example.com/dev" in owner.get(f"/promotions/{request.pk}/").content.decode()
    refused = admin.patch(where, {"registry": "managed"}, content_type="application/json")  # it was voted on as it is
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    services.withdraw(request.pk, actor=dock.requester)
    assert admin.post(page, form | {"revision": 3, "registry": "managed"}).status_code == 302
    dock.dev.refresh_from_db()
    assert dock.dev.registry is None


def test_every_setting_of_the_form_stands_in_one_group():
    form = EnvironmentSettingsForm(registries=["far"])
    grouped = [field.name for _, fields in form.groups() for field in fields]
    assert sorted(grouped) == sorted(field.name for field in form.visible_fields())
