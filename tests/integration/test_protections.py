"""Protections that nothing else would miss: each test fails when its protection is removed from the code."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiToken, Role, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.rights import may
from lifecycle.authority.services import revoke_grant
from lifecycle.core.errors import IllegalTransition, NotPermitted
from lifecycle.core.types import Digest
from lifecycle.environments.models import CURRENT_TAG, Slot
from lifecycle.jobs import running
from lifecycle.jobs import services as jobs
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job
from lifecycle.oci.copying import CopyNotVerified, copy_by_digest
from lifecycle.promotion import handlers, services
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image
from tests.factories import oci
from tests.fakes.registry import InMemoryRegistry, answer_with
from tests.services import Services

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
TARGET = "staging/shop/api"
ITEM, OTHER = oci.image("base", "app"), oci.image("base", "other")


# --- The time to run a promotion ----------------------------------------------------------------------------------


def test_promotion_is_not_run_after_its_time(dock: Any, request_: PromotionRequest) -> None:
    services.approve(request_.pk, actor=dock.approver)
    rows = PromotionRequest.objects.filter(pk=request_.pk)
    rows.update(execute_by=timezone.now() - timedelta(seconds=1))  # before the clock's task expires it
    with pytest.raises(IllegalTransition, match="The time to run"):
        services.execute(request_.pk, actor=dock.deployer)
    assert not Job.objects.filter(kind="promote").exists()
    rows.update(execute_by=timezone.now() + timedelta(minutes=1))
    assert services.execute(request_.pk, actor=dock.deployer).state == State.EXECUTING


# --- The copy -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(dock: Any, monkeypatch: pytest.MonkeyPatch) -> InMemoryRegistry:
    """A registry in memory with the image of `dock`."""
    registry = InMemoryRegistry()
    oci.push(registry, "shop/api", ITEM, "1.0")
    oci.push(registry, "shop/api", OTHER)
    Image.objects.filter(pk=dock.image.pk).update(digest=ITEM.manifest.digest.text, manifest=ITEM.manifest.content)
    dock.image.refresh_from_db()
    answer_with(registry, monkeypatch)
    return registry


@pytest.fixture
def executing(dock: Any, shelf: InMemoryRegistry, request_: PromotionRequest) -> Iterator[SimpleNamespace]:
    services.approve(request_.pk, actor=dock.approver)
    services.execute(request_.pk, actor=dock.deployer)
    job = Job.objects.get(kind="promote")

    def run() -> str:
        running.run(job.pk)
        job.refresh_from_db()
        request_.refresh_from_db()
        return str(request_.state)

    return SimpleNamespace(job=job, run=run, request=request_)


def test_promotion_succeeds_when_nothing_interferes(executing: Any, shelf: InMemoryRegistry) -> None:
    assert executing.run() == State.SUCCEEDED
    assert {shelf.tags_of[TARGET][tag] for tag in ("1.0", CURRENT_TAG)} == {ITEM.manifest.digest.text}


def test_copy_reads_its_tags_back(shelf: InMemoryRegistry) -> None:
    class Forgetful(InMemoryRegistry):
        def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> Digest:
            digest = super().put_manifest(repository, reference, content, media_type)
            if repository == TARGET:
                self.tags_of[repository].pop(reference, None)
            return digest

    for registry, error in ((Forgetful(), CopyNotVerified), (shelf, None)):
        oci.push(registry, "shop/api", ITEM, "1.0")
        try:
            copy_by_digest(
                registry,
                source_repository="shop/api",
                target_repository=TARGET,
                digest=ITEM.manifest.digest,
                tags=["1.0"],
            )
        except CopyNotVerified:
            assert error is CopyNotVerified
        else:
            assert error is None


def test_tag_that_moved_after_the_copy_is_no_success(
    executing: Any, shelf: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = handlers.copy_by_digest

    def copy_then_move(client: Any, **arguments: Any) -> Any:
        copied = real(client, **arguments)
        oci.push(shelf, TARGET, OTHER, CURRENT_TAG)  # a late worker of another promotion
        return copied

    monkeypatch.setattr(handlers, "copy_by_digest", copy_then_move)
    assert executing.run() == State.VERIFYING
    assert (executing.job.state, executing.job.error_code) == (Job.State.WAITING, "registry_unavailable")
    assert Slot.objects.get(environment=executing.request.environment).image is None


def test_worker_with_an_old_fence_of_the_slot_copies_nothing(executing: Any, shelf: InMemoryRegistry) -> None:
    slots = Slot.objects.filter(environment=executing.request.environment)
    slots.update(fence=F("fence") + 1)  # a later promotion has claimed the slot
    writes = shelf._writes
    assert executing.run() == State.EXECUTING
    assert shelf._writes == writes
    assert slots.get().image is None


def test_worker_that_lost_its_job_records_no_success(
    executing: Any, shelf: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = handlers.ingest_manifest

    def ingest_then_lose(*arguments: Any, **more: Any) -> Any:
        stored = real(*arguments, **more)
        Job.objects.filter(pk=executing.job.pk).update(fence=F("fence") + 1)  # as another worker claims it
        return stored

    monkeypatch.setattr(handlers, "ingest_manifest", ingest_then_lose)
    assert executing.run() == State.VERIFYING
    assert not AuditEvent.objects.filter(action="promotion.succeeded").exists()
    assert Slot.objects.get(environment=executing.request.environment).image is None


def test_worker_that_lost_its_job_does_not_record_the_end_of_the_copy(
    executing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = handlers.copy_by_digest

    def copy_then_lose(client: Any, **arguments: Any) -> Any:
        copied = real(client, **arguments)
        Job.objects.filter(pk=executing.job.pk).update(fence=F("fence") + 1)
        return copied

    monkeypatch.setattr(handlers, "copy_by_digest", copy_then_lose)
    assert executing.run() == State.EXECUTING


# --- Jobs ---------------------------------------------------------------------------------------------------------


def test_job_without_attempts_left_is_not_claimed() -> None:
    job = jobs.queue(kind_called("match"), subject_id=1, actor=system_user(), max_attempts=2)
    for attempt in (1, 2):
        claimed = jobs.claim(job.pk, worker="a")
        assert claimed is not None
        assert claimed.attempts == attempt
        Job.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))  # the worker died
    assert jobs.claim(job.pk, worker="a") is None
    job.refresh_from_db()
    assert (job.state, job.error_code, job.attempts) == (Job.State.FAILED, "attempts_used", 2)


# --- Rights -------------------------------------------------------------------------------------------------------


def status_with(text: str, path: str = "/api/v1/repositories/") -> int:
    return int(Client().get(path, headers={"Authorization": f"Bearer {text}"}).status_code)


def test_expired_token_works_nowhere(dock: Any) -> None:
    row, text = tokens.create_token(dock.owner, kind=ApiToken.Kind.PERSONAL, name="ci")
    assert tokens.find_token(text) == row
    assert status_with(text) == 200
    ApiToken.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert tokens.find_token(text) is None
    assert status_with(text) == 401
    assert "expired" in tokens.why_refused(text)


def test_token_below_an_expired_token_does_not_work(dock: Any) -> None:
    parent, _ = tokens.create_token(dock.owner, kind=ApiToken.Kind.PERSONAL, name="parent")
    row, text = tokens.create_token(dock.owner, kind=ApiToken.Kind.PERSONAL, name="child")
    ApiToken.objects.filter(pk=row.pk).update(parent=parent)
    assert tokens.find_token(text) is not None
    ApiToken.objects.filter(pk=parent.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert tokens.find_token(text) is None


def test_revoked_grant_is_in_the_audit_log(dock: Any) -> None:
    grant = RoleGrant.objects.get(user=dock.deployer)
    events = AuditEvent.objects.filter(action="grant.revoked")
    with pytest.raises(NotPermitted):
        revoke_grant(grant.pk, actor=dock.requester)
    assert not events.filter(outcome=AuditEvent.Outcome.OK).exists()
    revoke_grant(grant.pk, actor=dock.owner)
    event = events.get(outcome=AuditEvent.Outcome.OK)
    assert (event.actor_name, event.subject_id, event.team) == ("owner", grant.pk, dock.team)
    assert {"user": "deployer", "role": "deployer"}.items() <= event.details.items()


@pytest.mark.parametrize("who", ["person", "admin", "system"])
def test_inactive_account_may_do_nothing(dock: Any, who: str) -> None:
    account, verb = dock.owner, Verb.TEAM_MANAGE
    if who == "admin":
        account = User.objects.create(username="harbour-admin", is_superuser=True)
    elif who == "system":
        account = system_user()
    assert may(account, verb, team=dock.team)
    account.is_active = False
    account.save(update_fields=["is_active"])
    decision = may(account, verb, team=dock.team)
    assert not decision
    assert decision.reason == "This account is deactivated."


# --- The rows of migrations, between tests ------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_builtin_rows_that_a_test_changed_are_as_migrated_afterwards(services: Services) -> None:
    before = list(Role.objects.order_by("pk").values())
    Role.objects.filter(slug="viewer").update(verbs=["image.view", "audit.read"])
    Role.objects.filter(slug="owner").delete()
    Role.objects.create(slug="more", name="More", is_builtin=True, verbs=[])
    services.empty_database()
    assert list(Role.objects.order_by("pk").values()) == before
    assert system_user().kind == User.Kind.SYSTEM
