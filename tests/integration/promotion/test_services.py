"""Promotion services: rights, states, single effects and audit events of each action."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import ApiToken, Role, Team, User
from accounts.tokens import create_token
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.core.errors import (
    Conflict,
    IllegalTransition,
    LifecycleError,
    Malformed,
    NotFound,
    NotPermitted,
    PolicyBlocked,
    RegistryRefused,
    RegistryUnavailable,
)
from lifecycle.environments.models import Slot
from lifecycle.jobs import running
from lifecycle.jobs import services as jobs
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job
from lifecycle.promotion import handlers, queries, services
from lifecycle.promotion.access import lock_promotion, promotion_for
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage
from tests.factories import dock as factories
from tests.factories import people

pytestmark = pytest.mark.django_db
State = PromotionRequest.State


def actions():
    return list(
        AuditEvent.objects.filter(action__startswith="promotion.").order_by("pk").values_list("action", flat=True)
    )


def test_request_pins_digest_and_tag(dock, request_):
    assert (request_.image, request_.tag, request_.state) == (dock.image, "1.0", State.OPEN)
    assert actions() == ["promotion.requested"]


def test_second_request_returns_the_open_one(dock, request_):
    again = services.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="again"
    )
    assert again.pk == request_.pk
    assert actions() == ["promotion.requested"]


@pytest.mark.parametrize("who", ["approver", "deployer", "outsider"])
def test_only_users_with_the_verb_can_request(dock, who):
    with pytest.raises(NotPermitted):
        services.request_promotion(
            dock.repository, dock.image.digest, dock.staging, actor=getattr(dock, who), reason="x"
        )
    assert not PromotionRequest.objects.exists()


def test_digest_missing_in_repository_cannot_be_requested(dock):
    with pytest.raises(NotFound):
        services.request_promotion(
            dock.repository, "sha256:" + "b" * 64, dock.staging, actor=dock.requester, reason="x"
        )


def test_approval_makes_request_ready_and_execution_queues_copy_once(dock, request_):
    assert services.approve(request_.pk, actor=dock.approver).state == State.READY
    services.execute(request_.pk, actor=dock.deployer)
    with pytest.raises(IllegalTransition):
        services.execute(request_.pk, actor=dock.deployer)
    assert Job.objects.filter(kind="promote", subject_id=request_.pk).count() == 1
    assert actions() == ["promotion.requested", "promotion.approved", "promotion.ready", "promotion.executing"]


def test_approve_refuses_own_request_even_of_admin_or_owner(dock):
    dock.owner.is_superuser = True
    dock.owner.save()
    services.Slot.objects.create(repository=dock.repository, environment=dock.dev, image=dock.image)
    mine = services.request_promotion(dock.repository, dock.image.digest, dock.staging, actor=dock.owner, reason="mine")
    with pytest.raises(NotPermitted, match="your own request"):
        services.approve(mine.pk, actor=dock.owner)
    assert services.approve(mine.pk, actor=dock.approver).state == State.READY


@pytest.mark.parametrize("act", [services.approve, services.execute, services.withdraw])
def test_outsider_gets_same_answer_for_hidden_and_missing_request(dock, request_, act):
    for number in (request_.pk, 10**6):
        with pytest.raises(NotFound, match="Promotion not found"):
            act(number, actor=dock.outsider)
    assert promotion_for(dock.approver, request_.pk) == request_


def test_rejection_needs_a_reason_and_is_final(dock, request_):
    with pytest.raises(Malformed):
        services.reject(request_.pk, actor=dock.approver, reason=" ")
    services.reject(request_.pk, actor=dock.approver, reason="not now")
    with pytest.raises(IllegalTransition, match="already rejected by approver"):
        services.approve(request_.pk, actor=dock.second)


@pytest.mark.django_db(transaction=True)
def test_second_vote_waits_for_the_first(dock, request_, in_other_connection):
    with transaction.atomic():
        lock_promotion(dock.approver, request_.pk)
        with pytest.raises(OperationalError, match="lock timeout"):
            in_other_connection(lambda: services.reject(request_.pk, actor=dock.second, reason="x"))
    assert not request_.votes.exists()


def test_vote_does_not_count_after_voter_lost_the_right(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    RoleGrant.objects.filter(user=dock.approver).delete()
    with pytest.raises(PolicyBlocked):
        services.execute(request_.pk, actor=dock.deployer)
    services.reevaluate(request_)
    request_.refresh_from_db()
    assert request_.state == State.OPEN


def test_image_that_skipped_the_previous_environment_is_not_ready(dock):
    skipping = services.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="skip dev"
    )
    assert services.approve(skipping.pk, actor=dock.approver).state == State.OPEN


def test_environment_without_approvals_is_ready_immediately(dock):
    into_dev = services.request_promotion(
        dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="try"
    )
    into_dev.refresh_from_db()
    assert into_dev.state == State.READY


def test_scan_after_approval_makes_request_ready(dock, request_):
    Image.objects.update(scanned_at=None)
    assert services.approve(request_.pk, actor=dock.approver).state == State.OPEN
    services.judge_open()
    request_.refresh_from_db()
    assert request_.state == State.OPEN
    Image.objects.update(scanned_at=timezone.now())
    services.judge_open()
    request_.refresh_from_db()
    assert request_.state == State.READY


def test_approver_of_one_environment_sees_only_its_requests(dock, request_):
    services.Slot.objects.filter(environment=dock.dev).update(image=None)
    into_dev = services.request_promotion(
        dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="x"
    )
    services.Slot.objects.filter(environment=dock.dev).update(image=dock.image)
    local = User.objects.create(username="local")
    RoleGrant.objects.create(
        user=local, team=dock.team, role=Role.objects.get(slug="approver"), environment=dock.staging
    )
    assert list(queries.promotions_visible_to(local)) == [request_]
    assert list(queries.decidable_by(local)) == [request_]
    with pytest.raises(NotFound):
        services.approve(into_dev.pk, actor=local)
    assert services.approve(request_.pk, actor=local).state == State.READY


def test_request_expires_after_its_deadline(dock, request_):
    PromotionRequest.objects.update(approve_by=timezone.now() - timedelta(seconds=1))
    services.expire_due()
    request_.refresh_from_db()
    assert request_.state == State.EXPIRED


def test_environment_prefix_is_never_a_team(dock):
    Team.objects.create(slug="other", name="Other")
    with pytest.raises(Conflict, match="A team is named other"):
        create_environment(dock.team, actor=dock.owner, slug="x", name="X", prefix="other")


def test_inbox_counts_requests_the_user_can_vote_on(dock, request_):
    counts = {name: queries.decidable_count(getattr(dock, name)) for name in ("approver", "requester", "deployer")}
    assert counts == {"approver": 1, "requester": 0, "deployer": 0}
    services.approve(request_.pk, actor=dock.approver)
    assert queries.decidable_count(dock.second) == 0


def severe_finding(image, osv_id, severity="critical"):
    package = factories.package("libssl3", "3.0.11-1", source="openssl")
    factories.carry(image, 0, package)
    factories.advisory(osv_id, severity, package)


def test_approval_lapses_on_severe_finding_and_can_be_repeated(dock, request_):
    assert services.approve(request_.pk, actor=dock.approver).state == State.READY
    severe_finding(dock.image, "CVE-2026-1")
    with pytest.raises(PolicyBlocked):
        services.execute(request_.pk, actor=dock.deployer)
    services.judge_open()
    request_.refresh_from_db()
    vote = request_.votes.get()
    assert (request_.state, vote.lapse_reason) == (State.OPEN, "New findings since the vote: CVE-2026-1 libssl3.")
    assert actions()[-2:] == ["promotion.vote_lapsed", "promotion.regressed"]
    assert list(queries.decidable_by(dock.approver)) == [request_]
    assert services.approve(request_.pk, actor=dock.approver).state == State.READY
    with pytest.raises(Conflict, match="voted on this"):
        services.approve(request_.pk, actor=dock.approver)


def test_packages_waiting_for_matching_are_unknown(dock, request_):
    package = factories.package("libssl3", "3.0.11-1", source="openssl")
    factories.carry(dock.image, 0, package)
    job = jobs.queue(
        kind_called("match"), subject_id=dock.image.pk, actor=dock.owner, payload={"package_ids": [package.pk]}
    )
    assert services.approve(request_.pk, actor=dock.approver).state == State.OPEN
    assert request_.votes.get().evaluation.inputs["findings"] is None
    assert services.judge_open() == 1  # it stays due, although no time stamp is newer
    request_.refresh_from_db()
    assert request_.state == State.OPEN
    Job.objects.filter(pk=job.pk).update(state=Job.State.FAILED, finished_at=clock.now())
    assert services.judge_open() == 1
    request_.refresh_from_db()
    assert request_.state == State.OPEN  # the failed job did not match them either
    again = jobs.queue_again(job)
    Job.objects.filter(pk=again.pk).update(state=Job.State.SUCCEEDED, finished_at=clock.now())
    assert services.judge_open() == 1
    request_.refresh_from_db()
    assert request_.state == State.READY
    assert services.judge_open() == 0


def test_approval_stays_valid_on_lesser_finding(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    severe_finding(dock.image, "CVE-2026-2", "medium")
    assert services.execute(request_.pk, actor=dock.deployer).state == State.EXECUTING


def test_vote_stores_the_evidence_the_voter_saw(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    seen = request_.votes.get().evaluation.inputs
    assert (seen["digest"], seen["holds"]) == (dock.image.digest, None)
    assert seen["findings"] == {"open": 0, "fixed": 0, "new": 0, "severe": [], "unjudged": 0, "without_packages": 0}


def test_creator_of_robot_token_cannot_approve_robot_request(dock):
    robot = people.robot(dock.team, "owner", maker=dock.owner).user
    Slot.objects.create(repository=dock.repository, environment=dock.dev, image=dock.image)
    create_token(robot, kind=ApiToken.Kind.ROBOT, name="ci", made_by=dock.approver)
    asked = services.request_promotion(dock.repository, dock.image.digest, dock.staging, actor=robot, reason="ci")
    with pytest.raises(NotPermitted, match="your own request"):
        services.approve(asked.pk, actor=dock.approver)
    assert not queries.decidable_by(dock.approver).exists()

    create_token(robot, kind=ApiToken.Kind.ROBOT, name="later", made_by=dock.owner)
    assert queries.decidable_by(dock.second).exists()
    assert services.approve(asked.pk, actor=dock.second).state == State.READY


def test_creator_of_robot_cannot_approve_robot_request(dock):
    maker = dock.approver
    RoleGrant.objects.create(user=maker, team=dock.team, role=Role.objects.get(slug="creator"))
    robot = people.robot(dock.team, "owner", maker=maker).user
    Slot.objects.create(repository=dock.repository, environment=dock.dev, image=dock.image)
    asked = services.request_promotion(dock.repository, dock.image.digest, dock.staging, actor=robot, reason="ci")
    for refused, why in ((maker, "your own request"), (robot, "Only people")):
        with pytest.raises(NotPermitted, match=why):
            services.approve(asked.pk, actor=refused)
    assert not queries.decidable_by(maker).exists()
    assert services.approve(asked.pk, actor=dock.second).state == State.READY


def test_request_without_possible_approver_is_refused_with_reason(dock):
    RoleGrant.objects.filter(user__in=(dock.approver, dock.second, dock.owner)).delete()
    with pytest.raises(PolicyBlocked) as refused:
        services.request_promotion(
            dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="release"
        )
    assert refused.value.details["reasons"] == ["0 of 1, and no other user can approve. The requester does not count."]
    assert not PromotionRequest.objects.exists()


def test_changed_requests_are_judged_first_and_the_rest_in_turn(dock, request_):
    assert services.judge_open() == 0  # judged at creation
    Image.objects.update(risk_at=timezone.now())
    assert services.judge_open() == 1
    assert services.judge_open() == 0
    Slot.objects.filter(environment=dock.dev).update(since=timezone.now())
    assert services.judge_open() == 1
    PromotionRequest.objects.update(judged_at=timezone.now() - queries.JUDGED_AGAIN_AFTER - timedelta(seconds=1))
    assert services.judge_open(limit=0) == 0
    assert services.judge_open() == 1


@pytest.mark.django_db(transaction=True)
def test_judging_skips_request_locked_by_a_vote(dock, request_, in_other_connection):
    PromotionRequest.objects.update(judged_at=None)
    with transaction.atomic():
        lock_promotion(dock.approver, request_.pk)
        assert in_other_connection(services.judge_open) == 0  # neither waits nor fails
    assert services.judge_open() == 1


@pytest.fixture
def executing(dock, request_):
    services.approve(request_.pk, actor=dock.approver)
    services.execute(request_.pk, actor=dock.deployer)
    return Job.objects.get(kind="promote")


def test_unavailable_registry_returns_to_ready_and_fails_the_third_time(executing, request_, dock):
    for attempt, state in ((1, State.READY), (2, State.READY), (3, State.FAILED)):
        job = Job.objects.filter(kind="promote").latest("pk")
        Job.objects.filter(pk=job.pk).update(attempts=job.max_attempts, last_error="No answer.")
        running.run(job.pk)  # no attempt is left, so the claim gives up
        request_.refresh_from_db()
        assert (request_.state, request_.failure, request_.attempts) == (state, "No answer.", attempt)
        if state == State.READY:
            services.execute(request_.pk, actor=dock.deployer)  # the approval is still valid


def test_minute_without_registry_does_not_use_attempts(executing):
    waits = [jobs.RETRY_AFTER_S[min(n, len(jobs.RETRY_AFTER_S)) - 1] for n in range(1, executing.max_attempts)]
    assert sum(waits) > 600


@pytest.mark.parametrize(
    ("error", "state"),
    [(RegistryUnavailable("away"), State.EXECUTING), (RegistryRefused("no"), State.FAILED)],
)
def test_failed_copy_is_retried_only_for_temporary_errors(executing, request_, monkeypatch, error, state):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(handlers, "copy_by_digest", fail)
    running.run(executing.pk)
    request_.refresh_from_db()
    assert request_.state == state
    assert Slot.objects.get(environment=request_.environment).image is None


def test_worker_promotes_nothing_after_user_lost_the_right(dock, executing, request_, monkeypatch):
    monkeypatch.setattr(handlers, "copy_by_digest", lambda *a, **k: pytest.fail("copied"))
    RoleGrant.objects.filter(user=dock.deployer).delete()
    running.run(executing.pk)
    request_.refresh_from_db()
    assert (request_.state, "promotion.execute" in request_.failure) == (State.FAILED, True)


# --- What cannot succeed is refused at request time; page and API share the refusal -------------------------------


def ask(dock, way, **fields):
    """Request the promotion of dock.image to dev by the service, the API or the page; return the text of a refusal."""
    values = {"tag": "1.0", "reason": "release", **fields}
    client = Client()
    client.force_login(dock.requester)
    if way == "service":
        try:
            services.request_promotion(dock.repository, dock.image.digest, dock.dev, actor=dock.requester, **values)
        except LifecycleError as error:
            return error.message
        return ""
    if way == "api":
        body = {"digest": dock.image.digest, "repository": dock.repository.name, "environment": "dev", **values}
        answer = client.post("/api/v1/promotions/", body, "application/json")
        return "" if answer.status_code == 201 else answer.json()["detail"]
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    answer = client.post(page, {"environment": dock.dev.pk, **values})
    assert answer.status_code in {302, 422}
    text = answer.content.decode()
    if answer.status_code == 422:
        assert "release" in text  # nothing that was typed is lost
    return "" if answer.status_code == 302 else text


WAYS = ("service", "api", "page")


@pytest.mark.parametrize("way", WAYS)
def test_digest_that_the_environment_holds_is_refused(dock, way):
    slot = services.Slot.objects.create(repository=dock.repository, environment=dock.dev, image=dock.image)
    assert "already deployed in dev" in ask(dock, way)
    assert not PromotionRequest.objects.exists()
    other = Image.objects.create(digest="sha256:" + "b" * 64, kind="manifest", manifest=b"{}")
    services.Slot.objects.filter(pk=slot.pk).update(image=other)
    assert ask(dock, way) == ""
    assert PromotionRequest.objects.count() == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "tag", ["-x", ".x", "a b", "a/b", "a" * 129, "sha256-" + "a" * 64, "sha256-" + "a" * 64 + ".sig"]
)
def test_tag_that_the_target_cannot_take_is_refused(dock, way, tag):
    assert ask(dock, way, tag=tag)
    assert not PromotionRequest.objects.exists()
    assert ask(dock, way, tag="deps-" + "a" * 64) == ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [239, 240])
def test_target_name_that_registries_do_not_take_is_refused(dock, way, length):
    name = "shop/" + "a" * (length - 5)
    Repository.objects.filter(pk=dock.repository.pk).update(name=name, family=name)
    dock.repository.refresh_from_db()
    refusal = ask(dock, way)
    assert ("would have 244 characters" in refusal) == (length == 240)
    assert PromotionRequest.objects.exists() == (length == 239)


def test_longest_name_also_counts_the_host(dock):
    assert Registry(endpoint="http://localhost:1").name_max == 243
    assert Registry(endpoint="https://registry.example.com:5000").name_max == 229
    assert Registry(endpoint="http://r.co").name_max == 245


@pytest.mark.parametrize("change", [{"removed_at": timezone.now()}, {"is_top_level": False}])
@pytest.mark.parametrize("way", ["service", "api"])
def test_image_that_left_its_repository_or_is_only_a_child_is_refused(dock, way, change):
    member = RepositoryImage.objects.filter(image=dock.image)
    member.update(**change)
    assert "can be promoted on its own" in ask(dock, way)
    client = Client()
    client.force_login(dock.requester)
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    assert client.get(page).status_code == 404
    assert not PromotionRequest.objects.exists()
    member.update(removed_at=None, is_top_level=True)
    assert client.get(page).status_code == 200
    assert ask(dock, way) == ""


def test_page_offers_a_later_environment_and_says_what_comes_first(dock):
    client = Client()
    client.force_login(dock.requester)
    page = f"{reverse('lifecycle:promotion-new')}?repository={dock.repository.pk}&digest={dock.image.digest}"
    assert "ready only after dev" in client.get(page).content.decode()
    assert client.post(page, {"environment": dock.staging.pk, "reason": "early"}).status_code == 302
    assert PromotionRequest.objects.get().state == State.OPEN  # as with the API: the order is a requirement
