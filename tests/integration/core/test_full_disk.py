"""A full disk for temporary files: every worker reports it as such, retries, and blames no image."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accounts.queries import system_user
from lifecycle.core import scratch
from lifecycle.core.errors import DiskFull, LifecycleError, Malformed
from lifecycle.jobs import handlers, running
from lifecycle.jobs import services as jobs
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job
from lifecycle.oci.copying import copy_by_digest
from lifecycle.oci.manifests import parse
from lifecycle.oci.types import ManifestDocument
from lifecycle.promotion import handlers as promotion_handlers
from lifecycle.promotion import services as promotions
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild.layers import file_tree_of_layers
from lifecycle.registry.models import Image
from lifecycle.sbom import handlers as scans
from tests.factories import oci
from tests.fakes.registry import InMemoryRegistry, answer_with

FULL = Path("/dev/full")  # every write to it fails as on a full disk


def write_to_full_disk() -> None:
    with FULL.open("wb") as stream:
        stream.write(b"x")


def wrap_and_raise() -> None:
    try:
        write_to_full_disk()
    except OSError:
        raise Malformed("A layer cannot be read.") from None


def run_with(work: Callable[[], None], monkeypatch: pytest.MonkeyPatch, **more: Any) -> Job:
    monkeypatch.setitem(handlers._HANDLERS, "match", lambda run: work())
    job = jobs.queue(kind_called("match"), subject_id=1, actor=system_user(), **more)
    running.run(job.pk)
    job.refresh_from_db()
    return job


@pytest.mark.django_db
@pytest.mark.parametrize("work", [write_to_full_disk, wrap_and_raise])
def test_job_on_full_disk_waits_with_a_reason_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]
) -> None:
    job = run_with(work, monkeypatch)
    assert (job.state, job.error_code) == (Job.State.WAITING, "disk_full")
    assert "Free some space" in job.last_error
    assert job.not_before is not None
    last = run_with(work, monkeypatch, max_attempts=1)
    assert (last.state, last.error_code) == (Job.State.FAILED, "disk_full")


@pytest.mark.django_db
def test_other_errors_of_a_job_keep_their_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def work() -> None:
            raise error

        return work

    codes = [
        run_with(fail(error), monkeypatch, max_attempts=1).error_code
        for error in (OSError(errno.EIO, "broken"), Malformed("odd"), ValueError("ours"))
    ]
    assert codes == ["crashed", "malformed", "crashed"]


def test_full_disk_is_found_behind_any_wrapping() -> None:
    for work in (write_to_full_disk, wrap_and_raise):
        with pytest.raises((OSError, LifecycleError)) as caught:
            work()
        assert isinstance(scratch.disk_full_in(caught.value), DiskFull)
    assert scratch.disk_full_in(OSError(errno.EDQUOT, "quota")) is not None
    assert scratch.disk_full_in(OSError(errno.EACCES, "no")) is None
    assert scratch.disk_full_in(Malformed("odd")) is None


@pytest.mark.django_db
def test_scan_on_full_disk_blames_no_image(
    dock: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    settings.SCRATCH = str(tmp_path)
    registry = InMemoryRegistry()
    item = oci.image("base")
    oci.push(registry, "shop/api", item, "1.0")
    Image.objects.filter(pk=dock.image.pk).update(digest=item.manifest.digest.text, scanned_at=None)
    answer_with(registry, monkeypatch)
    monkeypatch.setattr(scans.scanner, "_blob_path", lambda folder, digest: FULL)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", *rest: real_open(path, mode.replace("x", "w"), *rest))
    job = jobs.queue(kind_called("scan"), subject_id=dock.image.pk, actor=system_user())
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (Job.State.WAITING, "disk_full")
    dock.image.refresh_from_db()
    assert dock.image.scan_problem == ""


def test_copy_on_full_disk_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any) -> None:
    settings.SCRATCH = str(tmp_path)
    registry = InMemoryRegistry()
    registry.mounts = False
    item = oci.image("base")
    oci.push(registry, "shop/api", item, "1.0")
    real_fetch = registry.fetch_blob

    def fetch(repository: str, digest: Any, into: Any, **more: Any) -> int:
        write_to_full_disk()
        return real_fetch(repository, digest, into, **more)

    def copy() -> None:
        copy_by_digest(
            registry,
            source_repository="shop/api",
            target_repository="dev/shop/api",
            digest=item.manifest.digest,
            tags=["1.0"],
        )

    monkeypatch.setattr(registry, "fetch_blob", fetch)
    with pytest.raises(DiskFull):
        copy()
    assert registry.tags("dev/shop/api") == []
    assert list(tmp_path.glob("gd-*")) == []  # nothing is left behind
    monkeypatch.setattr(registry, "fetch_blob", real_fetch)
    copy()
    assert registry.tags("dev/shop/api") == ["1.0"]


@pytest.mark.django_db
def test_promotion_that_met_a_full_disk_can_be_run_again(dock: Any, request_: PromotionRequest) -> None:
    promotions.approve(request_.pk, actor=dock.approver)
    promotions.execute(request_.pk, actor=dock.deployer)
    job = Job.objects.get(kind="promote")
    full = scratch.disk_full()
    Job.objects.filter(pk=job.pk).update(error_code=full.error_code, last_error=full.message)
    job.refresh_from_db()
    promotion_handlers._gave_up(job)
    request_.refresh_from_db()
    assert request_.state == PromotionRequest.State.READY
    assert "Free some space" in request_.failure


def test_rebase_on_full_disk_is_told_apart_from_a_broken_layer(tmp_path: Path, settings: Any) -> None:
    settings.SCRATCH = str(tmp_path)
    registry = InMemoryRegistry()
    item = oci.image("base")
    oci.push(registry, "shop/api", item, "1.0")
    document = parse(item.manifest)
    assert isinstance(document, ManifestDocument)

    class Full(InMemoryRegistry):
        def fetch_blob(self, *args: Any, **more: Any) -> int:
            write_to_full_disk()
            return 0

    with pytest.raises(DiskFull):
        file_tree_of_layers(Full(), "shop/api", document.layers)
    assert file_tree_of_layers(registry, "shop/api", document.layers).entries
