"""One odd object in a registry: it gets rows or a named problem, and never stops the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle.core.errors import LifecycleError, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.ingest import services as ingest
from lifecycle.ingest import writing
from lifecycle.ingest.models import Delivery
from lifecycle.jobs import running
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.oci.constants import MediaType
from lifecycle.oci.copying import copy_by_digest
from lifecycle.oci.http_client import fallback_tag
from lifecycle.oci.types import ManifestContent
from lifecycle.registry.models import Image, MissingChild, RepositoryImage, Tag
from lifecycle.registry.services import ensure_managed_registry
from tests.factories import oci
from tests.factories.deliveries import event
from tests.fakes.registry import InMemoryRegistry, blob

pytestmark = pytest.mark.django_db

PUBLIC: Final = Path(__file__).parents[2] / "data" / "manifests"
GOOD: Final = oci.image("good")


def content(document: Any, media_type: str = MediaType.OCI_MANIFEST) -> ManifestContent:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return ManifestContent(Digest.of(raw), media_type, raw)


def serve(registry: InMemoryRegistry, name: str, item: ManifestContent, tag: str = "odd") -> None:
    """Let the registry serve these bytes, whatever they are."""
    registry.manifests[name][item.digest.text] = item
    registry.tags_of[name][tag] = item.digest.text


def build_cache(registry: InMemoryRegistry, name: str) -> ManifestContent:
    """Return an index over a layer and a cache configuration, as BuildKit exports it."""
    entries = [
        blob(registry, name, b"layer", oci.GZIP_LAYER),
        blob(registry, name, b"{}", "application/vnd.buildkit.cacheconfig.v0"),
    ]
    return content({"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}, MediaType.OCI_INDEX)


def crawl() -> tuple[dict[str, int], list[str]]:
    problems: list[str] = []
    return ingest.crawl(ensure_managed_registry().pk, report=problems.append), problems


def digest_of(tag: str, repository: str = "shop/api") -> str | None:
    return Tag.objects.filter(repository__name=repository, name=tag).values_list("image__digest", flat=True).first()


@pytest.fixture
def beside(shelf: InMemoryRegistry) -> InMemoryRegistry:
    """The registry, with a good image in a repository that comes after shop/api."""
    oci.push(shelf, "shop/later", GOOD, "1.0")
    return shelf


def assert_good_is_read() -> None:
    assert digest_of("1.0", "shop/later") == GOOD.manifest.digest.text


def test_cache_export_is_stored_as_artifact_and_its_layers_are_not_fetched(beside: InMemoryRegistry) -> None:
    cache = build_cache(beside, "shop/api")
    oci.push_manifest(beside, "shop/api", cache, "buildcache")
    counts, problems = crawl()
    assert (counts["problems"], problems) == (0, [])
    assert Image.objects.get(digest=cache.digest.text).kind == Image.Kind.ARTIFACT
    assert digest_of("buildcache") == cache.digest.text
    assert not MissingChild.objects.exists()  # a layer is no missing platform
    assert_good_is_read()


def test_push_of_cache_export_ends_its_job(beside: InMemoryRegistry) -> None:
    cache = build_cache(beside, "shop/api")
    oci.push_manifest(beside, "shop/api", cache, "buildcache")
    hint = event(1, cache.digest.text, tag="buildcache")
    hint["target"]["mediaType"] = MediaType.OCI_INDEX.value
    ingest.receive(ensure_managed_registry(), json.dumps({"events": [hint]}).encode())
    job = Job.objects.get(kind="ingest")
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.last_error) == (Job.State.SUCCEEDED, "")


@pytest.mark.parametrize("kind", ["tag", "manifest", "configuration", "repository", "child", "referrer"])
def test_error_500_for_one_object_is_named_and_crawl_goes_on(beside: InMemoryRegistry, kind: str) -> None:
    item = oci.image("app")
    top = oci.index(item)
    oci.push(beside, "shop/api", item, "app")
    oci.push_manifest(beside, "shop/api", top, "all")
    note = oci.artifact(item.manifest, "note")
    oci.push(beside, "shop/api", note)
    oci.attach(beside, "shop/api", note.manifest)
    beside.broken = {
        {
            "tag": "app",
            "manifest": top.digest.text,
            "configuration": json.loads(item.manifest.content)["config"]["digest"],
            "repository": "shop/api",
            "child": item.manifest.digest.text,
            "referrer": note.manifest.digest.text,
        }[kind]
    }
    counts, problems = crawl()
    assert counts["problems"] == len(problems) >= 1
    assert all(line.startswith("shop/api") and "500" in line for line in problems)
    assert_good_is_read()
    beside.broken = set()  # the next crawl reads it
    assert crawl()[1] == []
    assert digest_of("app") == item.manifest.digest.text
    assert Image.objects.filter(digest=note.manifest.digest.text).exists()


def test_crawl_ends_when_the_whole_registry_is_down(beside: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    oci.push(beside, "shop/api", oci.image("app"), "1.0")

    def go_down(repository: str) -> list[str]:
        beside.is_down = True
        raise RegistryUnavailable("No response.")

    monkeypatch.setattr(beside, "tags", go_down)
    with pytest.raises(RegistryUnavailable):
        crawl()
    assert not Tag.objects.exists()


def test_defect_of_ours_for_one_object_does_not_stop_crawl(
    beside: InMemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = oci.image("app")
    oci.push(beside, "shop/api", item, "1.0")
    real = writing._image_of

    def fail(node: Any, *rest: Any) -> Image:
        if node.digest == item.manifest.digest:
            raise ValueError("unexpected")
        return real(node, *rest)

    monkeypatch.setattr(writing, "_image_of", fail)
    counts, problems = crawl()
    assert (counts["problems"], problems) == (1, ["shop/api:1.0: ValueError: unexpected"])
    assert_good_is_read()


def test_crawl_job_and_command_name_each_problem(beside: InMemoryRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    serve(beside, "shop/api", content(b"not JSON"))
    job = ingest.queue_crawl(ensure_managed_registry())
    running.run(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.SUCCEEDED
    assert JobLogLine.objects.filter(job=job, text__startswith="shop/api:odd: ").count() == 1
    call_command("crawl_registry")
    written = capsys.readouterr()
    assert json.loads(written.out)["problems"] == 1
    assert written.err.startswith("shop/api:odd: ")
    beside.is_down = True
    with pytest.raises(CommandError):
        call_command("crawl_registry")


def test_delivery_is_closed_with_its_problem_after_the_last_attempt(beside: InMemoryRegistry) -> None:
    item = oci.image("app")
    oci.push(beside, "shop/api", item, "1.0")
    beside.broken = {item.manifest.digest.text}
    ingest.receive(ensure_managed_registry(), json.dumps({"events": [event(1, item.manifest.digest.text)]}).encode())
    job = Job.objects.get(kind="ingest")
    Job.objects.filter(pk=job.pk).update(attempts=job.max_attempts - 1)
    running.run(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    delivery = Delivery.objects.get()
    assert delivery.handled_at is not None
    assert "500" in delivery.problem


def test_malformed_child_of_index_is_a_missing_platform_and_the_others_are_read(beside: InMemoryRegistry) -> None:
    item, other = oci.image("app"), oci.image("app", architecture="arm64")
    oci.push(beside, "shop/api", item)
    serve(beside, "shop/api", ManifestContent(other.manifest.digest, MediaType.OCI_MANIFEST, b"{}"))
    top = oci.index(item, other)
    serve(beside, "shop/api", top, "1.0")
    del beside.tags_of["shop/api"]["odd"]
    assert crawl()[1] == []
    assert digest_of("1.0") == top.digest.text
    assert Image.objects.filter(digest=item.manifest.digest.text).exists()
    assert MissingChild.objects.get().digest == other.manifest.digest.text  # this keeps the gate closed


@pytest.mark.parametrize("prefix", ["deps-", "main-", "sha-", "md5-", "cache-sha256-"])
@pytest.mark.parametrize("is_index", [False, True])
def test_tag_that_ends_in_a_hash_is_a_tag_like_any_other(shelf: InMemoryRegistry, prefix: str, is_index: bool) -> None:
    item, tag = oci.image("app"), prefix + oci.sha(b"lock file").partition(":")[2]
    oci.push(shelf, "shop/api", item)
    wanted = oci.index(item) if is_index else item.manifest
    oci.push_manifest(shelf, "shop/api", wanted, tag)
    crawl()
    assert digest_of(tag) == wanted.digest.text


@pytest.mark.parametrize("is_index", [False, True])
def test_image_under_the_name_of_a_list_of_referrers_is_a_tag(shelf: InMemoryRegistry, is_index: bool) -> None:
    item, tag = oci.image("app"), fallback_tag(GOOD.manifest.digest)
    oci.push(shelf, "shop/api", item)
    wanted = oci.index(item) if is_index else item.manifest
    oci.push_manifest(shelf, "shop/api", wanted, tag)
    crawl()
    assert digest_of(tag) == wanted.digest.text


def test_list_of_referrers_is_no_tag_and_its_entries_are_read(shelf: InMemoryRegistry) -> None:
    item = oci.image("attestation")
    oci.push(shelf, "shop/api", item)
    entry = {"mediaType": MediaType.OCI_MANIFEST, "digest": item.manifest.digest.text, "size": 1}
    listed = content({"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": [entry]}, MediaType.OCI_INDEX)
    serve(shelf, "shop/api", listed, fallback_tag(GOOD.manifest.digest))
    crawl()
    assert not Tag.objects.exists()
    assert Image.objects.filter(digest=item.manifest.digest.text).exists()


@pytest.mark.parametrize("suffix", [".sig", ".att", ".sbom"])
def test_tag_of_a_subject_belongs_to_the_subject(shelf: InMemoryRegistry, suffix: str) -> None:
    oci.push(shelf, "shop/api", oci.image("signature"), fallback_tag(GOOD.manifest.digest) + suffix)
    crawl()
    assert not Tag.objects.exists()
    assert Image.objects.exists()


def test_long_annotation_is_stored_short_and_its_manifest_whole(shelf: InMemoryRegistry) -> None:
    item = oci.image("app", annotations={"bundle": "x" * 200_000, "short": "y"}, labels={"long": "z" * 100_000})
    oci.push(shelf, "shop/api", item, "1.0")
    assert crawl()[1] == []
    image = Image.objects.get()
    assert image.annotations["short"] == "y"
    assert image.annotations["bundle"].endswith("x... (200000 characters)")
    assert bytes(image.manifest) == item.manifest.content
    assert len(image.config["config"]["Labels"]["long"]) == 100_000


# --- Knowing a digest is no proof of presence ---------------------------------------------------------------------


def test_event_counts_only_when_that_repository_serves_the_digest(shelf: InMemoryRegistry) -> None:
    oci.push(shelf, "shop/secret", GOOD, "1.0")
    digest = GOOD.manifest.digest.text
    ingest.ingest_manifest(ensure_managed_registry().pk, "shop/secret", digest, tag="1.0")
    hint = event(1, digest)  # names shop/api
    ingest.receive(ensure_managed_registry(), json.dumps({"events": [hint]}).encode())
    running.run(Job.objects.get(kind="ingest").pk)
    assert list(RepositoryImage.objects.values_list("repository__name", flat=True)) == ["shop/secret"]
    assert "does not have this manifest" in Delivery.objects.get().problem
    oci.push(shelf, "shop/api", GOOD)  # now it serves it
    ingest.receive(ensure_managed_registry(), json.dumps({"events": [{**hint, "id": "2"}]}).encode())
    running.run(Job.objects.filter(kind="ingest").latest("pk").pk)
    assert RepositoryImage.objects.filter(repository__name="shop/api").exists()


def test_index_does_not_bring_children_that_its_repository_does_not_serve(shelf: InMemoryRegistry) -> None:
    oci.push(shelf, "shop/secret", GOOD, "1.0")
    registry = ensure_managed_registry().pk
    ingest.ingest_manifest(registry, "shop/secret", GOOD.manifest.digest.text, tag="1.0")
    top = oci.index(GOOD)
    serve(shelf, "shop/api", top)  # Distribution 3 can be told to accept such an index
    ingest.ingest_manifest(registry, "shop/api", top.digest.text, tag="odd")
    here = RepositoryImage.objects.filter(repository__name="shop/api")
    assert list(here.values_list("image__digest", flat=True)) == [top.digest.text]
    assert MissingChild.objects.get().digest == GOOD.manifest.digest.text
    # Read again elsewhere, the child still does not join the index of shop/api.
    ingest.ingest_manifest(registry, "shop/secret", GOOD.manifest.digest.text)
    assert MissingChild.objects.count() == 1
    oci.push(shelf, "shop/api", GOOD)
    ingest.ingest_manifest(registry, "shop/api", GOOD.manifest.digest.text)
    assert not MissingChild.objects.exists()
    assert here.count() == 2


# --- Any bytes ----------------------------------------------------------------------------------------------------

# Values that break programs: numbers without a double or a bigint, texts that PostgreSQL rejects, wrong types.
ODD: Final = st.sampled_from(
    [
        None, True, 0, -1, 2**63 - 1, 2**63, 10**400, 1e308, 0.5, "", "\x00", "\ud800", "x" * 70_000,
        [], {}, [[]], {"": None},
        "sha256:" + "g" * 64, "sha512:" + "a" * 128, "sha384:" + "a" * 96, "SHA256:" + "A" * 64,
        MediaType.OCI_INDEX.value, MediaType.DOCKER_SCHEMA_1_SIGNED.value, "a/b", "0001-01-01T00:00:00+14:00",
    ]
)  # fmt: skip
KEYS: Final = st.sampled_from(
    ["schemaVersion", "mediaType", "manifests", "layers", "Layers", "config", "subject", "annotations", "urls", "data",
     "artifactType", "platform", "digest", "size", "rootfs", "history", "created", "os", "Labels", "Env"]
)  # fmt: skip


def seeds() -> list[tuple[dict[str, Any], str]]:
    public = [(PUBLIC / name).read_bytes() for name in ("image.json", "attestation.json")]
    documents = [
        (GOOD.manifest.content, MediaType.OCI_MANIFEST),
        (oci.index(GOOD, GOOD, oci.image("arm", architecture="arm64")).content, MediaType.OCI_INDEX),
        (oci.artifact(GOOD.manifest, "note").manifest.content, MediaType.OCI_MANIFEST),
        (public[0], MediaType.DOCKER_MANIFEST),
        (public[1], MediaType.OCI_MANIFEST),
    ]
    return [(json.loads(raw), media_type.value) for raw, media_type in documents]


@st.composite
def odd_documents(draw: st.DrawFn, document: Any) -> Any:
    """Return the document with some values replaced, removed or added anywhere."""
    changed = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        place = changed
        while True:
            inner = place.keys() if isinstance(place, dict) else range(len(place))
            nested = [key for key in inner if isinstance(place[key], dict | list) and place[key]]
            if not nested or not draw(st.booleans()):
                break
            place = place[draw(st.sampled_from(nested))]
        if isinstance(place, dict):
            keys = [*place, draw(KEYS)]
            place[draw(st.sampled_from(keys))] = draw(ODD)
        elif place:
            place[draw(st.integers(0, len(place) - 1))] = draw(ODD)
    return changed


@st.composite
def odd_manifests(draw: st.DrawFn) -> ManifestContent:
    document, media_type = draw(st.sampled_from(seeds()))
    media_type = draw(st.sampled_from([media_type, media_type, media_type, *MediaType, "", "text/plain"]))
    raw = json.dumps(draw(odd_documents(document))).encode()
    kind = draw(st.integers(0, 9))
    if kind == 0:
        raw = draw(st.binary(max_size=200))
    elif kind == 1:  # bytes changed in the middle
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(min_size=1, max_size=8)) + raw[at + draw(st.integers(0, 4)) :]
    return ManifestContent(Digest.of(raw), str(media_type), raw)


@st.composite
def odd_images(draw: st.DrawFn) -> tuple[ManifestContent, bytes]:
    """Return the manifest of an image with an odd configuration, and that configuration."""
    document = draw(st.sampled_from([GOOD.config, json.loads((PUBLIC / "image-config.json").read_bytes())]))
    raw = json.dumps(draw(odd_documents(document))).encode()
    if draw(st.integers(0, 4)) == 0:
        raw = raw.replace(b'"created"', b'"number": 1e999, "created"')
    manifest = json.loads(GOOD.manifest.content)
    manifest["config"].update(digest=oci.sha(raw), size=len(raw))
    return content(manifest), raw


class RolledBack(Exception):
    """Ends one example."""


def check_odd(shelf: InMemoryRegistry, odd: ManifestContent) -> None:
    """Check that the odd object has rows or one named problem, and that the good image is there."""
    shelf.manifests["shop/api"].clear()
    shelf.tags_of["shop/api"].clear()
    oci.push(shelf, "shop/api", GOOD, "1.0")
    serve(shelf, "shop/api", odd)
    try:
        with transaction.atomic():
            _counts, problems = crawl()
            assert digest_of("1.0") == GOOD.manifest.digest.text
            assert_good_is_read()
            is_stored = digest_of("odd") == odd.digest.text
            assert len(problems) == (0 if is_stored else 1), (problems, odd)
            assert not any(kind in text for text in problems for kind in ("Error:", "Exception:"))
            raise RolledBack
    except RolledBack:
        pass


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(odd=odd_manifests())
def test_any_manifest_gets_rows_or_a_problem_and_never_stops_crawl(beside: InMemoryRegistry, odd: Any) -> None:
    check_odd(beside, odd)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(odd=odd_images())
def test_any_configuration_gets_rows_or_a_problem(beside: InMemoryRegistry, odd: Any) -> None:
    manifest, config = odd
    beside.blobs["shop/api"][oci.sha(config)] = config
    check_odd(beside, manifest)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(odd=odd_manifests())
def test_any_referrer_is_copied_unchanged_or_the_copy_fails(odd: Any) -> None:
    registry = InMemoryRegistry()
    oci.push(registry, "shop/api", GOOD, "1.0")
    note = oci.artifact(GOOD.manifest, "note")
    oci.push(registry, "shop/api", note)
    serve(registry, "shop/api", odd, fallback_tag(GOOD.manifest.digest) + ".att")
    try:
        copy_by_digest(
            registry,
            source_repository="shop/api",
            target_repository="dev/shop/api",
            digest=GOOD.manifest.digest,
            tags=["1.0"],
        )
    except LifecycleError:
        is_complete = False
    else:
        is_complete = True
    assert ("1.0" in registry.tags_of["dev/shop/api"]) == is_complete
    if not is_complete:
        return
    copied = registry.get_manifest("dev/shop/api", fallback_tag(GOOD.manifest.digest) + ".att")
    assert (copied.content, copied.media_type) == (odd.content, odd.media_type)


def test_public_image_with_its_attestation_is_read_and_copied(shelf: InMemoryRegistry) -> None:
    image = content((PUBLIC / "image.json").read_bytes(), MediaType.DOCKER_MANIFEST)
    attestation = content((PUBLIC / "attestation.json").read_bytes())
    for item, config in ((image, "image-config.json"), (attestation, "attestation-config.json")):
        shelf.blobs["shop/api"][json.loads(item.content)["config"]["digest"]] = (PUBLIC / config).read_bytes()
        for layer in json.loads(item.content)["layers"]:
            shelf.blobs["shop/api"][layer["digest"]] = b"x" * layer["size"]
    serve(shelf, "shop/api", image, "1.0")
    serve(shelf, "shop/api", attestation, fallback_tag(image.digest) + ".att")
    assert crawl()[1] == []
    assert Image.objects.get(digest=image.digest.text).kind == Image.Kind.MANIFEST
    assert Image.objects.get(digest=attestation.digest.text).kind == Image.Kind.ARTIFACT
    done = copy_by_digest(
        shelf, source_repository="shop/api", target_repository="dev/shop/api", digest=image.digest, tags=["1.0"]
    )
    assert (done.manifests, done.referrers) == (2, 1)
