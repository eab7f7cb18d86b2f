"""Ingest with all servers running: lost notifications, a database outage and killed workers."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.db import connection

from lifecycle.audit.models import AuditEvent
from lifecycle.core.http import HttpClient
from lifecycle.ingest import services as ingest
from lifecycle.ingest.models import Delivery
from lifecycle.jobs.models import Job
from lifecycle.oci.authorization import SelfIssued
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.registry.models import Image, IndexEntry, Tag, TagEvent
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.sbom import scanner
from lifecycle.sbom.models import Sbom
from tests.factories import dock, oci
from tests.services import Services, wait_until


@pytest.fixture
def client(services: Services) -> Iterator[HttpRegistryClient]:
    services.need_registry()
    http = HttpClient()
    yield HttpRegistryClient(services.registry.url, http=http, authorizer=SelfIssued())
    http.close()


@pytest.mark.django_db(transaction=True)
def test_crawl_of_real_registry_finds_images_without_notifications(
    services: Services, client: HttpRegistryClient
) -> None:
    services.kill("web")  # every notification is lost
    dock.team("lost")
    items = {f"lost/r{number}": oci.image("lost", str(number)) for number in range(5)}
    for name, item in items.items():
        oci.push(client, name, item, "1.0")
    ingest.crawl(ensure_managed_registry().pk)
    assert set(Tag.objects.filter(repository__team__slug="lost").values_list("repository__name", "image__digest")) == {
        (name, item.manifest.digest.text) for name, item in items.items()
    }
    # The registry resends notifications forever. Delete the images, so that the web process of later tests gets none.
    for name, item in items.items():
        client.delete_manifest(name, item.manifest.digest)
    ingest.crawl(ensure_managed_registry().pk)
    assert not Tag.objects.filter(repository__team__slug="lost", image__isnull=False).exists()


def test_database_outage_is_reported_at_once_and_notifications_retried(
    services: Services, transactional_db: None, client: HttpRegistryClient
) -> None:
    dock.team("shop")
    services.need_web()
    item = oci.image("while away")
    hook, realm = f"{services.web_url}/hooks/registry/managed", f"{services.web_url}/auth/token"
    notification = {"headers": {"Authorization": f"Bearer {services.hook_secret}"}, "content": b"{}"}
    assert httpx.post(hook, **notification).status_code == 202
    connection.close()
    services.kill("postgres", signal.SIGINT)
    try:
        started = time.monotonic()
        assert httpx.post(hook, **notification).status_code == 503
        assert httpx.post(hook, content=b"{}").status_code == 401
        assert (
            httpx.post(hook, **{**notification, "content": iter([b" " * 65536] * 17)}).status_code == 413
        )  # sent in chunks
        assert httpx.get(realm, auth=("anna", "gdk_pat_x")).status_code == 503  # the failure cannot be counted
        assert time.monotonic() - started < 10  # 0.1 s on an idle machine
        oci.push(client, "shop/away", item, "1.0")
    finally:
        services.need_postgres()
    wait_until(lambda: Delivery.objects.filter(handled_at=None).exists(), 30)
    assert httpx.post(hook, **{**notification, "content": iter([b"{}", b" "])}).status_code == 202
    (delivery,) = Delivery.objects.filter(handled_at=None)
    ingest.handle_delivery(delivery.pk)
    assert Tag.objects.get().image.digest == item.manifest.digest.text


def test_killed_ingest_happens_exactly_once(live_stack: Services, client: HttpRegistryClient) -> None:
    dock.team("shop")
    live_stack.kill("builder")  # scans wait
    pushed: list[str] = []
    # Stop before the first write, with half of the rows written, and with all committed but the delivery still open.
    for table in ("lifecycle_image", "lifecycle_auditevent", "lifecycle_delivery"):
        layers = [f"{table} {number}" for number in range(8)]
        children = [oci.image(*layers), oci.image(*layers, architecture="arm64")]
        top = oci.index(*children)
        pushed.extend(content.digest.text for content in (*(item.manifest for item in children), top))
        for item in children:
            oci.push(client, f"shop/{table}", item)
        wait_until(lambda: Image.objects.filter(digest__in=pushed).count() == len(pushed) - 1, 60)
        wait_until(is_ingested, 60)
        live_stack.kill("worker")
        oci.push_manifest(client, f"shop/{table}", top, "1.0")
        wait_until(lambda: not is_ingested(), 60)
        with live_stack.held(table) as is_waited_for:
            live_stack.need_workers("worker")
            wait_until(is_waited_for, 60)
            live_stack.kill("worker")
        live_stack.need_workers("worker")
        wait_until(is_ingested, 60)
        assert Tag.objects.get(repository__name=f"shop/{table}").image.digest == top.digest.text
    once = Counter(pushed)
    assert Counter(Image.objects.values_list("digest", flat=True)) == once
    assert Counter(AuditEvent.objects.filter(action="image.pushed").values_list("digest", flat=True)) == once
    assert (TagEvent.objects.count(), IndexEntry.objects.count()) == (3, 6)
    manifests = Image.objects.filter(kind=Image.Kind.MANIFEST)
    assert [image.layers.count() for image in manifests] == [8] * 6
    assert Counter(Job.objects.filter(kind="scan").values_list("subject_id", flat=True)) == Counter(
        manifests.values_list("pk", flat=True)
    )


def test_killed_scan_happens_once_and_leaves_no_files(
    live_stack: Services, client: HttpRegistryClient, tmp_path: Path
) -> None:
    dock.team("shop")
    live_stack.kill("builder")
    slow, began = tmp_path / "syft", tmp_path / "began"
    slow.write_text(f"#!/bin/sh\n[ -e {began} ] || {{ echo $$ > {began}.new; mv {began}.new {began}; sleep 600; }}\n"
                    f'exec {scanner.syft_path()} "$@"\n')  # fmt: skip
    slow.chmod(0o755)
    oci.push(client, "shop/scanned", oci.image("scanned"), "1.0")
    live_stack.need_workers("builder", SYFT=str(slow))
    wait_until(began.exists, 60)
    syft, scratch = int(began.read_text()), live_stack.home / "scratch"
    assert len(list(scratch.glob("gd-*-scan-*"))) == 1
    live_stack.kill("builder")
    wait_until(lambda: not is_running(syft), 10)
    live_stack.need_workers("builder", SYFT=str(slow))
    wait_until(lambda: Image.objects.filter(scanned_at__isnull=False).exists(), 60)
    wait_until(lambda: not Job.objects.filter(kind="scan", state__in=["waiting", "running"]).exists(), 30)
    job = Job.objects.get(kind="scan")
    assert (job.state, job.attempts, Sbom.objects.count()) == (Job.State.SUCCEEDED, 2, 1)
    assert list(scratch.glob("gd-*-scan-*")) == []


def is_ingested() -> bool:
    """Return whether no ingest waits or runs. Fail if one has failed."""
    assert not Job.objects.filter(kind="ingest", state=Job.State.FAILED).exists()
    return not Job.objects.filter(kind="ingest", state__in=(Job.State.WAITING, Job.State.RUNNING)).exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
