"""Deletion and restoring in a real registry, by the command line."""

from __future__ import annotations

import pytest

from lifecycle.ingest import services as ingest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry, RepositoryImage, Tag
from lifecycle.retention.models import RetentionEntry, RetentionPlan
from tests.factories import dock as rows
from tests.factories import oci
from tests.factories.people import person

pytestmark = pytest.mark.django_db


@pytest.fixture
def registry(services, settings):
    services.need_registry()
    settings.REGISTRY_URL = services.registry.url
    return Registry.objects.create(name="managed", endpoint=services.registry.url, is_managed=True)


def work(kind: str) -> None:
    job = Job.objects.get(kind=kind, state="waiting")
    running.run(job.pk)
    job.refresh_from_db()
    assert job.state == "succeeded", job.last_error


def test_deleted_image_is_gone_and_comes_back_with_its_tags(registry, run):
    team = rows.team("tidy")
    owner, client = person("tidy-owner", team, "owner"), client_for(registry)
    old, new = oci.image("tidy-old"), oci.image("tidy-new")
    for image, tags in ((old, ("1.0", "old")), (new, ("2.0",))):
        for tag in tags:
            digest = oci.push(client, "tidy/api", image, tag)
            ingest.ingest_manifest(registry.pk, "tidy/api", digest.text, tag=tag, client=client)
    gone = Tag.objects.get(name="old").image.digest
    assert run(owner, "retention", "rules", "--repository", "tidy/api", "--keep-last", "1")[0] == 0
    code, out, err = run(owner, "retention", "plan", "--repository", "tidy/api")
    assert (code, "Not one of the last 1 images" in out) == (0, True), err
    plan = RetentionPlan.objects.get()
    assert (plan.delete_count, plan.keep_count) == (1, 1)
    assert plan.freed_bytes > 0

    assert run(owner, "retention", "confirm", f"RP-{plan.pk}")[0] == 0
    work("retention")
    assert [client.resolve("tidy/api", name) for name in ("1.0", "old", gone)] == [None, None, None]
    assert client.resolve("tidy/api", "2.0") is not None
    assert not RepositoryImage.objects.filter(image__digest=gone, removed_at=None).exists()

    oci.push(client, "tidy/api", new, "old")  # meanwhile, somebody uses this tag again
    assert run(owner, "retention", "restore", f"RP-{plan.pk}", gone)[0] == 0
    work("restore")
    assert client.resolve("tidy/api", "1.0").digest.text == gone
    assert client.resolve("tidy/api", "old").digest.text != gone
    assert RepositoryImage.objects.get(image__digest=gone).removed_at is None
    assert Tag.objects.get(name="1.0").image.digest == gone
    assert RetentionEntry.objects.get(image__digest=gone).state == "restored"


def test_image_whose_layers_were_collected_is_lost(registry, run):
    """Its blobs are gone: here, the rows of an image that this registry never had."""
    repository = rows.repository("tidy/web", rows.team("tidy"))
    owner = person("tidy-owner", repository.team, "owner")
    content = oci.image("tidy-lost").manifest
    lost = Image.objects.create(
        digest=content.digest.text, kind="manifest",
        media_type=content.media_type, manifest=content.content,
    )  # fmt: skip
    RepositoryImage.objects.create(repository=repository, image=lost)
    assert run(owner, "retention", "rules", "--team", "tidy", "--untagged-days", "0")[0] == 0
    assert run(owner, "retention", "plan", "--team", "tidy")[0] == 0
    plan = RetentionPlan.objects.get()
    assert run(owner, "retention", "confirm", plan.pk)[0] == 0
    work("retention")
    assert run(owner, "retention", "restore", plan.pk)[0] == 0
    work("restore")
    entry = RetentionEntry.objects.get()
    assert entry.state == "lost"
    assert "collector" in entry.note
