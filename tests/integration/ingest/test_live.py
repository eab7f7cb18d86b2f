"""With everything running: a registry whose notifications are all lost, and a worker that is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lifecycle.core.http import HttpClient
from lifecycle.ingest import services as ingest
from lifecycle.jobs.models import Job, JobKind
from lifecycle.registry.authorization import SelfIssued
from lifecycle.registry.http_client import HttpRegistryClient
from lifecycle.registry.models import Image, Tag
from lifecycle.registry.services import managed_registry
from tests.factories import dock, oci
from tests.services import Services, wait_until


@pytest.fixture
def client(services: Services) -> Iterator[HttpRegistryClient]:
    services.need_registry()
    http = HttpClient()
    yield HttpRegistryClient(services.registry.url, http=http, authorizer=SelfIssued())
    http.close()


@pytest.mark.django_db(transaction=True)
def test_a_crawl_of_a_real_registry_finds_what_no_notification_told(
    services: Services, client: HttpRegistryClient
) -> None:
    services.kill("web")  # every notification is lost
    dock.team("lost")
    items = {f"lost/r{number}": oci.image("lost", str(number)) for number in range(5)}
    for name, item in items.items():
        oci.push(client, name, item, "1.0")
    ingest.crawl(managed_registry().pk)
    assert set(Tag.objects.filter(repository__team__slug="lost").values_list("repository__name", "image__digest")) == {
        (name, item.manifest.digest.text) for name, item in items.items()
    }
    # The registry goes on sending them for ever; the next tests' web process must not be flooded by ours.
    for name, item in items.items():
        client.delete_manifest(name, item.manifest.digest)
    ingest.crawl(managed_registry().pk)
    assert not Tag.objects.filter(repository__team__slug="lost", image__isnull=False).exists()


def test_a_worker_killed_in_the_middle_changes_nothing_in_the_end(
    live_stack: Services, client: HttpRegistryClient
) -> None:
    dock.team("shop")
    managed_registry()
    items = [oci.image("killed", str(number)) for number in range(30)]
    for number, item in enumerate(items):
        oci.push(client, f"shop/k{number}", item, "1.0")
        if number in {5, 15, 25}:
            live_stack.kill("worker")
            live_stack.need_workers()
    digests = {item.manifest.digest.text for item in items}
    wait_until(lambda: Tag.objects.filter(image__digest__in=digests).count() == 30, 60)
    assert Image.objects.filter(digest__in=digests).count() == 30
    assert all(image.layers.count() == 2 for image in Image.objects.filter(digest__in=digests))
    wait_until(lambda: not Job.objects.filter(kind=JobKind.INGEST, state__in=["waiting", "running"]).exists(), 60)
    assert not Job.objects.filter(kind=JobKind.INGEST, state="failed").exists()
