"""From rows to a plan and back: what protects an image, what a confirmation checks, and what the job does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lifecycle.admission.models import AdmissionDebt
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, RegistryRefused, StaleVersion
from lifecycle.environments.models import Occupancy, Slot
from lifecycle.inventory.models import Reporter, RunningImage
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine.models import Quarantine
from lifecycle.registry.models import RepositoryImage, Tag
from lifecycle.retention import services
from lifecycle.retention.models import RetentionEntry, RetentionPlan
from tests.factories import dock as rows
from tests.factories import running as runs
from tests.factories.pentests import pentest_finding
from tests.factories.people import person

pytestmark = pytest.mark.django_db


class Registry:
    """Notes what is deleted; refuses from the call `refuses` on."""

    def __init__(self, refuses: int = 1000):
        self.calls, self.refuses = [], refuses

    def delete_manifest(self, repository, digest):
        if len(self.calls) >= self.refuses:
            raise RegistryRefused("The registry does not delete.")
        self.calls.append((repository, digest.text))
        return True


@pytest.fixture
def registry(monkeypatch):
    made = Registry()
    monkeypatch.setattr("lifecycle.retention.running.client_for", lambda _: made)
    return made


@pytest.fixture
def old(dock):
    """An image without a tag in shop/api, whose rules delete such images at once."""
    services.save_rules(actor=dock.owner, repository=dock.repository.pk, revision=0, keep_last=1, untagged_days=0)
    image = rows.image("old")
    RepositoryImage.objects.create(repository=dock.repository, image=image)
    return image


def plan_of(dock, **more) -> RetentionPlan:
    return services.make_plan(actor=dock.owner, repository=dock.repository.pk, **more)


def codes(dock, image, **more) -> tuple[str, list[str]]:
    entry = RetentionEntry.objects.get(plan=plan_of(dock, **more), image=image, repository=dock.repository)
    return entry.state, [code for code, _ in entry.reasons]


def test_rules_are_saved_by_who_may_delete_and_only_over_the_version_they_saw(dock):
    saved = services.save_rules(actor=dock.owner, team="shop", revision=0, keep_last=3, tags=["v*"])
    assert (saved.revision, saved.keep_last, saved.tags) == (1, 3, ["v*"])
    assert AuditEvent.objects.get(action="retention.rules_changed").details["after"]["keep_last"] == "3"
    for error, actor, values in (
        (StaleVersion, dock.owner, {"revision": 0}),
        (Malformed, dock.owner, {"revision": 1, "keep_last": 0}),
        (Malformed, dock.owner, {"revision": 1, "tags": ["not a tag"]}),
        (NotPermitted, dock.requester, {"revision": 1}),
        (NotFound, dock.outsider, {"revision": 1}),
    ):
        with pytest.raises(error):
            services.save_rules(actor=actor, team="shop", **values)
    again = services.save_rules(actor=dock.owner, team="shop", revision=1, keep_last=3, tags=["v*"])
    assert (again.revision, AuditEvent.objects.filter(action="retention.rules_changed").count()) == (1, 1)


def test_rules_of_a_repository_replace_those_of_its_team(dock, old):
    services.save_rules(actor=dock.owner, team="shop", revision=0, untagged_days=100)
    assert codes(dock, old) == ("delete", ["untagged"])
    services.RetentionRules.objects.filter(repository=dock.repository).delete()
    assert codes(dock, old) == ("keep", ["untagged_days"])


def slot(dock, image=None):
    return Slot.objects.create(repository=dock.repository, environment=dock.dev, image=image)


def ran(dock, image, *, until=None, silent=False, **more):
    cluster = runs.cluster(dock.team)
    seen_at = clock.now() - timedelta(hours=1 if silent else 0)
    Reporter.objects.create(cluster=cluster, name="a", boot="b", sequence=1, first_at=seen_at, seen_at=seen_at)
    RunningImage.objects.create(
        cluster=cluster, namespace="shop", reference="x", digest=image.digest, containers=1,
        since=clock.now() - timedelta(days=99), until=until, **more,
    )  # fmt: skip


def debt(dock, image):
    AdmissionDebt.objects.create(
        cluster=runs.cluster(dock.team), namespace="shop", digests=[image.digest], reason="x",
        fingerprint="f", decision_key="k", opened_at=clock.now(), last_at=clock.now(), due_at=clock.now(),
    )  # fmt: skip


def days_ago(days):
    return clock.now() - timedelta(days=days)


PROTECTIONS = {
    "promoted": slot,
    "requested": lambda dock, image: PromotionRequest.objects.create(
        image=image, repository=dock.repository, environment=dock.dev, tag="1", reason="x", requested_by=dock.requester,
        approve_by=clock.now(),
    ),
    "rollback": lambda dock, image: Occupancy.objects.create(
        slot=slot(dock), image=image, started_at=days_ago(900), ended_at=days_ago(899)
    ),
    "running": ran,
    "seen": lambda dock, image: ran(dock, image, until=days_ago(29)),
    "silent_cluster": lambda dock, image: ran(dock, image, until=days_ago(60), silent=True),
    "base_of_kept": lambda dock, image: rows.derive(image, dock.image),
    "quarantined": lambda dock, image: Quarantine.objects.create(
        image=image, team=dock.team, reason="bad", created_by=dock.owner
    ),
    "evidence": lambda dock, image: pentest_finding(dock.repository, image, by=dock.owner),
}  # fmt: skip


@pytest.mark.parametrize("code", PROTECTIONS)
def test_each_protection_keeps_an_image_that_would_go(code, dock, old):
    assert codes(dock, old) == ("delete", ["untagged"])
    PROTECTIONS[code](dock, old)
    assert codes(dock, old) == ("keep", [code])


def test_open_review_of_break_glass_is_evidence(dock, old):
    debt(dock, old)
    assert codes(dock, old) == ("keep", ["evidence"])


def test_what_ran_long_ago_and_the_eleventh_image_are_not_kept(dock, old):
    ran(dock, old, until=days_ago(31))
    place = slot(dock)
    Occupancy.objects.create(slot=place, image=old, started_at=days_ago(900), ended_at=days_ago(899))
    for number in range(10):
        newer = rows.image(f"newer {number}", layers=0)
        assert codes(dock, old) == ("keep", ["rollback"])
        Occupancy.objects.create(slot=place, image=newer, started_at=days_ago(800), ended_at=days_ago(799 - number))
    assert codes(dock, old) == ("delete", ["untagged"])


def test_index_stays_while_one_of_its_platforms_runs_and_keeps_the_others(dock, old):
    other = rows.image("other platform")
    index = rows.index("list", old, other)
    for image in (index, other):
        RepositoryImage.objects.create(repository=dock.repository, image=image)
    assert [codes(dock, image)[0] for image in (index, old, other)] == ["delete"] * 3
    ran(dock, old)
    assert codes(dock, index) == ("keep", ["running"])
    assert codes(dock, other) == ("keep", ["child_of_kept"])


def test_bases_of_images_in_other_repositories_stay(dock, old):
    elsewhere = rows.repository("shop/web", dock.team)
    derived = rows.image("derived")
    rows.derive(old, derived)
    assert codes(dock, old)[0] == "delete"  # nobody has the derived image any more
    rows.push(elsewhere, derived, "1.0")
    assert codes(dock, old) == ("keep", ["base_of_kept"])


def test_protected_tag_keeps_its_image(dock, old):
    rows.push(dock.repository, old, "stable")
    Tag.objects.filter(name="stable").update(updated_at=days_ago(9))
    RepositoryImage.objects.filter(image=old).update(added_at=days_ago(9))
    assert codes(dock, old)[0] == "delete"
    dock.repository.protected_tags = ["st*"]
    dock.repository.save()
    assert codes(dock, old) == ("keep", ["protected_tag"])


def test_signature_by_tag_goes_and_stays_with_its_image(dock, old):
    signature = rows.image("signature")
    rows.push(dock.repository, signature, old.digest.replace(":", "-") + ".sig")
    assert codes(dock, signature) == ("delete", ["subject_deleted"])
    slot(dock, old)
    assert codes(dock, signature) == ("keep", ["referrer_of_kept"])


def test_nothing_is_deleted_in_targets_of_a_cluster_that_never_reported(dock, old):
    dock.repository.environment, dock.repository.source = dock.dev, rows.repository("shop/source", dock.team)
    dock.repository.save()
    assert codes(dock, old) == ("delete", ["untagged"])
    cluster = runs.cluster(dock.team)
    assert codes(dock, old) == ("keep", ["unknown_runtime"])
    assert not AuditEvent.objects.filter(action="retention.planned").exists()
    assert codes(dock, old, accept_unknown_runtime=True) == ("delete", ["untagged"])
    assert AuditEvent.objects.get(action="retention.planned").details["accept_unknown_runtime"] is True
    now = clock.now()
    Reporter.objects.create(cluster=cluster, name="a", boot="b", sequence=1, first_at=now, seen_at=now)
    assert codes(dock, old) == ("delete", ["untagged"])


def test_plan_counts_shared_layers_once_and_frees_only_what_nobody_else_has(dock, old):
    twin = rows.image("twin", under=old)  # has all layers of `old`
    RepositoryImage.objects.create(repository=dock.repository, image=twin)
    plan = plan_of(dock)
    layers = sum(layer.size_bytes for layer in old.layers.all())
    assert (plan.delete_count, plan.keep_count) == (2, 1)
    assert (plan.deleted_bytes, plan.freed_bytes) == (layers, layers)
    rows.push(rows.repository("shop/web", dock.team), twin, "1.0")
    assert plan_of(dock).freed_bytes == 0


def test_confirmed_plan_is_deleted_by_a_job(dock, old, registry):
    plan = plan_of(dock)
    services.confirm(plan.pk, actor=dock.owner)
    assert RepositoryImage.objects.get(image=old).removed_at is None
    running.run(Job.objects.get(kind="retention").pk)
    plan.refresh_from_db()
    assert (plan.state, registry.calls) == ("done", [("shop/api", old.digest)])
    assert RepositoryImage.objects.get(image=old).removed_at is not None
    assert RepositoryImage.objects.get(image=dock.image).removed_at is None
    assert AuditEvent.objects.get(action="retention.finished").details == {"plan": str(plan), "deleted": 1, "kept": 0}
    with pytest.raises(Conflict):
        services.confirm(plan.pk, actor=dock.owner)


def test_plan_that_is_old_or_would_delete_something_else_is_planned_anew(dock, old):
    stale = plan_of(dock)
    RetentionPlan.objects.filter(pk=stale.pk).update(created_at=clock.now() - timedelta(hours=25))
    with pytest.raises(Conflict, match="24 hours") as refused:
        services.confirm(stale.pk, actor=dock.owner)
    fresh = RetentionPlan.objects.get(pk=refused.value.details["plan"])
    stale.refresh_from_db()
    assert (stale.state, stale.replaced_by, fresh.state) == ("replaced", fresh, "planned")
    slot(dock, old)
    with pytest.raises(Conflict, match="changed"):
        services.confirm(fresh.pk, actor=dock.owner)
    assert not Job.objects.filter(kind="retention").exists()


def test_only_who_may_delete_confirms_and_others_see_nothing_or_why_not(dock, old):
    plan = plan_of(dock)
    for actor, error in ((dock.outsider, NotFound), (dock.requester, NotPermitted)):
        with pytest.raises(error):
            services.confirm(plan.pk, actor=actor)
    assert services.confirm(plan.pk, actor=person("keeper", dock.team, "maintainer")).state == "deleting"


def test_image_that_is_needed_after_the_confirmation_is_kept(dock, old, registry):
    plan = plan_of(dock)
    services.confirm(plan.pk, actor=dock.owner)
    slot(dock, old)
    running.run(Job.objects.get(kind="retention").pk)
    assert registry.calls == []
    entry = plan.entries.get(image=old)
    assert (entry.state, entry.reasons[0][0]) == ("kept", "promoted")


def test_job_that_stops_halfway_goes_on_with_the_rest(dock, old, registry, monkeypatch):
    monkeypatch.setattr("lifecycle.retention.running.BATCH", 1)
    for number in range(2):
        RepositoryImage.objects.create(repository=dock.repository, image=rows.image(f"more {number}"))
    plan = plan_of(dock)
    services.confirm(plan.pk, actor=dock.owner)
    job = Job.objects.get(kind="retention")
    record = registry.delete_manifest

    def killed(repository, digest):
        record(repository, digest)
        if len(registry.calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(registry, "delete_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        running.run(job.pk)
    monkeypatch.setattr(registry, "delete_manifest", record)
    Job.objects.filter(pk=job.pk).update(state="waiting", lease_until=None)
    running.run(job.pk)
    plan.refresh_from_db()
    assert plan.state == "done"
    assert set(plan.entries.values_list("state", flat=True)) == {"keep", "deleted"}
    assert len(set(registry.calls)) == 3


def test_refusing_registry_fails_the_plan_and_keeps_the_rest(dock, old, registry):
    registry.refuses = 0
    plan = plan_of(dock)
    services.confirm(plan.pk, actor=dock.owner)
    running.run(Job.objects.get(kind="retention").pk)
    plan.refresh_from_db()
    assert (plan.state, plan.entries.get(image=old).state) == ("failed", "delete")
    assert "does not delete" in plan.failure
    assert RepositoryImage.objects.get(image=old).removed_at is None


def test_restore_takes_only_what_this_plan_deleted_in_seven_days(dock, old, registry):
    plan = plan_of(dock)
    with pytest.raises(Conflict):
        services.restore(plan.pk, actor=dock.owner)
    services.confirm(plan.pk, actor=dock.owner)
    running.run(Job.objects.get(kind="retention").pk)
    with pytest.raises(Malformed):
        services.restore(plan.pk, actor=dock.owner, digests=[dock.image.digest])
    with pytest.raises(NotPermitted):
        services.restore(plan.pk, actor=dock.requester)
    services.restore(plan.pk, actor=dock.owner, digests=[old.digest])
    assert Job.objects.get(kind="restore").payload == {"digests": [old.digest]}
    plan.entries.update(deleted_at=clock.now() - timedelta(days=8))
    with pytest.raises(Conflict, match="7 days"):
        services.restore(plan.pk, actor=dock.owner)
