"""Promotions over real services while parts fail: one effect or none, with a correct report."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from accounts.models import Team, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.jobs.tasks import run_job
from lifecycle.oci.client import RegistryClient
from lifecycle.promotion import release_sets, services
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.promotion.release_sets import Wanted
from lifecycle.quarantine.services import quarantine
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, Tag, TagEvent
from lifecycle.registry.services import ensure_managed_registry
from tests.factories import dock, oci
from tests.proxy import RegistryProxy
from tests.racing import Race
from tests.services import Services, wait_until

State = PromotionRequest.State
TARGET = "dev/shop/api"


@dataclass
class Quay:
    """A team with one environment that needs one approval, over a real registry with workers."""

    team: Team
    environment: Environment
    asker: User
    approver: User
    client: RegistryClient

    def push(self, text: str, tag: str, repository: str = "shop/api") -> Image:
        """Push an image and wait until the workers have created its rows and listed its packages."""
        item = oci.image("base", text)
        oci.push(self.client, repository, item, tag)
        found = Image.objects.filter(digest=item.manifest.digest.text, scanned_at__isnull=False)
        wait_until(found.exists, 90)
        return found.get()

    def approved(self, image: Image) -> PromotionRequest:
        """Return a request that is ready to run."""
        repository = Repository.objects.get(name="shop/api")
        made = services.request_promotion(
            repository, image.digest, self.environment, actor=self.asker, reason="release"
        )
        return services.approve(made.pk, actor=self.approver)

    def holds(self, tag: str) -> str | None:
        """Return the digest of a tag of the target in the registry itself."""
        held = self.client.resolve(TARGET, tag)
        return held.digest.text if held is not None else None


@pytest.fixture
def quay(live_stack: Services) -> Quay:
    team = dock.team("shop")
    environment = create_environment(
        team, actor=services.system_user(), slug="dev", name="Dev", prefix="dev", required_approvals=1
    )
    asker, approver = dock.user("mia", "owner", of=team), dock.user("kim", "approver", "deployer", of=team)
    return Quay(team, environment, asker, approver, client_for(ensure_managed_registry()))


@pytest.fixture
def proxy(live_stack: Services) -> Iterator[RegistryProxy]:
    made = RegistryProxy(live_stack.registry.url)
    yield made
    made.close()


def state_of(request: PromotionRequest) -> str:
    return PromotionRequest.objects.values_list("state", flat=True).get(pk=request.pk)


def count(action: str, request: PromotionRequest) -> int:
    return AuditEvent.objects.filter(action=action, subject_kind="promotionrequest", subject_id=request.pk).count()


def assert_one_effect(quay: Quay, request: PromotionRequest) -> None:
    """Check that both tags of the target have the digest, in the registry and in the rows, with one audit event."""
    digest = request.image.digest
    assert [quay.holds(tag) for tag in (request.tag, "current")] == [digest, digest]
    assert (count("promotion.executing", request), count("promotion.succeeded", request)) == (1, 1)
    assert Slot.objects.get(environment=quay.environment).image == request.image
    tags = Tag.objects.filter(repository__name=TARGET, name__in=(request.tag, "current"))
    assert set(tags.values_list("image__digest", flat=True)) == {digest}
    assert TagEvent.objects.filter(tag__in=tags, new_image=request.image).count() == 2


def is_mount(method: str, path: str) -> bool:
    return method == "POST" and path.startswith(f"/v2/{TARGET}/blobs/uploads/")


def is_manifest(method: str, path: str) -> bool:
    return method == "PUT" and path.startswith(f"/v2/{TARGET}/manifests/sha256:")


def is_current(method: str, path: str) -> bool:
    return method == "PUT" and path == f"/v2/{TARGET}/manifests/current"


def test_worker_killed_during_copy_leaves_one_effect(live_stack: Services, quay: Quay, proxy: RegistryProxy) -> None:
    points: list[tuple[Callable[[str, str], bool], bool]] = [
        (is_mount, False),  # nothing is copied yet
        (is_manifest, False),  # all blobs are copied
        (is_current, True),  # the registry has everything, but the worker gets no answer
    ]
    for number, (point, after) in enumerate(points):
        request = quay.approved(quay.push(f"build {number}", f"1.{number}"))
        live_stack.kill("worker")
        with proxy.holding(point, after=after) as hold:
            live_stack.need_workers("worker", REGISTRY_URL=proxy.url)
            services.execute(request.pk, actor=quay.approver)
            assert hold.reached.wait(60)
            assert state_of(request) == State.EXECUTING
            live_stack.kill("worker", signal.SIGKILL)
        live_stack.need_workers("worker")
        wait_until(lambda request=request: state_of(request) == State.SUCCEEDED, 60)
        assert Job.objects.get(kind="promote", subject_id=request.pk).attempts == 2
        assert_one_effect(quay, request)
    # The target is complete, and the worker is about to commit the rows.
    request = quay.approved(quay.push("last build", "2.0"))
    live_stack.kill("worker")
    services.execute(request.pk, actor=quay.approver)
    with live_stack.held("lifecycle_slot") as is_waited_for:
        live_stack.need_workers("worker")
        wait_until(is_waited_for, 60)
        assert quay.holds("current") == request.image.digest
        assert state_of(request) == State.VERIFYING
        live_stack.kill("worker", signal.SIGKILL)
    live_stack.need_workers("worker")
    wait_until(lambda: state_of(request) == State.SUCCEEDED, 60)
    assert_one_effect(quay, request)


def test_worker_with_lost_lease_changes_nothing(live_stack: Services, quay: Quay, proxy: RegistryProxy) -> None:
    first, second = (quay.approved(quay.push(f"build {number}", f"1.{number}")) for number in range(2))
    live_stack.kill("worker")
    with proxy.holding(is_current) as hold:
        live_stack.need_workers("worker", REGISTRY_URL=proxy.url)
        services.execute(first.pk, actor=quay.approver)
        assert hold.reached.wait(60)
        stopped = live_stack.processes.pop("worker")  # it neither works nor renews its lease, like a machine that hangs
        os.killpg(stopped.pid, signal.SIGSTOP)
        try:
            live_stack.need_workers("worker")
            # A row that it locked when it stopped is released after 60 s (`idle_in_transaction_session_timeout`).
            wait_until(lambda: state_of(first) == State.SUCCEEDED, 120)
            assert_one_effect(quay, first)
            services.execute(second.pk, actor=quay.approver)
            wait_until(lambda: state_of(second) == State.SUCCEEDED, 60)
            lines = JobLogLine.objects.filter(job__subject_id=first.pk, job__kind="promote").count()
            hold.release()  # its request is sent, and the registry cannot detect that it is too late
            # Seen in the registry, or already reverted. On an idle machine the revert is faster than the check.
            refused = AuditEvent.objects.filter(action="tag.move_refused")
            wait_until(lambda: refused.exists() or quay.holds("current") == first.image.digest, 30)
            os.killpg(stopped.pid, signal.SIGCONT)
            wait_until(lambda: "job_lease_lost" in live_stack.log("worker"), 30)
        finally:
            os.killpg(stopped.pid, signal.SIGKILL)
            stopped.wait(timeout=10)
    assert JobLogLine.objects.filter(job__subject_id=first.pk, job__kind="promote").count() == lines
    assert (count("promotion.succeeded", first), count("promotion.succeeded", second)) == (1, 1)
    # Its write to the registry was not a promotion: it is reverted and reported.
    wait_until(lambda: quay.holds("current") == second.image.digest, 60)
    event = refused.get()
    assert (event.repository, event.digest) == (TARGET, first.image.digest)
    assert Slot.objects.get(environment=quay.environment).image == second.image
    assert Tag.objects.get(repository__name=TARGET, name="current").image == second.image


def test_unavailable_registry_delays_or_fails_a_promotion_as_a_whole(live_stack: Services, quay: Quay) -> None:
    first, second = (quay.approved(quay.push(f"build {number}", f"1.{number}")) for number in range(2))
    live_stack.kill("registry")
    services.execute(first.pk, actor=quay.approver)
    job = Job.objects.filter(kind="promote", subject_id=first.pk)
    wait_until(lambda: job.filter(attempts__gte=2, error_code="registry_unavailable").exists(), 60)
    assert state_of(first) == State.EXECUTING
    live_stack.need_registry()
    wait_until(lambda: state_of(first) == State.SUCCEEDED, 60)
    assert_one_effect(quay, first)
    # Now the registry stays down until the attempts are used.
    live_stack.kill("registry")
    live_stack.kill("worker")
    services.execute(second.pk, actor=quay.approver)
    Job.objects.filter(kind="promote", subject_id=second.pk).update(max_attempts=1)
    live_stack.need_workers("worker")
    wait_until(lambda: state_of(second) == State.READY, 60)
    second.refresh_from_db()
    assert "cannot be reached" in second.failure
    assert Slot.objects.get(environment=quay.environment).image == first.image
    live_stack.need_registry()
    assert (quay.holds("1.1"), quay.holds("current")) == (None, first.image.digest)
    services.execute(second.pk, actor=quay.approver)  # the approval is still valid
    wait_until(lambda: state_of(second) == State.SUCCEEDED, 60)
    assert quay.holds("current") == second.image.digest
    assert count("promotion.succeeded", second) == 1


def test_repeated_message_promotes_once(live_stack: Services, quay: Quay) -> None:
    request = quay.approved(quay.push("build", "1.0"))
    services.execute(request.pk, actor=quay.approver)
    job = Job.objects.get(kind="promote")
    for _ in range(20):
        run_job.apply_async((job.pk,), queue="promote")
    wait_until(lambda: state_of(request) == State.SUCCEEDED, 60)
    for _ in range(5):
        run_job.apply_async((job.pk,), queue="promote")
    probe = quay.approved(quay.push("later build", "1.1"))  # behind them in the queue
    services.execute(probe.pk, actor=quay.approver)
    wait_until(lambda: state_of(probe) == State.SUCCEEDED, 60)
    job.refresh_from_db()
    assert (job.attempts, count("promotion.succeeded", request)) == (1, 1)


def test_worker_killed_between_the_tags_of_two_members_completes_the_set_or_puts_it_back(
    live_stack: Services, quay: Quay, proxy: RegistryProxy
) -> None:
    api, web = "shop/api", "shop/web"
    guard = dock.user("guard", "security", of=quay.team)

    def approved(version: str) -> ReleaseSet:
        for name in (api, web):
            quay.push(f"{name} {version}", version, name)
        wanted = [Wanted(Repository.objects.get(name=name), tag=version) for name in (api, web)]
        made = release_sets.request_set(wanted, quay.environment, actor=quay.asker, reason="release")
        return release_sets.approve(made.pk, actor=quay.approver)

    def kill_between(made: ReleaseSet) -> list[str | None]:
        """Kill the worker when it is about to set `current` of the second member; return what `current` is then."""
        live_stack.kill("worker")
        with proxy.holding(lambda method, path: (method, path) == ("PUT", f"/v2/dev/{web}/manifests/current")) as hold:
            live_stack.need_workers("worker", REGISTRY_URL=proxy.url)
            release_sets.execute(made.pk, actor=quay.approver)
            assert hold.reached.wait(60)
            live_stack.kill("worker", signal.SIGKILL)
            return held("current")  # the request that is held is passed on after this

    def held(tag: str) -> list[str | None]:
        found = [quay.client.resolve(f"dev/{name}", tag) for name in (api, web)]
        return [item.digest.text if item is not None else None for item in found]

    def state(made: ReleaseSet) -> tuple[str, set[str]]:
        made.refresh_from_db()
        return made.state, set(made.members.values_list("state", flat=True))

    first = approved("1.0")
    digests = list(first.members.order_by("pk").values_list("image__digest", flat=True))
    assert kill_between(first) == [digests[0], None]
    assert state(first) == ("executing", {"verifying"})
    live_stack.need_workers("worker")
    wait_until(lambda: state(first) == ("succeeded", {"succeeded"}), 90)
    assert (held("1.0"), held("current")) == (digests, digests)
    slots = Slot.objects.filter(environment=quay.environment).order_by("repository")
    assert list(slots.values_list("image__digest", flat=True)) == digests
    assert AuditEvent.objects.filter(action="release_set.succeeded").count() == 1

    second = approved("2.0")
    newer = list(second.members.order_by("pk").values_list("image__digest", flat=True))
    assert kill_between(second) == [newer[0], digests[1]]
    quarantine(newer[1], actor=guard, reason="stolen keys")
    live_stack.need_workers("worker")
    wait_until(lambda: state(second) == ("failed", {"failed"}), 90)
    assert (held("2.0"), held("current")) == ([None, None], digests)
    assert list(slots.values_list("image__digest", flat=True)) == digests
    rows = Tag.objects.filter(repository__name__startswith="dev/").order_by("repository__source")
    wait_until(lambda: not rows.filter(name="2.0", image__isnull=False).exists(), 30)
    assert list(rows.filter(name="current").values_list("image__digest", flat=True)) == digests


@dataclass
class Crowd:
    """A team with dev and staging, a requester, and two users who approve and run. Rows only, no servers."""

    dev: Environment
    staging: Environment
    asker: User
    first: User
    second: User


@pytest.fixture
def crowd(transactional_db: None) -> Crowd:
    team = dock.team("shop")
    dev, staging = (
        create_environment(
            team, actor=services.system_user(), slug=slug, name=slug, prefix=slug, required_approvals=approvals
        )
        for slug, approvals in (("dev", 0), ("staging", 1))
    )
    first, second = (dock.user(name, "approver", "deployer", of=team) for name in ("kim", "lou"))
    return Crowd(dev, staging, dock.user("mia", "owner", of=team), first, second)


ROUNDS = 20


def fresh(crowd: Crowd, number: int) -> PromotionRequest:
    """Return an open request for staging, from its own source repository."""
    image, where = (
        dock.image(f"race {number}", layers=1, scanned_at=clock.now()),
        dock.repository(f"shop/race-{number}"),
    )
    dock.push(where, image, "1.0")
    Slot.objects.create(repository=where, environment=crowd.dev, image=image, since=clock.now())
    return services.request_promotion(where, image.digest, crowd.staging, actor=crowd.asker, reason="race")


def fresh_and_ready(crowd: Crowd, number: int) -> PromotionRequest:
    return services.approve(fresh(crowd, number).pk, actor=crowd.second)


def test_rejection_and_execution_at_once_only_one_succeeds(crowd: Crowd) -> None:
    for number in range(ROUNDS):
        request = fresh_and_ready(crowd, number)
        race = Race(
            lambda pk=request.pk: services.execute(pk, actor=crowd.first),
            lambda pk=request.pk: services.reject(pk, actor=crowd.second, reason="no"),
        )
        assert (len(race.done), [error.http_status for error in race.refused]) == (1, [409])
        events = (count("promotion.executing", request), count("promotion.rejected", request))
        jobs = Job.objects.filter(kind="promote", subject_id=request.pk).count()
        outcomes = {State.EXECUTING: ((1, 0), 1), State.REJECTED: ((0, 1), 0)}
        assert (events, jobs) == outcomes[State(state_of(request))]


def test_concurrent_executions_take_the_slot_once(crowd: Crowd) -> None:
    for number in range(ROUNDS):
        request = fresh_and_ready(crowd, number)
        fence = Slot.objects.get(repository=request.repository, environment=request.environment).fence
        race = Race(
            *[lambda pk=request.pk, who=who: services.execute(pk, actor=who) for who in (crowd.first, crowd.second)] * 2
        )
        assert (len(race.done), [error.http_status for error in race.refused]) == (1, [409] * 3)
        assert Job.objects.filter(kind="promote", subject_id=request.pk).count() == 1
        assert count("promotion.executing", request) == 1
        assert Slot.objects.get(repository=request.repository, environment=request.environment).fence == fence + 1


def test_concurrent_approvals_make_request_ready_once(crowd: Crowd) -> None:
    for number in range(ROUNDS):
        request = fresh(crowd, number)
        race = Race(
            *[lambda pk=request.pk, who=who: services.approve(pk, actor=who) for who in (crowd.first, crowd.second)],
            lambda pk=request.pk: services.approve(pk, actor=crowd.first),
        )
        assert (len(race.done), len(race.refused)) == (2, 1)  # the second approval of the same user is refused
        assert (state_of(request), count("promotion.ready", request), request.votes.count()) == (State.READY, 1, 2)


def test_concurrent_approval_and_rejection_end_rejected(crowd: Crowd) -> None:
    for number in range(ROUNDS):
        request = fresh(crowd, number)
        race = Race(
            lambda pk=request.pk: services.approve(pk, actor=crowd.first),
            lambda pk=request.pk: services.reject(pk, actor=crowd.second, reason="no"),
        )
        approved = count("promotion.approved", request)
        assert (state_of(request), count("promotion.rejected", request)) == (State.REJECTED, 1)
        assert len(race.done) == 1 + approved  # the later one is refused and leaves no vote
        assert request.votes.count() == 1 + approved


def test_vote_during_judging_neither_blocks_nor_fails(crowd: Crowd) -> None:
    requests = [fresh(crowd, number) for number in range(8)]
    for _ in range(3):
        PromotionRequest.objects.filter(state__in=(State.OPEN, State.READY)).update(judged_at=None)
        open_now = [request for request in requests if state_of(request) == State.OPEN][:2]
        race = Race(
            services.judge_open,
            services.judge_open,
            *[lambda pk=request.pk: services.approve(pk, actor=crowd.first) for request in open_now],
        )
        assert race.refused == []


def test_concurrent_requests_create_one_request(crowd: Crowd) -> None:
    where, image = dock.repository("shop/race"), dock.image("asked twice", layers=1, scanned_at=clock.now())
    dock.push(where, image, "1.0")
    ask = {"actor": crowd.asker, "reason": "both at once"}
    race = Race(*[lambda: services.request_promotion(where, image.digest, crowd.dev, **ask)] * 4)
    assert len(race.done) == 4
    assert PromotionRequest.objects.filter(repository=where, image=image).count() == 1
