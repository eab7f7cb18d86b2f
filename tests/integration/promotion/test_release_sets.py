"""Release sets: one vote, one run, and all targets or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from django.db import connection, transaction

from accounts.models import Role, User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.core.errors import (
    Conflict,
    IllegalTransition,
    LimitExceeded,
    Malformed,
    NotFound,
    NotPermitted,
    PolicyBlocked,
)
from lifecycle.core.scratch import disk_full
from lifecycle.environments.models import Environment, Slot
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.notices.models import Notice
from lifecycle.oci.client import QuotaExceeded, RegistryRefused
from lifecycle.promotion import automation, release_sets, releasing, services, threads
from lifecycle.promotion.automatic import why_not_automatic
from lifecycle.promotion.breakglass import break_glass
from lifecycle.promotion.evaluating import judge_locked
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.promotion.queries import decidable_by, decidable_count
from lifecycle.promotion.release_queries import sets_decidable_by, sets_executable_by, sets_visible_to, why_set_waits
from lifecycle.promotion.release_sets import Wanted
from lifecycle.promotion.rollback import request_rollback
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.services import quarantine
from lifecycle.registry.models import Image, Repository, Tag
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.signatures.making import private_pem
from lifecycle.trust import signing
from tests.factories import dock, oci
from tests.factories.signatures import new_key
from tests.fakes.registry import InMemoryRegistry, answer_with
from tests.racing import Race

pytestmark = pytest.mark.django_db
State, SetState = PromotionRequest.State, ReleaseSet.State
NAMES = ("shop/api", "shop/web", "shop/chart")


@dataclass
class Shop:
    """Two images and a chart of one team, and an environment that needs one approval, over a registry in memory."""

    registry: InMemoryRegistry
    environment: Environment
    asker: User
    approver: User
    runner: User

    def push(self, version: str) -> list[Image]:
        """Push and store one version of all three."""
        made = []
        for name in NAMES:
            item = oci.chart(version) if name.endswith("chart") else oci.image("base", f"{name} {version}")
            oci.push(self.registry, name, item, version)
            image = ingest_manifest(ensure_managed_registry().pk, name, item.manifest.digest.text, tag=version)
            Image.objects.filter(pk=image.pk, kind="manifest").update(scanned_at=clock.now(), package_count=1)
            made.append(image)
        return made

    def ask(self, version: str, *names: str) -> ReleaseSet:
        wanted = [Wanted(Repository.objects.get(name=name), tag=version) for name in names or NAMES]
        return release_sets.request_set(wanted, self.environment, actor=self.asker, reason=f"release {version}")

    def ready(self, version: str) -> ReleaseSet:
        self.push(version)
        return release_sets.approve(self.ask(version).pk, actor=self.approver)

    def run(self, release_set: ReleaseSet) -> Job:
        """Run the set, with one attempt of its job."""
        release_sets.execute(release_set.pk, actor=self.runner)
        return attempt(release_set)

    def held(self, *tags: str) -> list[list[str | None]]:
        """Return the digests of these tags in each target, in the registry."""
        found = [[self.registry.resolve(f"dev/{name}", tag) for tag in tags] for name in NAMES]
        return [[held.digest.text if held else None for held in row] for row in found]


def attempt(release_set: ReleaseSet) -> Job:
    """Run the waiting job of the set once, and return it."""
    job = Job.objects.filter(kind="release", subject_id=release_set.pk).latest("pk")
    Job.objects.filter(pk=job.pk, state="waiting").update(not_before=None)
    running.run(job.pk)
    job.refresh_from_db()
    return job


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    registry = InMemoryRegistry()
    answer_with(registry, monkeypatch)
    team = dock.team("shop")
    for name in NAMES:
        dock.repository(name)
    environment = create_environment(
        team, actor=system_user(), slug="dev", name="Dev", prefix="dev", required_approvals=1
    )
    return Shop(
        registry, environment, dock.user("mia", "creator", of=team), dock.user("kim", "approver", of=team),
        dock.user("lou", "deployer", of=team),
    )  # fmt: skip


def states(release_set: ReleaseSet) -> tuple[str, set[str]]:
    release_set.refresh_from_db()
    return release_set.state, set(release_set.members.values_list("state", flat=True))


def actions(release_set: ReleaseSet) -> list[str]:
    events = AuditEvent.objects.filter(subject_kind="releaseset", subject_id=release_set.pk).order_by("pk")
    return [action.removeprefix("release_set.") for action in events.values_list("action", flat=True)]


def images_in(shop: Shop) -> list[Image | None]:
    return [row.image for row in Slot.objects.filter(environment=shop.environment).order_by("repository")]


def test_set_is_asked_approved_and_run_as_one(shop: Shop) -> None:
    images = shop.push("1.0")
    made = shop.ask("1.0")
    assert states(made) == ("open", {"open"})
    assert shop.ask("1.0") == made  # asked twice
    assert [decidable_by(shop.approver).count(), decidable_count(shop.approver)] == [0, 1]
    assert list(sets_decidable_by(shop.approver)) == [made]
    assert not sets_decidable_by(shop.asker).exists()
    assert not sets_visible_to(dock.user("eve")).exists()
    with pytest.raises(NotFound, match="Release set not found"):
        release_sets.approve(made.pk, actor=dock.user("eve"))
    member = made.members.order_by("pk")[0]
    for act in (services.approve, services.withdraw, services.execute):
        with pytest.raises(Conflict, match=rf"part of {made} .*/release-sets/{made.pk}/"):
            act(member.pk, actor={services.withdraw: shop.asker, services.execute: shop.runner}.get(act, shop.approver))
    with pytest.raises(Conflict, match="part of"):
        services.reject(member.pk, actor=shop.approver, reason="no")
    with pytest.raises(NotPermitted, match="your own request"):
        release_sets.approve(made.pk, actor=dock.user("mia", "owner", of=shop.environment.team))
    with pytest.raises(IllegalTransition, match="when all requirements"):
        release_sets.execute(made.pk, actor=shop.runner)
    release_sets.approve(made.pk, actor=shop.approver)
    assert states(made) == ("ready", {"ready"})
    assert [row.votes.get().voter for row in made.members.all()] == [shop.approver] * 3
    with pytest.raises(Conflict, match="already voted"):
        release_sets.approve(made.pk, actor=shop.approver)
    assert list(sets_executable_by(shop.runner)) == [made]
    job = shop.run(made)
    assert (job.state, job.actor) == ("succeeded", shop.runner)
    assert states(made) == ("succeeded", {"succeeded"})
    assert images_in(shop) == images
    assert shop.held("1.0", "current") == [[image.digest] * 2 for image in images]
    rows = Tag.objects.filter(repository__name__startswith="dev/", name="current").order_by("repository__source")
    assert [row.image for row in rows] == images
    assert actions(made) == ["requested", "approved", "ready", "executing", "succeeded"]
    # Each is told once, whatever the number of members.
    told = [(row.topic, row.thread) for row in Notice.objects.order_by("pk")]
    assert [topic for topic, _ in told].count("promotion.asked") == 1
    assert {thread for _, thread in told} == {f"releaseset-{made.pk}"}
    assert {topic for topic, _ in told} == {"promotion.asked", "promotion.decided", "promotion.executed"}


@pytest.mark.parametrize(
    ("names", "why"),
    [(NAMES[:1], "2 to 50 members"), ((NAMES[0], NAMES[0]), "each repository once"), (("shop/api", "shop/gone"), "")],
)
def test_sets_that_cannot_be_asked(shop: Shop, names: tuple[str, ...], why: str) -> None:
    shop.push("1.0")
    dock.repository("shop/gone")
    with pytest.raises(Malformed if why else NotFound, match=why or "no tag 1.0"):
        shop.ask("1.0", *names)
    # What a member of one cannot be, and that nothing is left of the refused set.
    api = Image.objects.get(repository_images__repository__name="shop/api")
    single = services.request_promotion(
        Repository.objects.get(name="shop/api"), api.digest, shop.environment, actor=shop.asker, reason="alone"
    )
    with pytest.raises(Conflict, match=f"{single} already requests shop/api"):
        shop.ask("1.0")
    services.withdraw(single.pk, actor=shop.asker)
    Environment.objects.filter(pk=shop.environment.pk).update(verification="manual")
    shop.environment.refresh_from_db()
    with pytest.raises(Conflict, match="one by one"):
        shop.ask("1.0")
    assert not ReleaseSet.objects.exists()


def test_set_follows_its_members_and_names_the_one_that_regressed(shop: Shop) -> None:
    made = shop.ready("1.0")
    member = made.members.get(repository__name="shop/web")
    threads.comment(member.pk, actor=shop.approver, text="wait for the schema", is_blocking=True)
    assert states(made)[0] == "open"
    event = AuditEvent.objects.filter(action="release_set.regressed").get()
    assert event.reason.startswith(f"{member} (shop/web): Threads resolved")
    threads.resolve(member.pk, member.comments.get().pk, actor=shop.approver)
    assert states(made) == ("ready", {"ready"})
    release_sets.withdraw_vote(made.pk, actor=shop.approver)
    assert states(made) == ("open", {"open"})
    release_sets.object_to(made.pk, actor=shop.approver, reason="not on a Friday")
    owner = dock.user("olga", "owner", of=shop.environment.team)
    release_sets.overrule(made.pk, "kim", actor=owner, reason="it is Monday")
    release_sets.approve(made.pk, actor=owner)
    assert states(made) == ("ready", {"ready"})
    with pytest.raises(Malformed, match="Enter a reason"):
        release_sets.reject(made.pk, actor=owner, reason=" ")
    release_sets.reject(made.pk, actor=owner, reason="superseded by events")
    assert states(made) == ("rejected", {"rejected"})
    with pytest.raises(IllegalTransition, match="already rejected"):
        release_sets.withdraw(made.pk, actor=shop.asker)
    assert actions(made) == [
        "requested", "approved", "ready", "regressed", "ready", "vote_withdrawn", "regressed", "objected",
        "objection_overruled", "approved", "ready", "rejected",
    ]  # fmt: skip
    other = shop.ask("1.0")
    ReleaseSet.objects.filter(pk=other.pk).update(approve_by=clock.now() - timedelta(seconds=1))
    release_sets.tend()
    assert states(other) == ("expired", {"expired"})
    third = shop.ask("1.0")
    moment = clock.now()
    ReleaseSet.objects.filter(pk=third.pk).update(
        created_at=moment - timedelta(days=1), approve_by=moment + timedelta(hours=1)
    )
    release_sets.tend()
    release_sets.tend()
    assert actions(third) == ["requested", "reminded"]
    release_sets.withdraw(third.pk, actor=shop.asker)
    assert states(third) == ("withdrawn", {"withdrawn"})


def test_run_is_refused_as_a_whole_when_one_member_does_not_meet_its_requirements(shop: Shop) -> None:
    made = shop.ready("1.0")
    quarantine(made.members.get(repository__name="shop/web").image.digest, actor=_owner(shop), reason="stolen keys")
    with pytest.raises(PolicyBlocked) as refused:
        release_sets.execute(made.pk, actor=shop.runner)
    assert ["shop/web: Not quarantined" in why for why in refused.value.details["reasons"]] == [True]
    assert not Job.objects.filter(kind="release").exists()
    services.judge_open()
    assert states(made) == ("open", {"open", "ready"})
    assert automation.run_automatically() == 0


def _owner(shop: Shop) -> User:
    """Return an owner of the team who may break glass."""
    owner, team = dock.user("olga", "owner", of=shop.environment.team), shop.environment.team
    role = Role.objects.create(slug="firefighter", name="Firefighter", verbs=["promotion.breakglass", "image.view"])
    RoleGrant.objects.create(user=owner, role=role, team=team, repository_pattern="*")
    return owner


def first_release(shop: Shop) -> list[Image]:
    """Run 1.0, so that the targets hold something to go back to."""
    made = shop.ready("1.0")
    shop.run(made)
    assert states(made)[0] == "succeeded"
    return images_in(shop)


def breaks(monkeypatch: pytest.MonkeyPatch, registry: InMemoryRegistry, name: str, error: Exception) -> list[str]:
    """Let the registry fail when the tag `current` of one target is set to something new."""
    put, seen = registry.put_manifest, []

    def fail(repository: str, reference: str, content: bytes, media_type: str) -> Any:
        if (repository, reference) == (f"dev/{name}", "current") and not seen:
            seen.append(reference)
            raise error
        return put(repository, reference, content, media_type)

    monkeypatch.setattr(registry, "put_manifest", fail)
    return seen


@pytest.mark.parametrize("is_first", [False, True])
def test_definitive_failure_of_the_second_member_puts_all_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    before = [None] * 3 if is_first else first_release(shop)
    made = shop.ready("2.0")
    seen = breaks(monkeypatch, shop.registry, "shop/web", RegistryRefused("The registry has no room."))
    job = shop.run(made)
    assert (seen, job.state) == (["current"], "succeeded")
    assert states(made) == ("failed", {"failed"})
    assert images_in(shop) == before
    assert shop.held("2.0", "current") == [[None, image.digest if image else None] for image in before]
    targets = Tag.objects.filter(repository__name__startswith="dev/", image__isnull=False)
    assert {row.image_id for row in targets} == {image.pk for image in before if image}
    assert made.failure == "The registry has no room."
    assert actions(made)[-2:] == ["reverting", "failed"]
    assert [row.topic for row in Notice.objects.filter(thread=f"releaseset-{made.pk}")].count("promotion.failed") == 1
    again = shop.ask("2.0")  # requested again, it works: nothing of the failed one is in the way
    release_sets.approve(again.pk, actor=shop.approver)
    shop.run(again)
    assert states(again) == ("succeeded", {"succeeded"})


def test_former_image_that_cannot_be_recorded_again_ends_the_putting_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first_release(shop)
    made = shop.ready("2.0")
    breaks(monkeypatch, shop.registry, "shop/web", RegistryRefused("The registry has no room."))
    store, errors = releasing.ingest_manifest, [disk_full(), LimitExceeded("The manifest is too large.")]

    def fail(registry_id: int, repository: str, *more: Any, **named: Any) -> Any:
        if repository == "dev/shop/api" and errors:
            raise errors.pop(0)
        return store(registry_id, repository, *more, **named)

    monkeypatch.setattr(releasing, "ingest_manifest", fail)
    assert (shop.run(made).state, states(made)[0]) == ("waiting", "reverting")  # a full disk passes
    assert attempt(made).state == "succeeded"
    assert (*states(made), errors) == ("failed", {"failed"}, [])
    recorded = (
        "dev/shop/api:current was put back in the registry, but could not be recorded: The manifest is too large."
    )
    assert made.failure == f"The registry has no room. {recorded}"
    assert shop.held("2.0", "current") == [[None, held.digest if held else ""] for held in before]


def test_technical_failure_is_completed_by_the_next_attempt_or_put_back_when_none_is_left(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first_release(shop)
    made = shop.ready("2.0")
    shop.registry.broken = {"dev/shop/web"}
    job = shop.run(made)
    assert (job.state, job.error_code) == ("waiting", "registry_unavailable")
    assert states(made)[0] == "executing"
    shop.registry.broken = set()
    breaks(monkeypatch, shop.registry, "shop/web", _unavailable())
    assert attempt(made).state == "waiting"  # died between the tags of two members
    assert [row[1] for row in shop.held("2.0", "current")] != [image.digest for image in before if image]
    Job.objects.filter(pk=job.pk).update(attempts=job.max_attempts)
    attempt(made)  # no attempt is left: another job puts back
    assert states(made) == ("reverting", {"verifying"})
    with pytest.raises(Conflict, match="being put back"):
        release_sets.withdraw(made.pk, actor=shop.asker)
    shop.registry.is_down = True
    attempt(made)
    assert states(made)[0] == "reverting"  # not before it is put back
    shop.registry.is_down = False
    last = attempt(made)
    assert (last.state, last.actor.kind) == ("succeeded", "system")
    assert states(made) == ("ready", {"ready"})
    assert shop.held("2.0", "current") == [[None, image.digest if image else None] for image in before]
    assert images_in(shop) == before
    assert (made.former, made.attempts) == ({}, 1)
    shop.run(made)  # the votes still count
    assert states(made) == ("succeeded", {"succeeded"})
    assert actions(made)[-4:] == ["reverting", "attempt_failed", "executing", "succeeded"]


def test_job_of_an_earlier_run_changes_nothing_in_the_next(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [image.digest if image else None for image in first_release(shop)]
    made = shop.ready("2.0")
    breaks(monkeypatch, shop.registry, "shop/web", QuotaExceeded("The quota is used up."))
    first = shop.run(made)
    assert states(made) == ("ready", {"ready"})
    late = {"state": "waiting", "not_before": None, "finished_at": None}  # its worker died before it could report
    release_sets.execute(made.pk, actor=shop.runner)
    Job.objects.filter(pk=first.pk).update(**late, attempts=first.max_attempts)
    running.run(first.pk)
    assert states(made) == ("executing", {"executing"})
    breaks(monkeypatch, shop.registry, "shop/web", _unavailable())
    second = attempt(made)
    Job.objects.filter(pk=second.pk).update(attempts=second.max_attempts)
    attempt(made)
    Job.objects.filter(pk=first.pk).update(**late, attempts=1)
    running.run(first.pk)
    assert (states(made)[0], sorted(made.former)) == ("reverting", sorted(str(row.pk) for row in made.members.all()))
    attempt(made)  # a job of the run itself puts back
    assert shop.held("2.0", "current") == [[None, digest] for digest in before]
    assert states(made) == ("ready", {"ready"})


def test_signing_key_that_an_operator_must_fix_makes_the_set_ready_again(shop: Shop, settings: Any) -> None:
    made = shop.ready("1.0")
    admin = User.objects.create_superuser("admin", password="dock-side-pass")
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_RELEASE": private_pem(new_key())}
    signing.register_key("release", "env:", actor=admin)
    values, settings.SIGNING_KEY_VALUES = settings.SIGNING_KEY_VALUES, {}
    shop.run(made)
    assert states(made) == ("ready", {"ready"})
    assert "SIGNING_KEY_RELEASE is not set" in made.failure
    settings.SIGNING_KEY_VALUES = values
    shop.run(made)
    assert states(made) == ("succeeded", {"succeeded"})


def _unavailable() -> Exception:
    from lifecycle.core.errors import RegistryUnavailable

    return RegistryUnavailable("The registry died here.")


def test_worker_that_lost_the_right_or_finds_a_quarantine_puts_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first_release(shop)
    made = shop.ready("2.0")
    release_sets.execute(made.pk, actor=shop.runner)
    RoleGrant.objects.filter(user=shop.runner).delete()
    attempt(made)
    assert (*states(made), shop.held("2.0")) == ("failed", {"failed"}, [[None]] * 3)
    shop.runner = dock.user("lou", "deployer", of=shop.environment.team)
    again = shop.ask("2.0")
    release_sets.approve(again.pk, actor=shop.approver)
    release_sets.execute(again.pk, actor=shop.runner)
    quarantine(again.members.all()[1].image.digest, actor=_owner(shop), reason="stolen keys")
    attempt(again)
    assert (*states(again), "stolen keys" in again.failure) == ("failed", {"failed"}, True)
    assert images_in(shop) == before


@pytest.mark.parametrize("when", ["the tags of the last member move", "all rows are stored"])
def test_member_quarantined_after_its_own_tags_moved_puts_all_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    before = first_release(shop)
    made = shop.ready("2.0")
    image, owner = made.members.get(repository__name="shop/api").image, _owner(shop)
    put, store, signed = shop.registry.put_manifest, releasing.ingest_manifest, []

    def moved(repository: str, reference: str, content: bytes, media_type: str) -> Any:
        if (repository, reference) == ("dev/shop/chart", "current") and not Quarantine.objects.exists():
            quarantine(image.digest, actor=owner, reason="stolen keys")
        return put(repository, reference, content, media_type)

    def stored(registry_id: int, repository: str, digest: str, *, tag: str, **more: Any) -> Any:
        row = store(registry_id, repository, digest, tag=tag, **more)
        if (repository, tag) == ("dev/shop/chart", "current") and not Quarantine.objects.exists():
            quarantine(image.digest, actor=owner, reason="stolen keys")
        return row

    if when == "all rows are stored":
        monkeypatch.setattr(releasing, "ingest_manifest", stored)
    else:
        monkeypatch.setattr(shop.registry, "put_manifest", moved)
        monkeypatch.setattr(signing, "active_keys", lambda: signed.append("asked") or [])
    shop.run(made)
    assert (*states(made), signed) == ("failed", {"failed"}, [])
    assert made.failure == "shop/api: The image is quarantined (Q-" + f"{Quarantine.objects.get().pk}): stolen keys."
    assert shop.held("2.0", "current") == [[None, held.digest if held else ""] for held in before]
    assert images_in(shop) == before


def test_rollback_takes_the_place_of_one_member_and_the_others_are_put_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_release(shop)
    second = shop.ready("2.0")
    shop.run(second)
    now = images_in(shop)
    third = shop.ready("3.0")
    breaks(monkeypatch, shop.registry, "shop/chart", _unavailable())
    assert shop.run(third).state == "waiting"  # api and web have 3.0 now
    api = Repository.objects.get(name="shop/api")
    back = request_rollback(api, shop.environment, actor=shop.asker, reason="it is slow")
    services.approve(back.pk, actor=shop.approver)
    services.execute(back.pk, actor=shop.runner)
    assert states(third) == ("reverting", {"failed", "verifying"})
    attempt(third)
    assert states(third) == ("failed", {"failed"})
    assert f"{back}, a rollback, took its place" in third.failure
    held = shop.held("current")
    assert [held[1], held[2]] == [[now[1].digest], [now[2].digest]]  # type: ignore[union-attr]  # both are there
    running.run(Job.objects.get(kind="promote", subject_id=back.pk).pk)
    assert shop.held("current")[0] == [back.image.digest]
    # Break-glass replaces a whole waiting set.
    waiting = shop.ask("3.0")
    owner = _owner(shop)
    break_glass(
        api, waiting.members.get(repository=api).image.digest, shop.environment, actor=owner, reason="fire",
        incident="INC-1", password="dock-side-pass",
    )  # fmt: skip
    assert states(waiting) == ("superseded", {"superseded"})


def test_set_has_the_place_of_its_last_member_in_the_queue(shop: Shop) -> None:
    Environment.objects.filter(pk=shop.environment.pk).update(auto_execute=True, queue_policy="queue")
    shop.environment.refresh_from_db()
    made, (api, _, _) = shop.ready("1.0"), shop.push("2.0")
    member = made.members.get(repository__name="shop/api")
    single = services.request_promotion(
        member.repository, api.digest, shop.environment, actor=shop.asker, reason="alone"
    )
    services.approve(single.pk, actor=shop.approver)
    single.refresh_from_db()
    assert why_not_automatic(single) == f"{member} was ready before and runs first."
    PromotionRequest.objects.filter(pk=member.pk).update(decided_at=clock.now() - timedelta(hours=1))
    ReleaseSet.objects.filter(pk=made.pk).update(decided_at=clock.now())
    made.refresh_from_db()
    assert why_not_automatic(single) == ""
    assert why_set_waits(made) == f"shop/api: {single} was ready before and runs first."


def test_environment_that_runs_by_itself_runs_a_whole_set(shop: Shop) -> None:
    Environment.objects.filter(pk=shop.environment.pk).update(auto_execute=True)
    made = shop.ready("1.0")
    assert automation.run_automatically() == 1
    assert states(made) == ("executing", {"executing"})
    assert Job.objects.get(kind="release").actor == system_user()
    assert not Job.objects.filter(kind="promote").exists()


@pytest.mark.django_db(transaction=True)
def test_many_clicks_run_a_set_once_and_votes_do_not_deadlock(shop: Shop) -> None:
    made = shop.ready("1.0")
    clicks: list[Callable[[], Any]] = [lambda: release_sets.execute(made.pk, actor=shop.runner)] * 20
    race = Race(*clicks)
    assert (len(race.done), {error.http_status for error in race.refused}) == (1, {409})
    assert Job.objects.filter(kind="release").count() == 1
    assert set(Slot.objects.filter(environment=shop.environment).values_list("fence", flat=True)) == {1}
    attempt(made)
    shop.push("2.0")
    second = shop.ask("2.0")
    second_approver = dock.user("ned", "approver", of=shop.environment.team)
    race = Race(
        lambda: release_sets.approve(second.pk, actor=shop.approver),
        lambda: release_sets.approve(second.pk, actor=second_approver),
        services.judge_open,
        release_sets.tend,
        lambda: threads.comment(second.members.all()[2].pk, actor=shop.asker, text="hm", is_blocking=True),
    )
    assert race.refused == []
    assert states(second)[0] == "open"
    assert {row.votes.count() for row in second.members.all()} == {2}
    # A member becomes ready, and the set with it, while a vote holds another member and waits for this one.
    release_sets.withdraw(second.pk, actor=shop.asker)
    third = shop.ready("2.0")
    last = third.members.order_by("pk")[2].pk
    PromotionRequest.objects.filter(pk=last).update(state="open", decided_at=None)
    ReleaseSet.objects.filter(pk=third.pk).update(state="open", decided_at=None)
    is_locked = Event()

    def judge() -> None:
        with transaction.atomic():
            row = PromotionRequest.objects.select_for_update().get(pk=last)
            is_locked.set()
            _until_somebody_waits()
            judge_locked(row)

    def vote() -> None:
        assert is_locked.wait(20)
        release_sets.approve(third.pk, actor=second_approver)

    race = Race(judge, vote)
    assert (len(race.done), race.refused) == (2, [])
    assert states(third) == ("ready", {"ready"})


def _until_somebody_waits() -> None:
    """Return when another transaction waits for a lock."""
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.05)
    raise AssertionError("nobody waits")
