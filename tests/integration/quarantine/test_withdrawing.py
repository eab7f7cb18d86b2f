"""Withdrawn images: who can pull them, that pushes of them are undone, and what a release puts back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import create_environment, create_team, move_repositories
from lifecycle.core.errors import Conflict, IllegalTransition
from lifecycle.ingest.managing import why_not_delete
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.notices.models import InboxItem
from lifecycle.oci.scopes import repository_scope
from lifecycle.quarantine import services
from lifecycle.quarantine.models import Withdrawal
from lifecycle.registry.models import Repository, RepositoryImage, Tag
from lifecycle.tokens.rights import allowed_actions
from tests.factories import dock as rows
from tests.factories import oci
from tests.factories.people import person
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db


@pytest.fixture
def yard(dock, monkeypatch):
    """An index with two platforms and a signature in shop/api and base/copy, in a registry in memory."""
    shelf = InMemoryRegistry()
    answer_with(shelf, monkeypatch)
    rows.team("base")
    one, other = oci.image("bad"), oci.image("bad", architecture="arm64")
    top, note = oci.index(one, other), oci.artifact(oci.index(one, other), "signature")
    made = SimpleNamespace(
        shelf=shelf, one=one, other=other, top=top, note=note,
        guard=person("guard", dock.team, "security"), second=person("second-guard", dock.team, "security"),
    )  # fmt: skip
    for name, tags in (("shop/api", ("1.0", "latest")), ("base/copy", ("copy",))):
        push(made, name, *tags)
    return made


def push(yard, name, *tags):
    """Push the index with its platforms and signature, and ingest what a registry would notify."""
    for item in (yard.one, yard.other):
        oci.push(yard.shelf, name, item)
        ingest(name, item.manifest.digest)
    for tag in tags:
        oci.push_manifest(yard.shelf, name, yard.top, tag)
        ingest(name, yard.top.digest, tag)
    oci.push(yard.shelf, name, yard.note)
    oci.attach(yard.shelf, name, yard.note.manifest)


def ingest(name, digest, tag=None):
    ingest_manifest(rows.registry().pk, name, digest.text, tag=tag)


def run_jobs():
    """Run the jobs of withdrawals until none waits."""
    for _ in range(10):
        jobs = list(Job.objects.filter(kind="withdraw", state=Job.State.WAITING).order_by("pk"))
        for job in jobs:
            Job.objects.filter(pk=job.pk).update(not_before=None)
            running.run(job.pk)
        if not jobs:
            return
    raise AssertionError("Jobs go on for ever.")


def withdraw(yard, digest=None):
    row = services.quarantine((digest or yard.top.digest).text, actor=yard.guard, reason="backdoor", withdraw=True)
    run_jobs()
    return row


def lift(yard, row):
    services.request_release(row.pk, actor=yard.guard, reason="false alarm")
    services.release(row.pk, actor=yard.second)
    run_jobs()


def served(yard, name, *references):
    return [yard.shelf.resolve(name, reference) is not None for reference in references]


def parts(yard):
    return [yard.top.digest.text, yard.one.manifest.digest.text, yard.other.manifest.digest.text]


def test_withdrawn_index_leaves_all_repositories_with_its_platforms_and_comes_back(dock, yard):
    row = withdraw(yard)
    for name, tag in (("shop/api", "1.0"), ("base/copy", "copy")):
        assert served(yard, name, tag, *parts(yard)) == [False] * 4
        assert served(yard, f"quarantine/{name}", *parts(yard)) == [True] * 3
        assert [entry.digest for entry in yard.shelf.referrers(f"quarantine/{name}", yard.top.digest)] == [
            yard.note.manifest.digest
        ]
    assert set(Withdrawal.objects.values_list("state", flat=True)) == {"removed"}
    assert AuditEvent.objects.filter(action="quarantine.copy_removed").count() == 6
    newer = oci.image("newer")
    oci.push(yard.shelf, "shop/api", newer, "latest")
    ingest("shop/api", newer.manifest.digest, "latest")
    lift(yard, row)
    assert served(yard, "shop/api", "1.0", *parts(yard)) == [True] * 4
    assert served(yard, "base/copy", "copy", *parts(yard)) == [True] * 4
    assert yard.shelf.resolve("shop/api", "latest").digest == newer.manifest.digest
    assert dict(Tag.objects.filter(repository=dock.repository).values_list("name", "image__digest")) == {
        "1.0": yard.top.digest.text,
        "latest": newer.manifest.digest.text,
    }
    assert served(yard, "quarantine/shop/api", *parts(yard)) == [False] * 3
    assert not RepositoryImage.objects.filter(repository__name__startswith="quarantine/", removed_at=None).exists()
    assert set(Withdrawal.objects.values_list("state", flat=True)) == {"restored"}


def test_without_withdraw_everything_stays(yard):
    row = services.quarantine(yard.top.digest.text, actor=yard.guard, reason="backdoor")
    assert not Job.objects.filter(kind="withdraw").exists()
    push(yard, "shop/api", "again")
    lift(yard, row)
    assert served(yard, "shop/api", "1.0", "again", *parts(yard)) == [True] * 5
    assert not Withdrawal.objects.exists()


def test_a_live_quarantine_can_stop_pulls_later(yard):
    row = services.quarantine(yard.top.digest.text, actor=yard.guard, reason="backdoor")
    services.withdraw(row.pk, actor=yard.second, reason="it is pulled by digest")
    run_jobs()
    assert served(yard, "shop/api", "1.0", *parts(yard)) == [False] * 4
    event = AuditEvent.objects.get(action="quarantine.withdrawn")
    assert (event.actor, event.reason) == (yard.second, "it is pulled by digest")
    row.refresh_from_db()
    with pytest.raises(IllegalTransition, match="stops pulls already"):
        services.withdraw(row.pk, actor=yard.second, reason="again")
    lift(yard, row)
    assert served(yard, "shop/api", "1.0", *parts(yard)) == [True] * 4
    row.refresh_from_db()
    with pytest.raises(IllegalTransition, match="already released"):
        services.withdraw(row.pk, actor=yard.second, reason="again")


def test_index_around_a_withdrawn_platform_goes_and_its_other_platform_stays(yard):
    row = withdraw(yard, yard.one.manifest.digest)
    assert served(yard, "shop/api", *parts(yard)) == [False, False, True]
    lift(yard, row)
    assert served(yard, "shop/api", "1.0", *parts(yard)) == [True] * 4
    assert served(yard, "quarantine/shop/api", *parts(yard)) == [False] * 3


def test_push_of_a_withdrawn_image_is_undone_and_told(dock, yard):
    row = withdraw(yard)
    push(yard, "shop/api", "again")
    push(yard, "shop/other", "1.0")
    run_jobs()
    assert served(yard, "shop/api", "again", *parts(yard)) == [False] * 4
    assert served(yard, "shop/other", "1.0", *parts(yard)) == [False] * 4
    undone = AuditEvent.objects.filter(action="quarantine.push_undone", digest=yard.top.digest.text)
    assert {(event.repository, tuple(event.details["tags"])) for event in undone} == {
        ("shop/api", ("again",)),
        ("shop/other", ("1.0",)),
    }
    told = InboxItem.objects.filter(notice__topic="quarantine.push_undone")
    assert set(told.values_list("person__username", flat=True)) == {"guard", "second-guard", "owner"}
    lift(yard, row)
    assert served(yard, "shop/api", "1.0", "latest", "again") == [True, True, False]
    assert served(yard, "shop/other", "1.0", *parts(yard)) == [False] * 4  # nobody had it there


@pytest.mark.parametrize("step", [0, 1, 3, 6, 8, 9, 11])
def test_job_killed_at_any_step_continues(yard, step):
    for way in ("out", "back"):
        if way == "out":
            row = services.quarantine(yard.top.digest.text, actor=yard.guard, reason="backdoor", withdraw=True)
        else:
            services.request_release(row.pk, actor=yard.guard, reason="false alarm")
            services.release(row.pk, actor=yard.second)
        yard.shelf.fail_after = yard.shelf._writes + step
        running.run(Job.objects.get(kind="withdraw", state=Job.State.WAITING).pk)
        yard.shelf.fail_after = None
        run_jobs()
        assert not Job.objects.filter(kind="withdraw").exclude(state=Job.State.SUCCEEDED).exists()
        there = way == "back"
        assert served(yard, "shop/api", "1.0", "latest", *parts(yard)) == [there] * 5
        assert served(yard, "base/copy", "copy", *parts(yard)) == [there] * 4
        assert served(yard, "quarantine/base/copy", *parts(yard)) == [not there] * 3


def test_image_that_two_quarantines_withdraw_comes_back_after_both(yard):
    first = withdraw(yard)
    second = withdraw(yard, yard.one.manifest.digest)
    lift(yard, first)
    assert served(yard, "shop/api", "1.0", *parts(yard)) == [False, False, False, True]
    lift(yard, second)
    assert served(yard, "shop/api", "1.0", "latest", *parts(yard)) == [True] * 5


def test_only_image_quarantine_pulls_and_nobody_pushes_or_deletes(dock, yard):
    withdraw(yard)
    vault = Repository.objects.get(name="quarantine/shop/api")
    scope = repository_scope(vault.name, "pull", "push", "delete")

    def allowed(user):
        return set(allowed_actions(user, [scope])[("repository", vault.name)])

    assert allowed(yard.guard) == {"pull"}
    assert allowed(dock.requester) == set()
    assert allowed(person("base-guard", rows.team("base"), "security")) == set()
    member = RepositoryImage.objects.filter(repository=vault, image__digest=yard.top.digest.text).get()
    assert "withdrawn" in str(why_not_delete(dock.owner, vault, member.image))
    assert "withdrawn" not in str(why_not_delete(dock.owner, dock.repository, member.image))


def test_vault_moves_with_its_repository(dock, yard):
    withdraw(yard)
    dock.owner.is_superuser = True
    dock.owner.save()
    base_guard = person("base-guard", rows.team("base"), "security")
    person("base-owner", rows.team("base"), "owner")
    rows.user("owner", "owner", of=rows.team("base"))
    move_repositories(dock.team.pk, actor=dock.owner, to="base", names=["shop/api"])
    scope = repository_scope("quarantine/shop/api", "pull")
    pulls = {
        user.username: allowed_actions(user, [scope])[("repository", scope.name)] for user in (yard.guard, base_guard)
    }
    assert pulls == {"guard": frozenset(), "base-guard": {"pull"}}


def test_first_part_of_vaults_is_reserved(dock):
    admin = person("admin")
    admin.is_superuser = True
    admin.save()
    with pytest.raises(Conflict, match="reserved"):
        create_team(actor=admin, slug="quarantine", name="Quarantine")
    with pytest.raises(Conflict, match="reserved"):
        create_environment(dock.team, actor=dock.owner, slug="q", name="Q", prefix="quarantine", required_approvals=0)
    rows.team("quarantine")  # from before
    with pytest.raises(Conflict, match="without withdrawing"):
        services.quarantine(dock.image.digest, actor=dock.owner, reason="bad", withdraw=True)
