"""Promotion into another registry: a real one with Basic authentication, beside a real managed one.

Distribution always, and go-containerregistry's with and without the referrers API where OTHER_REGISTRY names the
program of tests/programs/other_registry.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.models import User
from config.embedded import ports
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.services import registries
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, NotPermitted
from lifecycle.core.types import Digest
from lifecycle.environments.models import Slot
from lifecycle.ingest import services as ingest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.oci.http_client import fallback_tag
from lifecycle.promotion import release_sets
from lifecycle.promotion import services as promotions
from lifecycle.promotion.environments import change_environment
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.promotion.release_sets import Wanted
from lifecycle.promotion.signing import PROMOTION
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage, TagEvent
from lifecycle.signatures.constants import VSA
from lifecycle.signatures.keys import load_public_key
from lifecycle.trust import signing
from lifecycle.trust.types import Candidate
from lifecycle.trust.verifying import judge, read_documents
from tests.factories import dock as rows
from tests.factories import oci
from tests.proxy import RegistryProxy
from tests.skopeo import skopeo

pytestmark = pytest.mark.django_db
USER, PASSWORD = "robot", "open sesame"
# bcrypt, as Distribution wants it; of PASSWORD.
HTPASSWD = f"{USER}:$2b$04$daECcl2xCcYVswK8MrMtW.DpvqWQ7nYnJXPgcewp5AKuKW5pwHVxW\n"
TARGET = "dev/shop/api"


OTHER_REGISTRY = os.environ.get("OTHER_REGISTRY", "")
not_built = pytest.mark.skipif(not OTHER_REGISTRY, reason="OTHER_REGISTRY does not name tests/programs/other_registry")


@pytest.fixture(
    scope="module",
    params=["distribution", pytest.param("referrers", marks=not_built), pytest.param("fallback", marks=not_built)],
)
def other_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with a password; returns its host and port."""
    folder = tmp_path_factory.mktemp("other")
    (port,) = ports.scratch(1)
    if request.param == "distribution":
        command = distribution(folder, port)
    else:
        options = ["-referrers"] if request.param == "referrers" else []
        command = [OTHER_REGISTRY, *options, f"{ports.LOOPBACK}:{port}", f"{USER}:{PASSWORD}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + 30
        while not ports.is_listening(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"localhost:{port}"
        process.terminate()


def distribution(folder: Path, port: int) -> list[str]:
    """Write the configuration of a plain Distribution with a password file, and return its command."""
    (folder / "htpasswd").write_text(HTPASSWD)
    configuration = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"{ports.LOOPBACK}:{port}"},
        "auth": {"htpasswd": {"realm": "other", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(configuration))
    return ["docker-registry", "serve", str(folder / "config.yml")]


@pytest.fixture
def two(services: Any, dock: SimpleNamespace, settings: Any, other_server: str) -> SimpleNamespace:
    """shop/api with an image, an artifact that refers to it and a reply to that; dev is in the other registry."""
    services.need_registry()
    settings.REGISTRY_URL = settings.REGISTRY_PUBLIC_URL = services.registry.url
    settings.OUTBOUND_ALLOW = (other_server,)
    Registry.objects.filter(pk=dock.repository.registry_id).update(endpoint=services.registry.url)
    dock.repository.registry.refresh_from_db()
    item = oci.image("base", f"app {time.monotonic_ns()}")  # another one in each test: the servers keep theirs
    note = oci.artifact(item.manifest, "note")
    reply = oci.artifact(note.manifest, "reply")
    managed = client_for(dock.repository.registry)
    oci.push(managed, "shop/api", item, "1.0")
    for artifact in (note, reply):
        oci.push(managed, "shop/api", artifact)
        oci.attach(managed, "shop/api", artifact.manifest)
    Image.objects.filter(pk=dock.image.pk).update(
        digest=item.manifest.digest.text, manifest=item.manifest.content, config=item.config
    )
    admin = User.objects.create_superuser("root")
    row = registries.add_registry(
        actor=admin, name="other", endpoint=f"http://{other_server}", without_tls=True, username=USER, password=PASSWORD
    )
    with pytest.raises(NotPermitted):  # the credentials of the site are not the team's
        change_environment(dock.dev.pk, actor=dock.owner, registry="other")
    change_environment(dock.dev.pk, actor=admin, registry="other")
    return SimpleNamespace(
        admin=admin, row=row, digest=item.manifest.digest, note=note.manifest.digest, reply=reply.manifest.digest,
        managed=managed, client=client_for(row), host=other_server, item=item, **vars(dock),
    )  # fmt: skip


def request_and_run(two: SimpleNamespace) -> tuple[PromotionRequest, Job]:
    request = promotions.request_promotion(
        two.repository, two.digest.text, two.dev, actor=two.requester, reason="release"
    )
    return run_again(request, two)


def run_again(request: PromotionRequest, two: SimpleNamespace) -> tuple[PromotionRequest, Job]:
    promotions.execute(request.pk, actor=two.deployer)
    job = Job.objects.filter(kind="promote").latest("pk")
    running.run(job.pk)
    request.refresh_from_db()
    job.refresh_from_db()
    return request, job


def content_of(two: SimpleNamespace) -> dict[str, list[str]]:
    """Return what the target holds: tags, and the referrers of the image."""
    referrers = sorted(entry.digest.text for entry in two.client.referrers(TARGET, two.digest))
    return {"tags": two.client.tags(TARGET), "referrers": referrers}


def test_everything_arrives_is_signed_and_watched(two: SimpleNamespace) -> None:
    key = signing.create_key("release", actor=two.admin)
    request, job = request_and_run(two)
    assert request.state == "succeeded", job.last_error
    # What others see there.
    for reference in ("1.0", "current", two.digest.text):
        found = two.client.resolve(TARGET, reference)
        assert found is not None
        assert found.digest == two.digest
    assert two.note.text in content_of(two)["referrers"]
    assert [entry.digest for entry in two.client.referrers(TARGET, two.note)] == [two.reply]
    where = f"docker://{two.host}/{TARGET}"
    for reference in (":1.0", f":{fallback_tag(two.digest)}.sig"):
        seen = skopeo("inspect", "--tls-verify=false", f"--creds={USER}:{PASSWORD}", "--raw", where + reference)
        assert seen.returncode == 0, seen.stderr
        if reference == ":1.0":
            assert Digest.of(seen.stdout.encode()) == two.digest
    assert skopeo("inspect", "--tls-verify=false", "--raw", f"{where}:1.0").returncode != 0  # without the password
    candidate = Candidate(key.pk, key=load_public_key(key.public_key))
    documents = read_documents(two.client, TARGET, two.item.manifest, lambda: None)
    judged = [judge(document, two.digest, [candidate], now=clock.now()) for document in documents]
    ours = [each for each in judged if each.state == "verified"]
    predicates = {each.predicate_type: each.predicate for each in ours if each.predicate_type}
    assert predicates[VSA]["resourceUri"] == f"{two.host}/{TARGET}@{two.digest}"
    assert PROMOTION in predicates
    # What we know of it.
    target = Repository.objects.get(registry=two.row, name=TARGET)
    assert (target.source, target.environment, target.team) == (two.repository, two.dev, two.team)
    assert dict(target.tags.values_list("name", "image__digest")) == dict.fromkeys(("1.0", "current"), two.digest.text)
    held = set(RepositoryImage.objects.filter(repository=target).values_list("image__digest", flat=True))
    assert held >= set(content_of(two)["referrers"]) | {two.digest.text}
    event = AuditEvent.objects.get(action="promotion.executing")
    assert event.details["target"] == f"{two.host}/{TARGET}"
    assert PASSWORD not in "\n".join(JobLogLine.objects.values_list("text", flat=True))
    # The same job again doubles nothing.
    before = content_of(two)
    PromotionRequest.objects.filter(pk=request.pk).update(state="executing", finished_at=None)
    Job.objects.filter(pk=job.pk).update(state="waiting", not_before=None, finished_at=None)
    running.run(job.pk)
    assert PromotionRequest.objects.get(pk=request.pk).state == "succeeded"
    assert content_of(two) == before
    # Somebody moves a tag there: the next crawl moves it back and reports it.
    stranger = oci.image("base", f"stranger {time.monotonic_ns()}")
    oci.push(two.client, TARGET, stranger, "current")
    oci.push(two.client, "others/app", stranger, "1.0")  # not ours, so not read
    counts = ingest.crawl(two.row.pk)
    assert counts["repositories"] == 1
    moved_back = two.client.resolve(TARGET, "current")
    assert moved_back is not None
    assert moved_back.digest == two.digest
    assert AuditEvent.objects.filter(action="tag.move_refused").count() == 1
    assert TagEvent.objects.filter(tag__repository=target, tag__name="current").latest("pk").via == "protection"
    # What is used stays.
    with pytest.raises(Conflict):
        change_environment(two.dev.pk, actor=two.admin, registry="managed")
    with pytest.raises(Conflict, match="shop/dev"):
        registries.remove_registry(two.row.pk, actor=two.admin)


def test_a_wrong_password_is_named_and_the_request_can_run_again(two: SimpleNamespace) -> None:
    registries.change_registry(two.row.pk, actor=two.admin, password="wrong")
    assert registries.test_registry(two.row.pk, actor=two.admin).problem == "credentials_refused"
    request, job = request_and_run(two)
    assert (request.state, job.state, job.error_code) == ("ready", "failed", "registry_credentials_refused")
    assert "refused our credentials" in request.failure
    registries.change_registry(two.row.pk, actor=two.admin, password=PASSWORD)
    assert registries.test_registry(two.row.pk, actor=two.admin).is_ok
    request, job = run_again(request, two)
    assert request.state == "succeeded", job.last_error


def test_an_unreachable_registry_is_tried_again(two: SimpleNamespace, settings: Any) -> None:
    (closed,) = ports.scratch(1)
    settings.OUTBOUND_ALLOW = (two.host, f"localhost:{closed}")
    Registry.objects.filter(pk=two.row.pk).update(endpoint=f"http://localhost:{closed}")
    assert registries.test_registry(two.row.pk, actor=two.admin).problem == "unreachable"
    request, job = request_and_run(two)
    assert (request.state, job.state, job.error_code) == ("executing", "waiting", "registry_unavailable")
    Registry.objects.filter(pk=two.row.pk).update(endpoint=f"http://{two.host}")
    Job.objects.filter(pk=job.pk).update(not_before=None)
    running.run(job.pk)
    request.refresh_from_db()
    assert request.state == "succeeded"


def test_a_release_set_runs_into_another_registry(two: SimpleNamespace) -> None:
    web = oci.image("base", f"web {time.monotonic_ns()}")
    oci.push(two.managed, "shop/web", web, "1.0")
    place = rows.repository("shop/web", two.team)
    image = ingest.ingest_manifest(two.repository.registry_id, "shop/web", web.manifest.digest.text, tag="1.0")
    Image.objects.filter(pk=image.pk).update(scanned_at=clock.now(), package_count=1)
    key = signing.create_key("release", actor=two.admin)
    wanted = [Wanted(two.repository, digest=two.digest.text, tag="1.0"), Wanted(place, tag="1.0")]
    made = release_sets.request_set(wanted, two.dev, actor=two.requester, reason="release")
    release_sets.execute(made.pk, actor=two.deployer)
    job = Job.objects.get(kind="release")
    running.run(job.pk)
    job.refresh_from_db()
    made.refresh_from_db()
    assert (made.state, job.state) == ("succeeded", "succeeded"), job.last_error
    candidate = Candidate(key.pk, key=load_public_key(key.public_key))
    for target, item in ((TARGET, two.item), ("dev/shop/web", web)):
        digest = item.manifest.digest
        for tag in ("1.0", "current"):
            found = two.client.resolve(target, tag)
            assert found is not None
            assert found.digest == digest
        documents = read_documents(two.client, target, item.manifest, lambda: None)
        judged = [judge(document, digest, [candidate], now=clock.now()) for document in documents]
        assert PROMOTION in {each.predicate_type for each in judged if each.state == "verified"}
        assert two.managed.resolve(target, "current") is None  # not in the managed registry
    assert set(Repository.objects.filter(registry=two.row).values_list("name", flat=True)) >= {TARGET, "dev/shop/web"}


@pytest.fixture
def before(two: SimpleNamespace, settings: Any) -> Iterator[RegistryProxy]:
    """A proxy before the other registry, which our rows name instead of it."""
    proxy = RegistryProxy(f"http://{two.host}")
    settings.OUTBOUND_ALLOW = (two.host, proxy.url.removeprefix("http://"))
    Registry.objects.filter(pk=two.row.pk).update(endpoint=proxy.url)
    yield proxy
    proxy.close()


def is_current(target: str) -> Callable[[str, str], bool]:
    return lambda method, path: (method, path) == ("PUT", f"/v2/{target}/manifests/current")


def held(two: SimpleNamespace, target: str, *tags: str) -> list[Digest | None]:
    """Return what tags of a target point to in the other registry itself."""
    found = [two.client.resolve(target, tag) for tag in tags]
    return [entry.digest if entry is not None else None for entry in found]


def pushed(two: SimpleNamespace, name: str, tag: str) -> Digest:
    """Push a new image that needs no scan, and return its digest."""
    item = oci.image("base", f"{name} {tag} {time.monotonic_ns()}")
    oci.push(two.managed, name, item, tag)
    image = ingest.ingest_manifest(two.repository.registry_id, name, item.manifest.digest.text, tag=tag)
    Image.objects.filter(pk=image.pk).update(scanned_at=clock.now(), package_count=1)
    return item.manifest.digest


def test_a_registry_away_before_the_last_tag_leaves_the_environment_as_it_was(
    two: SimpleNamespace, before: RegistryProxy
) -> None:
    assert request_and_run(two)[0].state == "succeeded"
    newer = pushed(two, "shop/api", "2.0")
    request = promotions.request_promotion(
        two.repository, newer.text, two.dev, actor=two.requester, reason="release", tag="2.0"
    )
    with before.away_from(is_current(TARGET)):
        promotions.execute(request.pk, actor=two.deployer)
        job = Job.objects.filter(kind="promote").latest("pk")
        Job.objects.filter(pk=job.pk).update(max_attempts=1)
        running.run(job.pk)
    request.refresh_from_db()
    assert (request.state, "cannot be reached" in request.failure) == ("ready", True)
    assert Slot.objects.get(repository=two.repository, environment=two.dev).image.digest == two.digest.text
    ingest.crawl(two.row.pk)
    # `2.0` stays: a new tag of the approved digest, which nothing was told to use.
    assert held(two, TARGET, "current", "2.0") == [two.digest, newer]
    request, job = run_again(request, two)  # the decision still counts
    assert request.state == "succeeded", job.last_error
    assert held(two, TARGET, "current", "2.0") == [newer, newer]


def test_a_registry_away_between_the_members_of_a_set_gets_all_of_it_or_nothing(
    two: SimpleNamespace, before: RegistryProxy
) -> None:
    place = rows.repository("shop/web", two.team)
    names = {"shop/api": two.repository, "shop/web": place}
    targets = [f"dev/{name}" for name in names]

    def run_set(tag: str) -> tuple[ReleaseSet, Job, list[Digest | None]]:
        digests: list[Digest | None] = [pushed(two, name, tag) for name in names]
        wanted = [Wanted(where, tag=tag) for where in names.values()]
        made = release_sets.request_set(wanted, two.dev, actor=two.requester, reason="release")
        release_sets.execute(made.pk, actor=two.deployer)
        return made, Job.objects.filter(kind="release").latest("pk"), digests

    def currents() -> list[Digest | None]:
        return [held(two, target, "current")[0] for target in targets]

    first, job, older = run_set("1.0")
    running.run(job.pk)
    first.refresh_from_db()
    assert (first.state, currents()) == ("succeeded", older)
    # It is away when only the tags of the first member have moved. Then it comes back: all of the set arrives.
    second, job, newer = run_set("2.0")
    with before.away_from(is_current(targets[1])):
        running.run(job.pk)
    assert currents() == [newer[0], older[1]]
    job.refresh_from_db()
    assert (job.state, job.error_code) == ("waiting", "registry_unavailable")
    Job.objects.filter(pk=job.pk).update(not_before=None)
    running.run(job.pk)
    second.refresh_from_db()
    assert (second.state, currents()) == ("succeeded", newer)
    # It is away until the attempts are used: when it is back, every tag is put back.
    third, job, newest = run_set("3.0")
    with before.away_from(is_current(targets[1])):
        Job.objects.filter(pk=job.pk).update(max_attempts=1)
        running.run(job.pk)
    assert currents() == [newest[0], newer[1]]
    third.refresh_from_db()
    assert third.state == "reverting"
    running.run(Job.objects.filter(kind="release").latest("pk").pk)
    third.refresh_from_db()
    assert third.state in {"ready", "failed"}
    assert currents() == newer
    assert [held(two, target, "3.0") for target in targets] == [[None], [None]]
