"""Protected tags: only who holds image.amend moves them; anybody else's move is taken back and reported."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from accounts import tokens
from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound, NotPermitted, RegistryRefused, RegistryUnavailable
from lifecycle.ingest import services as ingest
from lifecycle.ingest.protection import protect_tags
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.rebuild.models import UpstreamWatch
from lifecycle.registry.models import Repository, Tag, TagEvent
from lifecycle.registry.services import ensure_managed_registry
from tests.factories import dock, oci
from tests.factories.deliveries import deliver, event
from tests.fakes.registry import InMemoryRegistry

pytestmark = pytest.mark.django_db

OLD, NEW = oci.image("old"), oci.image("new")


@pytest.fixture
def guarded(shelf: InMemoryRegistry) -> Repository:
    """shop/api, watched, whose tags v* are protected; v1 and latest point at OLD there."""
    shop = dock.team("shop")
    dock.user("carl", "creator", of=shop)
    mary = dock.user("mary", "maintainer", of=shop)
    for number, tag in enumerate(("v1", "latest")):
        oci.push(shelf, "shop/api", OLD, tag)
        deliver(event(number, OLD.manifest.digest.text, tag=tag, actor="carl"))
    repository = protect_tags(Repository.objects.get().pk, ["v*"], actor=mary)
    UpstreamWatch.objects.create(repository=repository, tag="v1", created_by=mary)
    Job.objects.all().delete()
    return repository


def move(shelf: InMemoryRegistry, tag: str, who: str, number: int = 7) -> None:
    oci.push(shelf, "shop/api", NEW, tag)
    deliver(event(number, NEW.manifest.digest.text, tag=tag, actor=who))


def where(shelf: InMemoryRegistry, tag: str = "v1") -> tuple[str, str]:
    """Return what the tag points at in the registry and in our rows."""
    return shelf.tags_of["shop/api"][tag], Tag.objects.get(name=tag).image.digest


def run(settle: Job) -> None:
    Job.objects.filter(pk=settle.pk).update(not_before=None)
    running.run(settle.pk)
    settle.refresh_from_db()
    assert settle.state == Job.State.SUCCEEDED, settle.last_error


BOTH_OLD = (OLD.manifest.digest.text,) * 2
BOTH_NEW = (NEW.manifest.digest.text,) * 2


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(("who", "tag"), [("mary", "v1"), ("anna", "v1"), ("carl", "latest"), ("carl", "v2")])
def test_who_may_amend_moves_a_protected_tag_and_anybody_moves_or_makes_another(
    shelf: InMemoryRegistry, who: str, tag: str
) -> None:
    move(shelf, tag, who)
    assert where(shelf, tag) == BOTH_NEW
    assert Job.objects.filter(kind="plan").exists() == (tag == "v1")
    assert not AuditEvent.objects.filter(action="tag.move_refused").exists()


@pytest.mark.usefixtures("guarded")
def test_a_move_without_the_right_is_taken_back_and_reported_once(shelf: InMemoryRegistry) -> None:
    for number in range(3):  # delivered again, before and after
        deliver(event(number + 20, NEW.manifest.digest.text, tag="v1", actor="carl"))
        move(shelf, "v1", "carl", number + 30)
        assert where(shelf) == BOTH_OLD
    carl = User.objects.get(username="carl")
    moves = TagEvent.objects.filter(tag__name="v1").order_by("pk")
    assert list(moves.values_list("old_image__digest", "new_image__digest", "via", "actor__username")) == [
        (None, OLD.manifest.digest.text, "push", "carl"),
        (OLD.manifest.digest.text, NEW.manifest.digest.text, "push", "carl"),
        (NEW.manifest.digest.text, OLD.manifest.digest.text, "protection", system_user().username),
    ]
    refused = AuditEvent.objects.get(action="tag.move_refused")
    assert (refused.actor, refused.outcome, refused.digest) == (carl, "denied", NEW.manifest.digest.text)
    assert refused.details == {"tag": "v1", "kept": OLD.manifest.digest.text}
    assert not Job.objects.filter(kind="plan").exists()
    # Its own restoration is told by the registry too, and changes nothing.
    deliver(event(50, OLD.manifest.digest.text, tag="v1", actor=system_user().username))
    assert moves.count() == 3


def test_a_crawl_waits_for_the_name_of_who_moved_it(shelf: InMemoryRegistry, guarded: Repository) -> None:
    oci.push(shelf, "shop/api", NEW, "v1")
    for _ in range(2):
        ingest.crawl(ensure_managed_registry().pk)
    assert where(shelf) == (NEW.manifest.digest.text, OLD.manifest.digest.text)
    settle = Job.objects.get(kind="crawl")
    assert {**settle.payload, "seen_at": ""} == {
        "repository": "shop/api",
        "tag": "v1",
        "digest": NEW.manifest.digest.text,
        "seen_at": "",
    }
    assert timedelta(seconds=30) < settle.not_before - clock.now() < timedelta(seconds=90)
    deliver(event(7, NEW.manifest.digest.text, tag="v1", actor="mary"))
    run(settle)
    assert where(shelf) == BOTH_NEW
    assert TagEvent.objects.latest("pk").actor == User.objects.get(username="mary")


def test_a_move_that_nobody_owns_up_to_is_taken_back(shelf: InMemoryRegistry, guarded: Repository) -> None:
    oci.push(shelf, "shop/api", NEW, "v1")
    oci.push(shelf, "shop/api", NEW, "latest")
    ingest.crawl(guarded.registry_id)
    run(Job.objects.get(kind="crawl"))
    assert (where(shelf), where(shelf, "latest")) == (BOTH_OLD, BOTH_NEW)
    assert AuditEvent.objects.get(action="tag.move_refused").actor is None


def test_only_the_move_that_had_its_time_is_taken_back(shelf: InMemoryRegistry, guarded: Repository) -> None:
    other = oci.image("other")
    oci.push(shelf, "shop/api", OLD, "v2")
    deliver(event(3, OLD.manifest.digest.text, tag="v2", actor="mary"))
    oci.push(shelf, "shop/api", NEW, "v1")
    ingest.crawl(guarded.registry_id)
    settle = Job.objects.get(kind="crawl")
    oci.push(shelf, "shop/api", NEW, "v2")  # mary's, whose notification is still to come
    run(settle)
    assert (where(shelf), shelf.tags_of["shop/api"]["v2"]) == (BOTH_OLD, NEW.manifest.digest.text)
    deliver(event(4, NEW.manifest.digest.text, tag="v2", actor="mary"))
    assert where(shelf, "v2") == BOTH_NEW

    for item, who in ((NEW, None), (other, "mary"), (NEW, None)):  # seen, named as another, and seen again
        oci.push(shelf, "shop/api", item, "v1")
        if who is None:
            ingest.crawl(guarded.registry_id)
        else:
            deliver(event(5, item.manifest.digest.text, tag="v1", actor=who))
    run(Job.objects.get(kind="crawl", state=Job.State.WAITING))
    assert where(shelf) == (NEW.manifest.digest.text, other.manifest.digest.text)
    run(Job.objects.get(kind="crawl", state=Job.State.WAITING))
    assert where(shelf) == (other.manifest.digest.text,) * 2


def test_a_tag_that_moves_on_while_its_move_is_settled_waits_for_its_own_time(
    shelf: InMemoryRegistry, guarded: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(shelf, "v1", "mary")
    third, read = oci.image("third"), ingest.read_graph

    def move_on(*arguments: Any, **more: Any) -> Any:
        oci.push(shelf, "shop/api", third, "v1")
        return read(*arguments, **more)

    monkeypatch.setattr(ingest, "read_graph", move_on)
    ingest.ingest_manifest(
        guarded.registry_id, "shop/api", NEW.manifest.digest.text, tag="v1", via=TagEvent.Via.CRAWL, is_settled=True
    )
    assert where(shelf) == (third.manifest.digest.text, NEW.manifest.digest.text)
    assert Job.objects.get(kind="crawl").payload["digest"] == third.manifest.digest.text


@pytest.mark.usefixtures("guarded")
def test_a_registry_that_is_away_is_asked_again_and_one_that_lost_the_image_is_believed(
    shelf: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, errors = shelf.put_manifest, [RegistryUnavailable("away"), RegistryRefused("blob unknown")]

    def fail(*arguments: Any, **more: Any) -> Any:
        raise errors[0]

    oci.push(shelf, "shop/api", NEW, "v1")
    monkeypatch.setattr(shelf, "put_manifest", fail)
    with pytest.raises(RegistryUnavailable):
        deliver(event(7, NEW.manifest.digest.text, tag="v1", actor="carl"))
    delivery = Job.objects.filter(kind="ingest").latest("pk").subject_id
    monkeypatch.setattr(shelf, "put_manifest", put)
    ingest.handle_delivery(delivery)
    assert where(shelf) == BOTH_OLD
    assert AuditEvent.objects.filter(action="tag.move_refused").count() == 1

    del errors[0]
    oci.push(shelf, "shop/api", NEW, "v1")
    monkeypatch.setattr(shelf, "put_manifest", fail)
    deliver(event(8, NEW.manifest.digest.text, tag="v1", actor="carl"))
    assert where(shelf) == BOTH_NEW
    assert AuditEvent.objects.get(action="tag.not_moved_back").outcome == "failed"


@pytest.mark.parametrize(
    "patterns", [["a b"], [""], ["-x"], ["x" * 129], ["v/1"], ["v\n"], [str(n) for n in range(51)]]
)
def test_patterns_are_tags_with_stars(guarded: Repository, patterns: list[str]) -> None:
    with pytest.raises(Malformed):
        protect_tags(guarded.pk, patterns, actor=User.objects.get(username="mary"))
    guarded.refresh_from_db()
    assert guarded.protected_tags == ["v*"]


def test_who_may_amend_says_which_tags_are_protected(guarded: Repository) -> None:
    with pytest.raises(NotPermitted):
        protect_tags(guarded.pk, [], actor=User.objects.get(username="carl"))
    with pytest.raises(NotFound):
        protect_tags(guarded.pk, [], actor=dock.user("eve", "owner", of=dock.team("base")))
    mary = User.objects.get(username="mary")
    headers = {"Authorization": f"Bearer {tokens.create_token(mary, kind='pat', name='t')[1]}"}
    for _ in range(2):
        answer = Client().put(
            f"/api/v1/repositories/{guarded.pk}/protected-tags/",
            json.dumps({"patterns": ["v*", "1.*", "v*"]}),
            content_type="application/json",
            headers=headers,
        )
        assert (answer.status_code, answer.json()["protected_tags"]) == (200, ["1.*", "v*"])
    events = AuditEvent.objects.filter(action="repository.tags_protected").order_by("pk")
    assert [row.details for row in events] == [
        {"before": [], "patterns": ["v*"]},
        {"before": ["v*"], "patterns": ["1.*", "v*"]},
    ]
