"""Break-glass: one person with a reason and a password, what it bypasses, and the review by somebody else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Role
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter
from lifecycle.authority.models import RoleGrant, SecuritySettings, TotpSecret
from lifecycle.core import clock
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import (
    Conflict,
    Malformed,
    NotFound,
    NotPermitted,
    PolicyBlocked,
    StepUpRequired,
    TooManyAttempts,
)
from lifecycle.environments.models import Environment, Hold, Slot
from lifecycle.jobs.models import Job
from lifecycle.promotion import queries, services
from lifecycle.promotion.breakglass import break_glass, remind_of_reviews, settle
from lifecycle.promotion.models import PromotionRequest, ReviewDebt
from lifecycle.promotion.opening import create_window
from lifecycle.registry.models import Image, IndexEntry
from tests.factories import dock as rows
from tests.factories import people
from tests.racing import Race

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
PASSWORD = "dock-side-pass"


@pytest.fixture(autouse=True)
def _passwords(dock):
    for person in (dock.owner, dock.deployer):
        person.set_password(PASSWORD)
        person.save()
    role = Role.objects.create(slug="breaker", name="Breaker", verbs=["image.view", "promotion.breakglass"])
    RoleGrant.objects.create(user=dock.owner, team=dock.team, role=role)


def smash(dock, **more):
    values = {"actor": dock.owner, "reason": "payments fail", "incident": "INC-7", "password": PASSWORD} | more
    return break_glass(dock.repository, dock.image.digest, dock.staging, **values)


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def count(action):
    return AuditEvent.objects.filter(action=f"promotion.{action}").count()


def test_one_person_promotes_past_what_is_not_met_and_owes_a_review(dock):
    Image.objects.update(scanned_at=None)
    Environment.objects.filter(pk=dock.staging.pk).update(required_approvals=2, soak_s=3600)
    made = smash(dock)
    assert (made.kind, made.state, made.executed_by) == ("break-glass", State.EXECUTING, dock.owner)
    statuses = {item["name"]: item["status"] for item in made.evaluations.latest("pk").requirements}
    assert (statuses["approvals"], statuses["packages_known"]) == ("bypassed", "bypassed")
    assert (statuses["platforms_complete"], statuses["stage_order"]) == ("satisfied", "not_applicable")
    debt = made.debt
    assert (debt.incident, debt.bypassed) == ("INC-7", ["2 approvals", "Packages scanned"])
    assert timedelta(hours=23) < debt.due_at - clock.now() <= timedelta(hours=24)
    event = AuditEvent.objects.get(action="promotion.break_glass")
    assert (event.reason, event.details["bypassed"]) == ("payments fail", ["2 approvals", "Packages scanned"])
    assert Job.objects.filter(kind="promote", subject_id=made.pk).count() == 1


def test_use_without_need_is_recorded_too(dock):
    Environment.objects.filter(pk=dock.staging.pk).update(required_approvals=0)
    assert smash(dock).debt.bypassed == []


def test_wrong_password_changes_nothing_and_is_limited(dock):
    for _ in range(limiter.PER_ACCOUNT):
        with pytest.raises(NotPermitted, match="password is wrong"):
            smash(dock, password="guess")
    with pytest.raises(TooManyAttempts):
        smash(dock)
    assert not PromotionRequest.objects.exists()
    assert AuditEvent.objects.filter(action="session.refused").count() == limiter.PER_ACCOUNT


@pytest.mark.parametrize("who", ["approver", "deployer", "requester", "outsider"])
def test_it_needs_its_own_verb(dock, who):
    with pytest.raises(NotPermitted):
        smash(dock, actor=getattr(dock, who))


def test_robots_cannot_and_words_are_needed(dock):
    with pytest.raises(NotPermitted, match="Only people"):
        smash(dock, actor=people.robot(dock.team, "owner", maker=dock.owner).user)
    for missing in ({"reason": " "}, {"incident": " "}, {"incident": "x" * 201}):
        with pytest.raises(Malformed):
            smash(dock, **missing)


def test_missing_platforms_cannot_be_bypassed(dock):
    index = rows.index("both", dock.image)
    ghost = Image.objects.create(digest=rows.sha("ghost"), kind="manifest", media_type="x", manifest=b"")
    IndexEntry.objects.create(index=index, child=ghost, position=1, platform="linux/arm64")
    rows.push(dock.repository, index, "both")
    with pytest.raises(PolicyBlocked, match="cannot bypass"):
        break_glass(
            dock.repository, index.digest, dock.staging, actor=dock.owner, reason="x", incident="x", password=PASSWORD
        )
    assert not ReviewDebt.objects.exists()


@pytest.mark.parametrize("strong", [False, True])
def test_production_asks_for_the_second_factor_where_its_approvals_do(dock, strong):
    Environment.objects.filter(pk=dock.staging.pk).update(is_production=True)
    dock.staging.refresh_from_db()
    SecuritySettings.objects.create(pk=SecuritySettings.ONLY, step_up_is_on=True)
    now = clock.now().timestamp()
    with request_context(RequestContext(confirmed_at=now, strong_at=now if strong else 0)):
        if strong:
            assert smash(dock).state == State.EXECUTING
            return
        with pytest.raises(StepUpRequired):
            smash(dock)
    assert not PromotionRequest.objects.exists()


def test_page_leads_to_the_second_factor_and_back_with_what_was_typed(dock):
    Environment.objects.filter(pk=dock.staging.pk).update(is_production=True)
    SecuritySettings.objects.create(pk=SecuritySettings.ONLY, step_up_is_on=True)
    TotpSecret.objects.create(user=dock.owner)
    client = browser(dock.owner)
    where = f"/promotions/break-glass/?repository={dock.repository.pk}&digest={dock.image.digest}"
    form = {"environment": dock.staging.pk, "incident": "INC-7", "reason": "payments fail", "password": PASSWORD}
    assert client.post(where, form)["Location"].startswith("/account/confirm/?next=%2Fpromotions%2Fbreak-glass%2F")
    assert "payments fail" in client.get(where).content.decode()
    assert not PromotionRequest.objects.exists()


def test_it_ignores_windows_and_bypasses_holds(dock):
    create_window(
        actor=dock.owner, name="sale", kind="freeze", starts_at="2026-01-01T00:00", duration_s=86_400,
        time_zone="UTC", rule="FREQ=DAILY", team="shop",
    )  # fmt: skip
    Hold.objects.create(team=dock.team, environment=dock.staging, reason="incident", owner=dock.deployer)
    assert "On hold" in smash(dock).debt.bypassed


def test_it_takes_the_place_of_a_waiting_request_and_of_a_running_promotion(dock, request_):
    other = rows.image("other", layers=1, scanned_at=clock.now(), package_count=1)
    rows.push(dock.repository, other, "2.0")
    moving = PromotionRequest.objects.create(
        image=other, repository=dock.repository, environment=dock.staging, tag="2.0", state=State.EXECUTING,
        reason="x", requested_by=dock.requester, approve_by=clock.now(),
    )  # fmt: skip
    made = smash(dock)
    request_.refresh_from_db()
    moving.refresh_from_db()
    assert (request_.state, request_.superseded_by) == (State.SUPERSEDED, made)
    assert (moving.state, moving.failure) == (State.FAILED, f"{made}, a break-glass, took its place.")
    with pytest.raises(Conflict, match="is about to bring"):
        smash(dock)
    services.verify(made)
    services.succeed(made)
    with pytest.raises(Conflict, match="already deployed"):
        smash(dock)
    assert Slot.objects.get(environment=dock.staging).image == dock.image


def test_another_person_settles_the_debt_once(dock):
    made = smash(dock)
    Environment.objects.update(excludes_requester=False)  # it never lets the own review count
    for actor, why in ((dock.owner, "yourself"), (dock.deployer, "promotion.approve")):
        with pytest.raises(NotPermitted, match=why):
            settle(made.pk, actor=actor, outcome="justified", comment="fine")
    with pytest.raises(NotFound):
        settle(made.pk, actor=dock.outsider, outcome="justified", comment="fine")
    for wrong in ({"outcome": "maybe"}, {"comment": " "}):
        with pytest.raises(Malformed):
            settle(made.pk, **({"actor": dock.approver, "outcome": "justified", "comment": "fine"} | wrong))
    assert list(queries.debts_to_settle(dock.approver)) == [made]
    assert not queries.debts_to_settle(dock.owner).exists()
    assert settle(made.pk, actor=dock.approver, outcome="unjustified", comment="It could wait.").debt.settled_at
    with pytest.raises(Conflict, match="already reviewed by approver"):
        settle(made.pk, actor=dock.second, outcome="justified", comment="fine")
    assert not queries.debts_visible_to(dock.approver).exists()
    assert count("reviewed") == 1


def test_request_that_broke_no_glass_has_nothing_to_review(dock, request_):
    with pytest.raises(NotFound, match="did not break glass"):
        settle(request_.pk, actor=dock.approver, outcome="justified", comment="fine")


def test_overdue_review_is_said_once(dock):
    smash(dock)
    assert remind_of_reviews() == 0
    ReviewDebt.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert [remind_of_reviews(), remind_of_reviews()] == [1, 0]
    assert count("review_overdue") == 1


def test_pages_ask_show_and_settle(dock):
    owner, approver = browser(dock.owner), browser(dock.approver)
    address = f"{reverse('lifecycle:promotion-break-glass')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    form = {"environment": dock.staging.pk, "reason": "payments fail", "incident": "INC-7", "password": "wrong"}
    assert approver.get(address).status_code == 403
    refused = owner.post(address, form)
    assert refused.status_code == 422
    assert "password is wrong" in refused.content.decode()
    answer = owner.post(address, form | {"password": PASSWORD})
    made = PromotionRequest.objects.get()
    page = reverse("lifecycle:promotion", args=[made.pk])
    assert answer["Location"] == page
    for where in (reverse("lifecycle:environments"), reverse("lifecycle:inbox")):
        assert "Break-glass, not reviewed." in approver.get(where).content.decode()
    assert "Another user must review it." in owner.get(page).content.decode()
    assert approver.post(page + "review/", {"outcome": "justified", "reason": ""}).status_code == 422
    assert approver.post(page + "review/", {"outcome": "justified", "reason": "true"}).status_code == 302
    assert "Justified</b>, says approver" in " ".join(approver.get(page).content.decode().split())
    assert "not reviewed" not in approver.get(reverse("lifecycle:environments")).content.decode()
    api = approver.get(f"/api/v1/promotions/{made.pk}/").json()["review"]
    assert (api["outcome"], api["settled_by"], api["bypassed"]) == ("justified", "approver", ["1 approval"])


@pytest.mark.django_db(transaction=True)
def test_parallel_uses_and_reviews_have_one_effect(dock):
    race = Race(*[lambda: smash(dock)] * 8)
    assert (len(race.done), ReviewDebt.objects.count(), Job.objects.filter(kind="promote").count()) == (1, 1, 1)
    made = PromotionRequest.objects.get()
    race = Race(
        *[lambda: settle(made.pk, actor=dock.approver, outcome="justified", comment="a")] * 25,
        *[lambda: settle(made.pk, actor=dock.second, outcome="unjustified", comment="b")] * 25,
    )
    assert (len(race.done), count("reviewed")) == (1, 1)
