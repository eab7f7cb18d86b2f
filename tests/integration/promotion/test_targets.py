"""Only promotions change a target. Other tag moves are detected, reverted and reported."""

from __future__ import annotations

import pytest

from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.ingest import services as ingest
from lifecycle.jobs.models import Job
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Repository, Tag, TagEvent
from lifecycle.registry.services import ensure_managed_registry
from tests.factories import dock, oci
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db
TARGET = "dev/shop/api"
FIRST, SECOND = oci.image("base", "first"), oci.image("base", "second")


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> InMemoryRegistry:
    """The managed registry in memory. The target has the first image as `1.0`, then the second as `current`."""
    registry = InMemoryRegistry()
    answer_with(registry, monkeypatch)
    team = dock.team("shop")
    environment = create_environment(team, actor=system_user(), slug="dev", name="Dev", prefix="dev")
    for item, tag in ((FIRST, "1.0"), (SECOND, "1.1")):
        oci.push(registry, "shop/api", item)
        oci.push(registry, TARGET, item, tag)
        oci.push(registry, TARGET, item, "current")
        for name in (tag, "current"):
            store(item, name, via=TagEvent.Via.PROMOTION)
        promoted(environment, item, tag, PromotionRequest.State.SUCCEEDED)
    return registry


def store(item: oci.OciImage, tag: str, *, via: str, actor: str | None = None, settled: bool = False) -> None:
    ingest.ingest_manifest(
        ensure_managed_registry().pk,
        TARGET,
        item.manifest.digest.text,
        tag=tag,
        actor_name=actor,
        via=via,
        is_settled=settled,
    )


def promoted(environment: Environment, item: oci.OciImage, tag: str, state: str) -> PromotionRequest:
    image, family = Image.objects.get(digest=item.manifest.digest.text), Repository.objects.get(name="shop/api")
    is_final = state == PromotionRequest.State.SUCCEEDED
    if is_final:
        Slot.objects.update_or_create(
            repository=family, environment=environment, defaults={"image": image, "tag": tag, "since": clock.now()}
        )
    return PromotionRequest.objects.create(
        image=image, repository=family, environment=environment, tag=tag, state=state, requested_by=system_user(),
        reason="x", approve_by=clock.now(), finished_at=clock.now() if is_final else None,
    )  # fmt: skip


def names(registry: InMemoryRegistry, tag: str) -> tuple[str, str]:
    """Return the digests of a target tag in the registry and in the rows."""
    held = registry.resolve(TARGET, tag)
    assert held is not None
    return held.digest.text, Tag.objects.get(repository__name=TARGET, name=tag).image.digest


@pytest.mark.parametrize("actor", ["gravingdock", None])
@pytest.mark.parametrize(("item", "tag"), [(FIRST, "current"), (FIRST, "1.1"), (SECOND, "1.0")])
def test_tag_move_without_promotion_is_reverted(
    shelf: InMemoryRegistry, item: oci.OciImage, tag: str, actor: str | None
) -> None:
    before = names(shelf, tag)
    oci.push_manifest(shelf, TARGET, item.manifest, tag)
    store(item, tag, via=TagEvent.Via.PUSH, actor=system_user().username if actor else None)
    assert names(shelf, tag) == before
    refused = AuditEvent.objects.get(action="tag.move_refused")
    assert (refused.repository, refused.digest) == (TARGET, item.manifest.digest.text)
    assert refused.reason == "Only promotions can change this repository. No promotion made this change."


def test_tag_move_during_promotion_waits_for_its_end(shelf: InMemoryRegistry) -> None:
    request = promoted(Environment.objects.get(), FIRST, "1.0", PromotionRequest.State.EXECUTING)
    oci.push_manifest(shelf, TARGET, FIRST.manifest, "current")
    store(FIRST, "current", via=TagEvent.Via.PUSH, actor=system_user().username)
    first, second = FIRST.manifest.digest.text, SECOND.manifest.digest.text
    assert names(shelf, "current") == (first, second)  # neither reverted nor accepted yet
    assert Job.objects.filter(kind="crawl").exists()
    store(FIRST, "current", via=TagEvent.Via.PROMOTION)
    assert names(shelf, "current") == (first, first)
    services.fail(request, why="No.")
    assert not AuditEvent.objects.filter(action="tag.move_refused").exists()


def test_tag_left_by_failed_promotion_is_reverted(shelf: InMemoryRegistry) -> None:
    request = promoted(Environment.objects.get(), FIRST, "1.0", PromotionRequest.State.EXECUTING)
    oci.push_manifest(shelf, TARGET, FIRST.manifest, "current")
    services.fail(request, why="The registry went away.")
    ingest.crawl(ensure_managed_registry().pk, repository_name=TARGET)
    assert names(shelf, "current") == (SECOND.manifest.digest.text,) * 2


def test_expected_tag_is_accepted(shelf: InMemoryRegistry) -> None:
    for tag, item in (("current", SECOND), ("1.0", FIRST)):
        Tag.objects.filter(repository__name=TARGET, name=tag).update(
            image=Image.objects.exclude(digest=item.manifest.digest.text).filter(kind="manifest").first()
        )
        store(item, tag, via=TagEvent.Via.PUSH)
        assert names(shelf, tag) == (item.manifest.digest.text,) * 2
