"""Store the content of a registry as rows, after a notification, in a crawl, or after a push by our own workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Exists, OuterRef

from accounts.models import User
from accounts.queries import system_user
from lifecycle import events
from lifecycle.core import clock
from lifecycle.core.errors import LeaseLost, LifecycleError, Malformed, RegistryRefused, RegistryUnavailable
from lifecycle.core.types import Digest, is_referrer_tag, subject_of_tag
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
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.manifests import is_list_of_referrers, parse_links
from lifecycle.oci.types import ManifestContent
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.registry.services import NoOwner

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_HEAVY = ("image__manifest", "image__config", "image__annotations", "image__labels")
_TAG_CHECKS = 3  # times that we follow a tag that moves while we read it; then the crawl finds it


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
    """Read the manifest `digest` and its children from the registry and store them; return the image of `digest`.

    `tag` is a tag that pointed at `digest` when the caller looked. It is checked again after the rows are written, so
    that the later state wins when two workers write. The result is the same after a second run, and after a kill at any
    point: all network calls come first, then one transaction. `alive` is called between downloads and can raise.

    A protected tag that was moved without the right is moved back in the registry. `is_settled` is as in `write_graph`.
    It applies only to `digest`. If the tag has moved on, that is a separate move, and the latest image is returned.

    Raises MalformedDigest, MalformedManifest, LimitExceeded, ManifestUnknown, NoOwner, RegistryUnavailable,
    RegistryRefused.
    """
    registry = Registry.objects.get(pk=registry_id)
    client = client or client_for(registry)
    top, actor = Digest.parse(digest), _actor_named(actor_name)
    image: Image | None = None
    for _ in range(_TAG_CHECKS):
        graph = read_graph(
            client,
            repository_name,
            top,
            known=_stored_manifest,
            is_present=partial(_is_present, registry, repository_name),
            alive=alive,
        )
        is_requested = top.text == digest
        written = write_graph(
            registry, repository_name, graph, tag=tag, actor=actor, via=via, is_settled=is_settled and is_requested
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
        top, actor = moved.digest, None  # the notification of that move names its user
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
    """Move the tag in the registry back to its former image, unless it has moved on; raises RegistryUnavailable.

    When the registry refuses, for example because it no longer has that image, the move is accepted and audited.
    """
    kept = written.kept
    assert kept is not None  # noqa: S101 -- the caller checked
    now = client.resolve(repository_name, tag)
    if now is None or now.digest.text != written.image.digest:
        return
    try:
        client.put_manifest(repository_name, tag, bytes(kept.manifest), kept.media_type)
    except RegistryRefused as error:
        repository = Repository.objects.get(registry=registry, name=repository_name)
        accept_move(repository, tag, written.image, actor=actor, via=via, why=error.message)


def receive(registry: Registry, body: bytes) -> int:
    """Store each event of a notification once and queue a job for it; return the number of new events.

    Unusable content is stored with its problem and logged, not refused. The registry would send a refused notification
    again forever, and delay all later ones.
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
            "problem": "" if is_useful else "The event is not about a manifest.",
            "handled_at": None if is_useful else clock.now(),
        },
    )
    if not is_new or not is_useful:
        return is_new
    # The key has everything that identifies the user, the change and its place. Equal hints that wait share one job.
    key = Digest.of(
        json.dumps([registry.pk, event.action, event.repository, event.tag, event.digest, event.actor_name]).encode()
    ).text
    job = jobs.queue(INGEST, subject_id=row.pk, actor=system_user(), dedupe_key=key, priority=5)
    if job.subject_id != row.pk:  # a job for an equal hint already waits
        Delivery.objects.filter(pk=row.pk).update(handled_at=clock.now())
    return True


def handle_delivery(delivery_id: int, *, alive: Callable[[], None] = lambda: None) -> None:
    """Read the registry where a stored event points, and store the present state there.

    Safe to run twice, late or out of order. If the content was deleted meanwhile, or belongs to no team, the delivery's
    row stores that problem. Raises Malformed and LimitExceeded for content that can never be stored, and
    RegistryRefused when a retry does not help. The row stores these problems too. Raises RegistryUnavailable when a
    retry can help.
    """
    delivery = Delivery.objects.select_related("registry").get(pk=delivery_id)
    events, _ = notifications.parse_notification(b'{"events":[' + bytes(delivery.body) + b"]}")
    problem = ""
    if delivery.handled_at is None and events:
        try:
            _follow(delivery.registry, events[0], alive)
        except (ManifestUnknown, NoOwner) as error:
            problem = error.message  # deleted meanwhile, or without a team: not a failure of the job
            log.info("delivery_without_effect", delivery_id=delivery.pk, code=error.error_code)
        except (Malformed, RegistryRefused) as error:
            Delivery.objects.filter(pk=delivery.pk).update(handled_at=clock.now(), problem=error.message[:300])
            raise
    Delivery.objects.filter(pk=delivery.pk, handled_at=None).update(handled_at=clock.now(), problem=problem[:300])


def abandon_delivery(delivery_id: int, why: str) -> None:
    """Record that a delivery had no effect because all attempts failed. The next crawl reads the registry again."""
    Delivery.objects.filter(pk=delivery_id, handled_at=None).update(handled_at=clock.now(), problem=why[:300])


def _follow(registry: Registry, event: RegistryEvent, alive: Callable[[], None]) -> None:
    client = client_for(registry)
    actor_name = event.actor_name or None
    if event.action == "delete":
        _follow_delete(registry, client, event)
        return
    tag = event.tag or None
    if tag is not None and _lists_referrers(client, event.repository, tag):
        ingest_referrers(registry, client, event.repository, tag, alive=alive)
        return
    if tag is not None:
        now = client.resolve(event.repository, tag)
        if now is None or now.digest.text != event.digest:
            # The tag has moved on. The later move has its own notification, or the crawl finds it.
            tag = None
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
    """Check whether one of our tags still exists in the registry; if not, record its deletion and return True.

    The manifest is checked too, because registries delete a manifest together with all its tags.
    """
    row = Tag.objects.select_related("image").filter(repository=repository, name=tag).first()
    if row is None or row.image is None or client.resolve(repository.name, tag) is not None:
        return False
    is_forgotten = forget_tag(repository, tag, expected_image_id=row.image_id, actor=actor)
    if client.resolve(repository.name, row.image.digest) is None:
        forget_manifest(repository, row.image.digest, actor=actor)
    return is_forgotten


def _lists_referrers(client: RegistryClient, repository_name: str, tag: str) -> bool:
    """Return whether a tag only contains the referrers or signatures of another manifest.

    Its name alone does not say so: `sha256-<hash>` can also name a user's own image. Raises ManifestUnknown.
    """
    if not is_referrer_tag(tag):
        return False
    if "." in tag:  # a signature or an attestation, as cosign stores them
        return True
    return is_list_of_referrers(client.get_manifest(repository_name, tag))


def ingest_referrers(
    registry: Registry,
    client: RegistryClient,
    repository_name: str,
    tag: str,
    *,
    alive: Callable[[], None] = lambda: None,
) -> int:
    """Store the artifacts that refer to another manifest by a fallback or signature tag; return their number.

    The tag itself gets no row, because it belongs to its subject. A problem of one artifact does not stop the others:
    the first one for which a retry can help is raised at the end, others are logged.
    """
    try:
        content = client.get_manifest(repository_name, tag)
    except ManifestUnknown:
        return 0
    if not content.is_index:
        is_known = _is_present(registry, repository_name, content.digest.text)
        ingest_manifest(registry.pk, repository_name, content.digest.text, client=client, alive=alive)
        subject = subject_of_tag(tag)
        if not is_known and subject:  # a signature tag names its subject, and the manifest there does not
            with transaction.atomic():
                events.publish(events.ReferrerStored(subject))
        return 1
    count, outage = 0, None
    for entry in parse_links(content).manifests:
        try:
            ingest_manifest(registry.pk, repository_name, entry.digest.text, client=client, alive=alive)
            count += 1
        except RegistryUnavailable as error:
            client.check()
            outage = outage or error
        except (Malformed, RegistryRefused) as error:
            log.warning("referrer_not_ingested", repository=repository_name, code=error.error_code)
    if outage is not None:
        raise outage
    return count


def ingest_attached(
    registry: Registry,
    client: RegistryClient,
    repository_name: str,
    digest: Digest,
    *,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Store what refers to `digest`: the artifacts in its list of referrers, and cosign's signature tag.

    For a registry that sends no notifications. Raises as `ingest_manifest`.
    """
    for entry in client.referrers(repository_name, digest):
        if entry.is_manifest:
            ingest_manifest(registry.pk, repository_name, entry.digest.text, client=client, alive=alive)
    ingest_referrers(registry, client, repository_name, f"{fallback_tag(digest)}.sig", alive=alive)


def crawl(
    registry_id: int,
    *,
    repository_name: str | None = None,
    progress: Callable[[int, int | None, str], None] = lambda done, total, text: None,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Update our rows to the state of the registry, and return counts. This finds changes with lost notifications.

    Reads the catalog, then the tags, then sends one conditional request for each known tag: a 304 is cheap and creates
    no pull event. Then it checks some of the untagged images, which nothing else checks. In a registry that is not the
    managed one, it reads only the repositories that promotions filled.

    A problem of one object is counted, logged and passed to `report` as a sentence, and does not stop the others. The
    next crawl tries the object again. Raises RegistryUnavailable when the registry as a whole does not answer.
    """
    registry = Registry.objects.get(pk=registry_id)
    crawler = _Crawler(registry, client_for(registry), report)
    if repository_name is not None:
        names = [repository_name]
    elif registry.is_managed:
        names = list(crawler.client.repositories())
        # A repository without tags may no longer be in the catalog.
        known = Repository.objects.filter(registry=registry, tags__image__isnull=False).distinct()
        names += sorted(set(known.values_list("name", flat=True)) - set(names))
    else:  # the rest of its catalog is not ours
        targets = Repository.objects.filter(registry=registry, environment__isnull=False)
        names = sorted(targets.values_list("name", flat=True))
    for number, name in enumerate(names, start=1):
        progress(number - 1, len(names), name)
        crawler.read_tags(name, alive=partial(progress, number - 1, len(names), name))
        crawler.counts["repositories"] += 1
    crawler.check_untagged(repository_name, alive=partial(progress, len(names), len(names), ""))
    progress(len(names), len(names), "")
    Registry.objects.filter(pk=registry.pk).update(crawled_at=clock.now())
    return crawler.counts


@dataclass(slots=True)
class _Crawler:
    """One crawl of a registry: what it counted, and whom it tells of problems."""

    registry: Registry
    client: RegistryClient
    report: Callable[[str], None]
    counts: dict[str, int] = field(
        default_factory=lambda: {"repositories": 0, "tags": 0, "ingested": 0, "deleted": 0, "problems": 0}
    )

    def read_tags(self, name: str, *, alive: Callable[[], None]) -> None:
        """Store all new, moved and deleted tags of one repository."""
        ours = {}
        repository = Repository.objects.filter(registry=self.registry, name=name).first()
        if repository is not None:
            live = Tag.objects.filter(repository=repository, image__isnull=False)
            ours = dict(live.values_list("name", "image__digest"))
        theirs = self._guarded(name, lambda: self.client.tags(name))
        if theirs is None:
            return
        for tag in theirs:
            self.counts["tags"] += 1
            alive()
            is_read = self._guarded(f"{name}:{tag}", partial(self._read_tag, name, tag, ours.get(tag), alive=alive))
            self.counts["ingested"] += is_read or 0
        if repository is None:
            return
        for tag in sorted(set(ours) - set(theirs)):
            note = partial(note_tag, self.registry, self.client, repository, tag)
            self.counts["deleted"] += self._guarded(f"{name}:{tag}", note) or 0

    def check_untagged(self, repository_name: str | None, *, alive: Callable[[], None]) -> None:
        """Check a random sample of untagged images in the registry, and record those that were deleted.

        The sample is random because a fixed order needs a stored position. Sooner or later every image is checked.
        """
        tagged = Tag.objects.filter(repository=OuterRef("repository"), image=OuterRef("image"))
        members = RepositoryImage.objects.filter(~Exists(tagged), repository__registry=self.registry, removed_at=None)
        if repository_name is not None:
            members = members.filter(repository__name=repository_name)
        for member in members.select_related("repository", "image").defer(*_HEAVY).order_by("?")[:UNTAGGED_CHECKS]:
            alive()
            where = f"{member.repository.name}@{member.image.digest}"
            forget = partial(_forget_if_gone, self.client, member.repository, member.image.digest)
            self.counts["deleted"] += self._guarded(where, forget) or 0

    def _read_tag(self, name: str, tag: str, known: str | None, *, alive: Callable[[], None]) -> bool:
        """Store the tag when it is new or has moved, and return whether that was so."""
        try:
            if known is None and _lists_referrers(self.client, name, tag):
                ingest_referrers(self.registry, self.client, name, tag, alive=alive)
                return False
            content = _changed(self.client, name, tag, known)
            if content is None:
                return False
            ingest_manifest(
                self.registry.pk,
                name,
                content.digest.text,
                tag=tag,
                via=TagEvent.Via.CRAWL,
                client=self.client,
                alive=alive,
            )
        except ManifestUnknown:
            return False  # deleted after the tags were listed
        return True

    def _guarded(self, where: str, work: Callable[[], Result]) -> Result | None:
        """Return what `work` returns. Count and report its problem, and return None, when it fails.

        Only what concerns more than this object goes on to the caller: a registry or a database that does not answer,
        and a lost lease.
        """
        try:
            return work()
        except (LeaseLost, OperationalError, InterfaceError):
            raise
        except LifecycleError as error:
            if isinstance(error, RegistryUnavailable):
                self.client.check()
            code, message = error.error_code, error.message
        except Exception as error:  # content from outside: whatever it breaks, the others are read
            log.exception("crawl_crashed", where=where)
            code, message = "crashed", f"{type(error).__name__}: {error}"
        self.counts["problems"] += 1
        log.warning("crawl_problem", where=where, code=code)
        self.report(f"{where}: {message}")
        return None


def _forget_if_gone(client: RegistryClient, repository: Repository, digest: str) -> bool:
    if client.resolve(repository.name, digest) is not None:
        return False
    return forget_manifest(repository, digest, actor=None)


def _changed(client: RegistryClient, name: str, tag: str, known: str | None) -> ManifestContent | None:
    if known is None:
        return client.get_manifest(name, tag)
    return client.get_manifest_if_changed(name, tag, Digest.parse(known))


@transaction.atomic
def queue_crawl(registry: Registry, *, repository_name: str = "", actor: User | None = None) -> Job:
    """Queue a crawl of a registry or of one repository, and return its job. An equal waiting job is reused."""
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
    """Revert the move of a protected tag to `digest`, if it still points there and no user was named for the move.

    The waiting time has passed only for this move, seen at `seen_at`. Other changes in the repository wait for their
    own time. If the tag has moved since, its present state is a later move. Raises as `ingest_manifest`.
    """
    registry = Registry.objects.get(pk=registry_id)
    client = client_for(registry)
    now = client.resolve(repository_name, tag)
    if now is None or now.digest.text != digest:
        return  # a notification or the next crawl reports the present state
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


def _is_present(registry: Registry, repository_name: str, digest: str) -> bool:
    """Return whether our rows have the digest in this repository: the registry has served it there before."""
    return RepositoryImage.objects.filter(
        repository__registry=registry, repository__name=repository_name, image__digest=digest, removed_at=None
    ).exists()


def _stored_manifest(digest: str) -> ManifestContent | None:
    """Return the stored bytes of a manifest whose rows are complete, or None when it must be fetched."""
    row = Image.objects.filter(digest=digest).only("digest", "kind", "media_type", "manifest", "config").first()
    if row is None or not row.manifest or (row.kind == Image.Kind.MANIFEST and not row.config):
        return None
    return ManifestContent(Digest(row.digest), row.media_type, bytes(row.manifest))
