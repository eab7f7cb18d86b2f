"""Ingest from a registry: stored rows, and the same result for notifications, crawls and any order."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import LimitExceeded, Malformed, MalformedManifest
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment
from lifecycle.ingest import services as ingest
from lifecycle.ingest import writing
from lifecycle.ingest.models import Delivery
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.lineage.models import Derivation
from lifecycle.oci.chains import chain_ids
from lifecycle.oci.constants import MediaType
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import (
    Image,
    IndexEntry,
    Layer,
    MissingChild,
    Registry,
    Repository,
    RepositoryImage,
    Tag,
    TagEvent,
)
from lifecycle.registry.services import NoOwner, ensure_managed_registry
from tests.factories import dock, oci
from tests.factories.deliveries import deliver, event
from tests.fakes.registry import InMemoryRegistry

pytestmark = pytest.mark.django_db


def state() -> dict[str, Any]:
    """Return the content of the rows, without ids and times."""
    return {
        "tags": sorted(Tag.objects.values_list("repository__name", "name", "image__digest")),
        "members": sorted(
            RepositoryImage.objects.filter(removed_at=None).values_list(
                "repository__name", "image__digest", "is_top_level"
            )
        ),
        "images": sorted(Image.objects.values_list("digest", "kind", "layer_count")),
        "layers": Layer.objects.count(),
        "entries": IndexEntry.objects.count(),
    }


def counts() -> tuple[int, ...]:
    return tuple(model.objects.count() for model in (Image, Layer, TagEvent, AuditEvent, Job, RepositoryImage))


def test_ingest_stores_image_with_layers_chains_and_history(shelf: InMemoryRegistry) -> None:
    item = oci.image("base", "app", labels={"a": "b"})
    oci.push(shelf, "shop/api", item, "1.0")
    image = ingest.ingest_manifest(
        ensure_managed_registry().pk, "shop/api", item.manifest.digest.text, tag="1.0", actor_name="anna"
    )
    chain = chain_ids(item.diff_ids)
    assert list(image.layers.values_list("diff_id", "diff_chain_id", "created_by")) == [
        (item.diff_ids[0], chain[0], "COPY base"),
        (item.diff_ids[1], chain[1], "COPY app"),
    ]
    assert image.diff_chain_id == chain[1]
    assert image.config["config"]["Cmd"] == ["/bin/true"]
    assert image.created_at is not None
    anna = User.objects.get(username="anna")
    pushed = AuditEvent.objects.get(action="image.pushed")
    assert (pushed.actor, pushed.digest, pushed.repository) == (anna, image.digest, "shop/api")
    assert sorted(Job.objects.values_list("kind", "subject_id")) == [
        ("lineage", image.pk),
        ("scan", image.pk),
        ("verify", image.pk),
    ]


def test_second_ingest_changes_nothing(shelf: InMemoryRegistry) -> None:
    item = oci.image("base", "app")
    oci.push(shelf, "shop/api", item, "1.0")
    for number in range(3):
        ingest.ingest_manifest(ensure_managed_registry().pk, "shop/api", item.manifest.digest.text, tag="1.0")
        if number == 0:
            first = counts()
    assert counts() == first


def test_digest_in_two_repositories_is_stored_and_scanned_once(shelf: InMemoryRegistry) -> None:
    item = oci.image("base", "app")
    for number, name in enumerate(("shop/api", "shop/web")):
        oci.push(shelf, name, item, "1.0")
        hint = event(number, item.manifest.digest.text, tag="1.0")
        hint["target"]["repository"] = name
        deliver(hint)
    image = Image.objects.get()
    assert sorted(image.repository_images.values_list("repository__name", flat=True)) == ["shop/api", "shop/web"]
    assert list(Tag.objects.values_list("image_id", flat=True)) == [image.pk] * 2
    assert (image.layers.count(), Job.objects.filter(kind="scan").count()) == (2, 1)
    assert AuditEvent.objects.filter(action="image.pushed").count() == 2


def test_push_queues_failed_scan_again(shelf: InMemoryRegistry) -> None:
    item = oci.image("a")
    oci.push(shelf, "shop/api", item, "1")
    deliver(event(1, item.manifest.digest.text, tag="1"))
    Job.objects.all().delete()
    for number, problem, count in ((2, "", 0), (3, "The image is in no repository any more.", 1)):
        Image.objects.update(scan_problem=problem)
        deliver(event(number, item.manifest.digest.text, tag="1"))
        assert Job.objects.filter(kind="scan").count() == count


def test_index_is_stored_with_its_platforms_only(shelf: InMemoryRegistry) -> None:
    one, two = oci.image("base"), oci.image("base", architecture="arm64")
    top = oci.index(one, two)
    for item in (one, two):
        oci.push(shelf, "shop/api", item)
        ingest.ingest_manifest(ensure_managed_registry().pk, "shop/api", item.manifest.digest.text)
    oci.push_manifest(shelf, "shop/api", top, "1.0")
    image = ingest.ingest_manifest(ensure_managed_registry().pk, "shop/api", top.digest.text, tag="1.0")
    assert image.kind == Image.Kind.INDEX
    assert list(image.entries.values_list("child__digest", "platform")) == [
        (one.manifest.digest.text, "linux/amd64"),
        (two.manifest.digest.text, "linux/arm64"),
    ]
    top_level = RepositoryImage.objects.filter(is_top_level=True)
    assert [row.image.digest for row in top_level] == [top.digest.text]
    # Notifications of the children can arrive after the index.
    ingest.ingest_manifest(ensure_managed_registry().pk, "shop/api", one.manifest.digest.text)
    assert top_level.count() == 1


def test_moved_tag_keeps_its_history(shelf: InMemoryRegistry) -> None:
    first, second = oci.image("one"), oci.image("two")
    for number, item in enumerate((first, second)):
        oci.push(shelf, "shop/api", item, "1.0")
        deliver(event(number, item.manifest.digest.text, tag="1.0"))
    moves = TagEvent.objects.order_by("pk").values_list("old_image__digest", "new_image__digest", "actor__username")
    assert list(moves) == [
        (None, first.manifest.digest.text, "anna"),
        (first.manifest.digest.text, second.manifest.digest.text, "anna"),
    ]


def test_deliveries_in_any_order_and_number_give_same_result(shelf: InMemoryRegistry) -> None:
    items = [oci.image(f"v{number}") for number in range(3)]
    for item in items:
        oci.push(shelf, "shop/api", item, "1.0")
    shelf.delete_manifest("shop/api", items[0].manifest.digest)
    events = [event(n, item.manifest.digest.text, tag="1.0") for n, item in enumerate(items)]
    events.append(event(9, items[0].manifest.digest.text, action="delete"))
    deliver(*events)
    expected = state()
    assert expected["tags"] == [("shop/api", "1.0", items[2].manifest.digest.text)]
    chance = random.Random(3)
    for round_number in range(6):
        for model in (TagEvent, Tag, RepositoryImage, Layer, Delivery):
            model.objects.all().delete()
        Image.objects.all().delete()
        shuffled = [{**each, "id": f"{round_number}-{number}"} for number, each in enumerate(events * 4)]
        chance.shuffle(shuffled)
        deliver(*shuffled)
        assert state() == expected


def test_delete_is_recorded_only_when_registry_confirms_it(shelf: InMemoryRegistry) -> None:
    item = oci.image("one")
    digest = item.manifest.digest
    oci.push(shelf, "shop/api", item, "1.0")
    deliver(event(1, digest.text, tag="1.0"), event(2, digest.text, action="delete"))
    assert Tag.objects.get().image is not None  # the registry still has it: the notification was wrong
    shelf.delete_manifest("shop/api", digest)
    deliver(event(3, digest.text, action="delete"), event(4, "", tag="1.0", action="delete"))
    assert Tag.objects.get().image is None
    assert RepositoryImage.objects.get().removed_at is not None
    assert AuditEvent.objects.filter(action="image.deleted").count() == 1
    oci.push(shelf, "shop/api", item, "1.0")
    deliver(event(5, digest.text, tag="1.0"))
    assert Tag.objects.get().image is not None
    assert RepositoryImage.objects.get().removed_at is None


def test_crawl_finds_changes_when_all_notifications_are_lost(shelf: InMemoryRegistry) -> None:
    items = {f"shop/r{number}": oci.image(f"image {number}") for number in range(5)}
    for name, item in items.items():
        oci.push(shelf, name, item, "1.0")
    oci.push(shelf, "nobody/x", oci.image("x"), "1.0")
    registry = ensure_managed_registry()
    first = ingest.crawl(registry.pk)
    assert (first["ingested"], first["problems"]) == (5, 1)
    assert set(Tag.objects.values_list("repository__name", "image__digest", "events__via")) == {
        (name, item.manifest.digest.text, "crawl") for name, item in items.items()
    }
    before = counts()
    assert ingest.crawl(registry.pk)["ingested"] == 0
    assert counts() == before
    shelf.delete_manifest("shop/r0", items["shop/r0"].manifest.digest)
    oci.push(shelf, "shop/r1", oci.image("newer"), "1.0")
    again = ingest.crawl(registry.pk)
    assert (again["ingested"], again["deleted"]) == (1, 1)
    assert Tag.objects.get(repository__name="shop/r0").image is None


def test_crawl_finds_deletions_when_notifications_are_lost(
    shelf: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = [oci.image("a"), oci.image("b", architecture="arm64")]
    top, alone = oci.index(*children), oci.image("alone")
    for item in (*children, alone):
        oci.push(shelf, "shop/api", item, "" if item is not alone else "2.0")
    oci.push_manifest(shelf, "shop/api", top, "1.0")
    registry = ensure_managed_registry()
    ingest.crawl(registry.pk)
    assert RepositoryImage.objects.filter(removed_at=None).count() == 4
    shelf.delete_manifest("shop/api", alone.manifest.digest)
    del shelf.tags_of["shop/api"]["1.0"]
    ingest.crawl(registry.pk)
    left = RepositoryImage.objects.filter(removed_at=None).values_list("image__digest", flat=True)
    assert set(left) == {
        top.digest.text,
        *(child.manifest.digest.text for child in children),
    }  # only the tag was deleted
    assert not Tag.objects.filter(image__isnull=False).exists()
    shelf.manifests["shop/api"].clear()
    monkeypatch.setattr(ingest, "UNTAGGED_CHECKS", 2)
    assert [ingest.crawl(registry.pk, repository_name="shop/api")["deleted"] for _ in range(3)] == [2, 1, 0]
    assert not left.all().exists()
    assert AuditEvent.objects.filter(action="image.deleted").count() == 4


def test_notification_adds_user_to_move_found_by_crawl(shelf: InMemoryRegistry) -> None:
    item = oci.image("one")
    oci.push(shelf, "shop/api", item, "1.0")
    registry = ensure_managed_registry()
    ingest.crawl(registry.pk)
    crawled = TagEvent.objects.get()
    assert (crawled.actor, crawled.via) == (None, "crawl")
    for number in range(3):  # repeated notifications name the user only once
        deliver(event(number, item.manifest.digest.text, tag="1.0"))
    attributed = TagEvent.objects.get()
    anna = User.objects.get(username="anna")
    assert (attributed.pk, attributed.actor, attributed.via) == (crawled.pk, anna, "push")
    assert RepositoryImage.objects.get().pushed_by == anna
    assert AuditEvent.objects.get(action="image.push_attributed").actor == anna
    # Another user who pushes the same image moves no tag and is not named as its actor.
    dock.user("eve", "owner", of=dock.team("shop"))
    deliver(event(9, item.manifest.digest.text, tag="1.0", actor="eve"))
    assert TagEvent.objects.get().actor == anna


def test_worker_adds_user_to_move_of_our_own_push(shelf: InMemoryRegistry) -> None:
    item = oci.image("one")
    oci.push(shelf, "shop/api", item, "1.0")
    digest = item.manifest.digest.text
    deliver(event(1, digest, tag="1.0", actor=system_user().username))
    assert TagEvent.objects.get().actor == system_user()
    arguments = {"tag": "1.0", "actor_name": "anna", "via": TagEvent.Via.REBUILD}
    ingest.ingest_manifest(ensure_managed_registry().pk, "shop/api", digest, **arguments)
    assert (TagEvent.objects.get().actor, TagEvent.objects.get().via) == (User.objects.get(username="anna"), "rebuild")


def run_lineage() -> None:
    """Run the waiting lineage jobs, as a worker does."""
    for job in Job.objects.filter(kind="lineage", state=Job.State.WAITING).order_by("pk"):
        running.run(job.pk)
        job.refresh_from_db()
        assert job.state == Job.State.SUCCEEDED


BASE = "org.opencontainers.image.base.digest"


@pytest.mark.parametrize("named", ["manifest", "index"])
@pytest.mark.parametrize("order", list(itertools.permutations(["base", "child", "index"])))
def test_base_named_by_index_is_linked_in_any_order_of_ingest(
    shelf: InMemoryRegistry, order: tuple[str, ...], named: str
) -> None:
    base, child = oci.image("base"), oci.image("app")
    base_index = oci.index(base)
    on = base.manifest if named == "manifest" else base_index
    top = oci.index(child, annotations={BASE: on.digest.text})
    for item in (base, child):
        oci.push(shelf, "shop/api", item)
    for content in (base_index, top):
        oci.push_manifest(shelf, "shop/api", content)
    registry = ensure_managed_registry().pk
    for what in order:
        digests = {"base": [base.manifest, base_index], "child": [child.manifest], "index": [top]}[what]
        for content in digests:
            ingest.ingest_manifest(registry, "shop/api", content.digest.text)
            run_lineage()
    edge = Derivation.objects.get()
    assert (edge.derived.digest, edge.base.digest) == (child.manifest.digest.text, base.manifest.digest.text)
    assert (edge.evidence, edge.confidence) == (["annotation"], "low")
    assert Job.objects.filter(kind="scan").count() == 2


def test_missing_child_is_added_to_its_index_when_ingested(shelf: InMemoryRegistry) -> None:
    base, child, other = oci.image("base"), oci.image("app"), oci.image("app", architecture="arm64")
    top = oci.index(child, other, annotations={BASE: base.manifest.digest.text})
    for item in (base, child, other):
        oci.push(shelf, "shop/api", item)
    oci.push_manifest(shelf, "shop/api", top, "1.0")
    registry = ensure_managed_registry().pk
    held = shelf.manifests["shop/api"].pop(child.manifest.digest.text)
    for content in (base.manifest, top, top):
        ingest.ingest_manifest(registry, "shop/api", content.digest.text)
    assert list(IndexEntry.objects.values_list("child__digest", "position")) == [(other.manifest.digest.text, 1)]
    assert MissingChild.objects.get().digest == child.manifest.digest.text
    shelf.manifests["shop/api"][child.manifest.digest.text] = held
    ingest.ingest_manifest(registry, "shop/api", child.manifest.digest.text)
    run_lineage()
    assert list(IndexEntry.objects.values_list("child__digest", "position", "platform")) == [
        (child.manifest.digest.text, 0, "linux/amd64"),
        (other.manifest.digest.text, 1, "linux/arm64"),
    ]
    assert not MissingChild.objects.exists()
    assert not RepositoryImage.objects.get(image__digest=child.manifest.digest.text).is_top_level
    edges = Derivation.objects.values_list("derived__digest", "base__digest")
    assert set(edges) == {(item.manifest.digest.text, base.manifest.digest.text) for item in (child, other)}


def test_base_declared_by_child_wins_over_its_index(shelf: InMemoryRegistry) -> None:
    annotated, labelled = oci.sha(b"mine"), oci.sha(b"label")
    child = oci.image("app", annotations={BASE: annotated})
    other = oci.image("other", labels={BASE: labelled})
    registry = ensure_managed_registry().pk
    for number, item in enumerate((child, other)):
        oci.push(shelf, "shop/api", item)
        ingest.ingest_manifest(registry, "shop/api", item.manifest.digest.text)
        for name in ("first", "second"):
            top = oci.index(item, annotations={BASE: oci.sha(f"{name} {number}".encode())})
            oci.push_manifest(shelf, "shop/api", top)
            ingest.ingest_manifest(registry, "shop/api", top.digest.text)
    assert Image.objects.get(digest=child.manifest.digest.text).base_digest == annotated
    assert Image.objects.get(digest=other.manifest.digest.text).base_digest == oci.sha(b"first 1")


def test_crawl_finds_referrers_and_stores_no_tag_for_them(shelf: InMemoryRegistry) -> None:
    item = oci.image("one")
    oci.push(shelf, "shop/api", item, "1.0")
    note = oci.artifact(item.manifest, "note")
    oci.push(shelf, "shop/api", note)
    oci.attach(shelf, "shop/api", note.manifest)
    ingest.crawl(ensure_managed_registry().pk)
    assert list(Tag.objects.values_list("name", flat=True)) == ["1.0"]
    artifact = Image.objects.get(kind=Image.Kind.ARTIFACT)
    assert (artifact.subject_digest, artifact.artifact_type) == (
        item.manifest.digest.text,
        "application/vnd.example.note",
    )


def test_environment_target_is_linked_to_its_source_repository(shelf: InMemoryRegistry) -> None:
    shop = dock.team("shop")
    production = Environment.objects.create(team=shop, slug="production", name="P", position=1, prefix="prod")
    item = oci.image("one")
    oci.push(shelf, "prod/shop/api", item, "current")
    ingest.ingest_manifest(ensure_managed_registry().pk, "prod/shop/api", item.manifest.digest.text, tag="current")
    target = Repository.objects.get(name="prod/shop/api")
    assert target.source is not None
    assert (target.team, target.family, target.environment, target.source.name) == (
        shop,
        "shop/api",
        production,
        "shop/api",
    )


def test_image_without_team_is_reported_and_not_stored(shelf: InMemoryRegistry) -> None:
    item = oci.image("one")
    oci.push(shelf, "nobody/x", item, "1.0")
    with pytest.raises(NoOwner):
        ingest.ingest_manifest(ensure_managed_registry().pk, "nobody/x", item.manifest.digest.text, tag="1.0")
    hint = event(1, item.manifest.digest.text)
    hint["target"]["repository"] = "nobody/x"
    deliver(hint)
    assert "No team" in Delivery.objects.get().problem
    assert not Image.objects.exists()


def test_hostile_manifests_are_refused_and_reported(shelf: InMemoryRegistry) -> None:
    child = {"mediaType": MediaType.OCI_MANIFEST, "digest": "sha256:" + "b" * 64, "size": 1}
    hostile = {
        "ten thousand children": {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": [child] * 10_000},
        "confused": {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": [], "layers": []},
    }
    for number, (what, document) in enumerate(hostile.items()):
        raw = json.dumps(document).encode()
        content = oci.ManifestContent(Digest.of(raw), MediaType.OCI_INDEX.value, raw)
        shelf.manifests["shop/api"][content.digest.text] = content
        with pytest.raises((LimitExceeded, MalformedManifest)):
            deliver(event(number, content.digest.text))
        assert Delivery.objects.get(event_id=str(number)).problem, what
    with pytest.raises(Malformed):
        deliver({**event(7, "sha256:zz")})


def test_tag_that_moves_during_ingest_is_followed(shelf: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = oci.image("one"), oci.image("two")
    oci.push(shelf, "shop/api", first, "1.0")
    real: Callable[..., Image] = writing.write_graph

    def slow(*arguments: Any, **more: Any) -> Image:
        if shelf.tags_of["shop/api"]["1.0"] == first.manifest.digest.text:
            oci.push(shelf, "shop/api", second, "1.0")
        return real(*arguments, **more)

    monkeypatch.setattr(ingest, "write_graph", slow)
    ingest.ingest_manifest(ensure_managed_registry().pk, "shop/api", first.manifest.digest.text, tag="1.0")
    assert Tag.objects.get().image == Image.objects.get(digest=second.manifest.digest.text)


@pytest.mark.django_db(transaction=True)
def test_crash_at_any_write_stores_nothing(shelf: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connection

    one, two = oci.image("base"), oci.image("base", architecture="arm64")
    for item in (one, two):
        oci.push(shelf, "shop/api", item)
    top = oci.index(one, two)
    oci.push_manifest(shelf, "shop/api", top, "1.0")
    registry = ensure_managed_registry()

    class Died(BaseException):
        pass

    def run(die_at: int | None) -> None:
        number = itertools.count()

        def die(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith(("INSERT", "UPDATE")) and next(number) == die_at:
                raise Died
            return execute(sql, params, many, context)

        with connection.execute_wrapper(die):
            ingest.ingest_manifest(registry.pk, "shop/api", top.digest.text, tag="1.0", actor_name="anna")

    died = 0
    for at in range(60):
        try:
            run(at)
        except Died:
            died += 1
            assert not Image.objects.exists()
            assert not Tag.objects.exists()
            assert not AuditEvent.objects.exists()
            assert not Job.objects.exists()
        else:
            break
    assert died >= 8
    assert Tag.objects.get().image == Image.objects.get(digest=top.digest.text)
    assert Job.objects.filter(kind="scan").count() == 2


def test_managed_registry_has_public_host_and_internal_endpoint(settings):
    assert ensure_managed_registry().endpoint == settings.REGISTRY_URL
    settings.REGISTRY_PUBLIC_URL = "https://registry.example.test"
    row = ensure_managed_registry()
    assert (row.host, Registry.objects.count()) == ("registry.example.test", 1)
    client = client_for(row)
    assert isinstance(client, HttpRegistryClient)
    assert client.endpoint == settings.REGISTRY_URL
