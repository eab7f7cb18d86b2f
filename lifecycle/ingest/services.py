"""What a registry holds becomes rows: by hint, by crawl, or because one of our own workers just wrote it there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef

from accounts.models import User
from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.core.errors import LeaseLost, LifecycleError, Malformed, RegistryRefused, RegistryUnavailable
from lifecycle.core.types import Digest, is_referrer_tag
from lifecycle.ingest import notifications
from lifecycle.ingest.constants import UNTAGGED_CHECKS
from lifecycle.ingest.kinds import CRAWL, INGEST
from lifecycle.ingest.models import Delivery
from lifecycle.ingest.reading import read_graph
from lifecycle.ingest.types import RegistryEvent, Written
from lifecycle.ingest.writing import accept_move, forget_manifest, forget_tag, write_graph
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.oci.types import ManifestContent
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.registry.services import NoOwner

log = structlog.get_logger(__name__)

_HEAVY = ("image__manifest", "image__config", "image__annotations", "image__labels")
_TAG_CHECKS = 3  # how often a tag that moves under our hands is followed; the crawl takes over then


def ingest_manifest(
    registry_id: int,
    repository_name: str,
    digest: str,
    *,
    tag: str | None = None,
    actor_name: str | None = None,
    via: str = TagEvent.Via.PUSH,
    client: RegistryClient | None = None,
    alive: Callable[[], None] = lambda: None,
    is_settled: bool = False,
) -> Image:
    """Read the manifest `digest` and all it names from the registry, and store them; return the top's row.

    `tag` says that the caller saw it point there; it is looked at once more after the rows are written, so that of
    two writers the later state wins. Doing this twice, or after being killed anywhere, ends in the same rows: the
    network comes first, then one transaction. `alive` is called between downloads and may raise. A protected tag that
    was moved by somebody who may not is moved back in the registry; `is_settled` as for `write_graph`, and of `digest`
    alone: what the tag has moved on to is another's move.

    Raises MalformedDigest, MalformedManifest, LimitExceeded, ManifestUnknown, NoOwner, RegistryUnavailable,
    RegistryRefused.
    """
    registry = Registry.objects.get(pk=registry_id)
    client = client or client_for(registry)
    top, actor = Digest.parse(digest), _actor_named(actor_name)
    image: Image | None = None
    for _ in range(_TAG_CHECKS):
        graph = read_graph(client, repository_name, top, known=_stored_manifest, alive=alive)
        is_asked = top.text == digest
        written = write_graph(
            registry, repository_name, graph, tag=tag, actor=actor, via=via, is_settled=is_settled and is_asked
        )
        image = written.image
        if tag is None:
            return image
        if written.kept is not None:
            _move_back(registry, client, repository_name, tag, written, actor=actor, via=via)
            return image
        try:
            moved = client.get_manifest_if_changed(repository_name, tag, top)
        except ManifestUnknown:
            repository = Repository.objects.get(registry=registry, name=repository_name)
            forget_tag(repository, tag, expected_image_id=image.pk, actor=None)
            return image
        if moved is None:
            return image
        top, actor = moved.digest, None  # whose move that was, its own notification says
    assert image is not None  # noqa: S101 -- the loop ran
    return image


def _move_back(
    registry: Registry,
    client: RegistryClient,
    repository_name: str,
    tag: str,
    written: Written,
    *,
    actor: User | None,
    via: str,
) -> None:
    """Let the registry's tag point at what it pointed at, unless it has moved on. Raises RegistryUnavailable.

    Where the registry has lost what the tag pointed at, the move stands, and is reported as such.
    """
    kept = written.kept
    assert kept is not None  # noqa: S101 -- the caller asked
    now = client.resolve(repository_name, tag)
    if now is None or now.digest.text != written.image.digest:
        return
    try:
        client.put_manifest(repository_name, tag, bytes(kept.manifest), kept.media_type)
    except RegistryRefused as error:
        repository = Repository.objects.get(registry=registry, name=repository_name)
        accept_move(repository, tag, written.image, actor=actor, via=via, why=error.message)


def receive(registry: Registry, body: bytes) -> int:
    """Store each event of a notification once and queue what it hints at; returns how many events were new.

    Content that cannot be used is stored with the problem and logged: a refusal would be sent again for ever, and
    hold up all that comes behind it.
    """
    events, problem = notifications.parse_notification(body)
    if problem:
        log.warning("notification_unreadable", registry_id=registry.pk, problem=problem)
        event_id = Digest.of(body).text
        Delivery.objects.get_or_create(
            registry=registry,
            instance="",
            event_id=event_id,
            defaults={"body": body[:65536], "problem": problem[:300], "handled_at": clock.now()},
        )
    fresh = 0
    for event in events:
        with transaction.atomic():
            fresh += _receive_one(registry, event)
    return fresh


def _receive_one(registry: Registry, event: RegistryEvent) -> bool:
    is_useful = notifications.is_about_a_manifest(event, notifications.media_type_of(event))
    row, is_new = Delivery.objects.get_or_create(
        registry=registry,
        instance=event.instance,
        event_id=event.event_id,
        defaults={
            "action": event.action,
            "body": event.raw,
            "problem": "" if is_useful else "Not about a manifest.",
            "handled_at": None if is_useful else clock.now(),
        },
    )
    if not is_new or not is_useful:
        return is_new
    # Distinct in everything that matters to who moved what where; equal hints that wait are one job.
    key = Digest.of(
        json.dumps([registry.pk, event.action, event.repository, event.tag, event.digest, event.actor_name]).encode()
    ).text
    job = jobs.queue(INGEST, subject_id=row.pk, actor=system_user(), dedupe_key=key, priority=5)
    if job.subject_id != row.pk:  # an equal hint waits already
        Delivery.objects.filter(pk=row.pk).update(handled_at=clock.now())
    return True


def handle_delivery(delivery_id: int, *, alive: Callable[[], None] = lambda: None) -> None:
    """Look where a stored event points, and store what is there now. Coming twice, late or out of order is safe.

    What is gone meanwhile, or belongs to no team, is noted on the delivery's row. Raises Malformed and LimitExceeded
    for content that can never be stored and RegistryRefused where asking again helps nothing (noted too),
    RegistryUnavailable when a later try may do better.
    """
    delivery = Delivery.objects.select_related("registry").get(pk=delivery_id)
    events, _ = notifications.parse_notification(b'{"events":[' + bytes(delivery.body) + b"]}")
    problem = ""
    if delivery.handled_at is None and events:
        try:
            _follow(delivery.registry, events[0], alive)
        except (ManifestUnknown, NoOwner) as error:
            problem = error.message  # gone meanwhile, or nobody's: that is how things are, no failure
            log.info("delivery_without_effect", delivery_id=delivery.pk, code=error.error_code)
        except (Malformed, RegistryRefused) as error:
            Delivery.objects.filter(pk=delivery.pk).update(handled_at=clock.now(), problem=error.message[:300])
            raise
    Delivery.objects.filter(pk=delivery.pk, handled_at=None).update(handled_at=clock.now(), problem=problem[:300])


def _follow(registry: Registry, event: RegistryEvent, alive: Callable[[], None]) -> None:
    client = client_for(registry)
    actor_name = event.actor_name or None
    if event.action == "delete":
        _follow_delete(registry, client, event)
        return
    tag = event.tag or None
    if tag is not None and not is_referrer_tag(tag):
        now = client.resolve(event.repository, tag)
        if now is None or now.digest.text != event.digest:
            # The tag has moved on: this push is history, the move after it has a notification of its own, or is
            # found by the crawl.
            tag = None
    if tag is not None and is_referrer_tag(tag):
        ingest_referrers(registry, client, event.repository, tag, alive=alive)
        return
    ingest_manifest(
        registry.pk, event.repository, event.digest, tag=tag, actor_name=actor_name, client=client, alive=alive
    )


def _follow_delete(registry: Registry, client: RegistryClient, event: RegistryEvent) -> None:
    repository = Repository.objects.filter(registry=registry, name=event.repository).first()
    if repository is None:
        return
    actor = _actor_named(event.actor_name or None)
    if event.digest:
        digest = Digest.parse(event.digest)
        if client.resolve(repository.name, digest.text) is None:
            forget_manifest(repository, digest.text, actor=actor)
    elif event.tag:
        note_tag(registry, client, repository, event.tag, actor=actor)


def note_tag(
    registry: Registry, client: RegistryClient, repository: Repository, tag: str, *, actor: User | None = None
) -> bool:
    """Compare one tag of ours with the registry's, and record when it is gone; returns whether it was.

    What it pointed at may be gone with it: registries delete a manifest with all its tags.
    """
    row = Tag.objects.select_related("image").filter(repository=repository, name=tag).first()
    if row is None or row.image is None or client.resolve(repository.name, tag) is not None:
        return False
    is_forgotten = forget_tag(repository, tag, expected_image_id=row.image_id, actor=actor)
    if client.resolve(repository.name, row.image.digest) is None:
        forget_manifest(repository, row.image.digest, actor=actor)
    return is_forgotten


def ingest_referrers(
    registry: Registry,
    client: RegistryClient,
    repository_name: str,
    tag: str,
    *,
    alive: Callable[[], None] = lambda: None,
) -> int:
    """Store what hangs on another manifest by a fallback or signature tag; returns how many artifacts there are.

    The tag itself gets no row: it belongs to its subject.
    """
    try:
        content = client.get_manifest(repository_name, tag)
    except ManifestUnknown:
        return 0
    if not content.is_index:
        ingest_manifest(registry.pk, repository_name, content.digest.text, client=client, alive=alive)
        return 1
    top = Digest.parse(f"sha256:{tag.rpartition('-')[2].partition('.')[0]}")
    count = 0
    for entry in client.referrers(repository_name, top):
        try:
            ingest_manifest(registry.pk, repository_name, entry.digest.text, client=client, alive=alive)
            count += 1
        except (Malformed, ManifestUnknown) as error:
            log.warning("referrer_not_ingested", repository=repository_name, code=error.error_code)
    return count


def crawl(
    registry_id: int,
    *,
    repository_name: str | None = None,
    progress: Callable[[int, int | None, str], None] = lambda done, total, text: None,
) -> dict[str, int]:
    """Bring our rows to what the registry holds, whatever notifications were lost; returns counts.

    Catalog, then tags, then one conditional question for each tag we know: a 304 costs little and makes no pull
    event. Then a few of the images without a tag, which nothing else would ask for. One repository's trouble is
    counted and logged, and does not stop the others. Raises RegistryUnavailable.
    """
    registry = Registry.objects.get(pk=registry_id)
    client = client_for(registry)
    counts = {"repositories": 0, "tags": 0, "ingested": 0, "deleted": 0, "problems": 0}
    names = [repository_name] if repository_name else list(client.repositories())
    if repository_name is None:  # a repository whose last tag went may have left the catalog
        known = Repository.objects.filter(registry=registry, tags__image__isnull=False).distinct()
        names += sorted(set(known.values_list("name", flat=True)) - set(names))
    for number, name in enumerate(names, start=1):
        progress(number - 1, len(names), name)
        alive = partial(progress, number - 1, len(names), name)
        _crawl_repository(registry, client, name, counts, alive)
        counts["repositories"] += 1
    _check_untagged(registry, client, repository_name, counts, partial(progress, len(names), len(names), ""))
    progress(len(names), len(names), "")
    Registry.objects.filter(pk=registry.pk).update(crawled_at=clock.now())
    return counts


def _crawl_repository(
    registry: Registry,
    client: RegistryClient,
    name: str,
    counts: dict[str, int],
    alive: Callable[[], None],
) -> None:
    repository = Repository.objects.filter(registry=registry, name=name).first()
    ours: dict[str, str] = {}
    if repository is not None:
        live = Tag.objects.filter(repository=repository, image__isnull=False)
        ours = dict(live.values_list("name", "image__digest"))
    theirs = client.tags(name)
    for tag in theirs:
        counts["tags"] += 1
        alive()
        try:
            if is_referrer_tag(tag):
                ingest_referrers(registry, client, name, tag, alive=alive)
                continue
            content = _changed(client, name, tag, ours.get(tag))
            if content is not None:
                ingest_manifest(
                    registry.pk,
                    name,
                    content.digest.text,
                    tag=tag,
                    via=TagEvent.Via.CRAWL,
                    client=client,
                    alive=alive,
                )
                counts["ingested"] += 1
        except ManifestUnknown:
            continue  # gone between the list and the question
        except (RegistryUnavailable, LeaseLost):
            raise
        except LifecycleError as error:
            counts["problems"] += 1
            log.warning("crawl_problem", repository=name, tag=tag, code=error.error_code)
    for tag in sorted(set(ours) - set(theirs)):
        if repository is not None and note_tag(registry, client, repository, tag):
            counts["deleted"] += 1


def _check_untagged(
    registry: Registry,
    client: RegistryClient,
    repository_name: str | None,
    counts: dict[str, int],
    alive: Callable[[], None],
) -> None:
    """Ask for some images that no tag leads to, others each time, and record which are gone.

    Drawn by lot: a place in a fixed order would have to be remembered, and each is asked for sooner or later.
    """
    tagged = Tag.objects.filter(repository=OuterRef("repository"), image=OuterRef("image"))
    members = RepositoryImage.objects.filter(~Exists(tagged), repository__registry=registry, removed_at=None)
    if repository_name is not None:
        members = members.filter(repository__name=repository_name)
    for member in members.select_related("repository", "image").defer(*_HEAVY).order_by("?")[:UNTAGGED_CHECKS]:
        alive()
        try:
            if client.resolve(member.repository.name, member.image.digest) is None:
                counts["deleted"] += forget_manifest(member.repository, member.image.digest, actor=None)
        except RegistryUnavailable:
            raise
        except LifecycleError as error:
            counts["problems"] += 1
            log.warning("crawl_problem", repository=member.repository.name, code=error.error_code)


def _changed(client: RegistryClient, name: str, tag: str, known: str | None) -> ManifestContent | None:
    if known is None:
        return client.get_manifest(name, tag)
    return client.get_manifest_if_changed(name, tag, Digest.parse(known))


@transaction.atomic
def queue_crawl(registry: Registry, *, repository_name: str = "", actor: User | None = None) -> Job:
    """Queue a crawl of a registry, or of one repository; a waiting one is returned instead of a second."""
    payload: dict[str, Any] = {"repository": repository_name} if repository_name else {}
    return jobs.queue(
        CRAWL,
        subject_id=registry.pk,
        actor=actor or system_user(),
        payload=payload,
        dedupe_key=f"{registry.pk}:{repository_name}",
    )


def settle(
    registry_id: int,
    repository_name: str,
    tag: str,
    digest: str,
    *,
    seen_at: datetime,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Take back the move of a protected tag that was seen then, if the tag is still there and nobody was named.

    Only this move has had its time: what else happened in the repository meanwhile waits for its own. If the tag was
    somewhere else since, this is a later move than the one that was seen. Raises as `ingest_manifest`.
    """
    registry = Registry.objects.get(pk=registry_id)
    client = client_for(registry)
    now = client.resolve(repository_name, tag)
    if now is None or now.digest.text != digest:
        return  # what it is now, a notification or the next crawl says
    events = TagEvent.objects.filter(tag__repository__registry=registry, tag__repository__name=repository_name)
    ingest_manifest(
        registry_id,
        repository_name,
        digest,
        tag=tag,
        via=TagEvent.Via.CRAWL,
        client=client,
        alive=alive,
        is_settled=not events.filter(tag__name=tag, at__gt=seen_at).exists(),
    )


def _actor_named(name: str | None) -> User | None:
    return User.objects.filter(username=name).first() if name else None


def _stored_manifest(digest: str) -> ManifestContent | None:
    """Return the bytes we keep of a manifest whose rows are complete, None when it has to be fetched."""
    row = Image.objects.filter(digest=digest).only("digest", "kind", "media_type", "manifest", "config").first()
    if row is None or not row.manifest or (row.kind == Image.Kind.MANIFEST and not row.config):
        return None
    return ManifestContent(Digest(row.digest), row.media_type, bytes(row.manifest))
