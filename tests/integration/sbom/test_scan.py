"""A scan job end to end: a real registry, a real syft, an image whose layers are known."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from datetime import timedelta

import pytest

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.core.errors import DiskFull, RegistryRefused, RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.jobs import running, services
from lifecycle.jobs.kinds import kind_called
from lifecycle.jobs.models import Job
from lifecycle.oci.client import ManifestUnknown
from lifecycle.oci.constants import MediaType
from lifecycle.oci.types import ManifestContent
from lifecycle.policy.facts import LicenceFacts, Need
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Layer, Registry, Repository, RepositoryImage
from lifecycle.sbom import queries, scanner
from lifecycle.sbom.models import ImageLicences, Sbom
from tests.factories import dock, oci

STATUS = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\nSource: {}\nMaintainer: x\n\n"


def layer(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue(), mtime=0), raw.getvalue()


def debian_image():
    info = "var/lib/dpkg/info/"
    tar_old, curl = STATUS.format("tar", "1.34-1", "tar"), STATUS.format("libcurl4", "7.88.1-10", "curl (7.88.1-9)")
    made = [
        layer({"etc/os-release": 'ID=debian\nVERSION_ID="12"\n', "var/lib/dpkg/status": tar_old + curl,
               f"{info}tar.list": "/bin/tar\n", f"{info}libcurl4:amd64.list": "/usr/lib/x\n"}),
        layer({"var/lib/dpkg/status": STATUS.format("tar", "1.35-1", "tar") + curl, f"{info}tar.list": "/bin/tar\n"}),
        layer({"usr/lib/python3/dist-packages/requests-2.25.0.dist-info/METADATA":
               "Metadata-Version: 2.1\nName: requests\nVersion: 2.25.0\nLicense: Apache 2.0\n"}),
    ]  # fmt: skip
    diff_ids = [oci.sha(raw) for _, raw in made]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config_bytes = json.dumps(config).encode()
    content = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_MANIFEST.value,
            "config": {"mediaType": MediaType.OCI_CONFIG.value, "digest": oci.sha(config_bytes),
                       "size": len(config_bytes)},
            "layers": [{"mediaType": oci.GZIP_LAYER, "digest": oci.sha(p), "size": len(p)} for p, _ in made],
        }
    ).encode()  # fmt: skip
    blobs = {oci.sha(packed): packed for packed, _ in made} | {oci.sha(config_bytes): config_bytes}
    return oci.OciImage(
        ManifestContent(Digest.of(content), MediaType.OCI_MANIFEST.value, content), config, blobs, diff_ids
    )


@pytest.fixture
def place(services, transactional_db, settings):
    services.need_registry()
    settings.REGISTRY_URL = services.registry.url
    Registry.objects.create(name="managed", endpoint=services.registry.url, is_managed=True)
    return dock.repository("shop/scanned")


def known(repository, item):
    image = Image.objects.create(
        digest=item.manifest.digest.text, kind=Image.Kind.MANIFEST, media_type=item.manifest.media_type, layer_count=3
    )
    for position, diff_id in enumerate(item.diff_ids):
        Layer.objects.create(image=image, position=position, diff_id=diff_id)
    RepositoryImage.objects.create(repository=repository, image=image)
    return image


def scan(image):
    job = services.queue(kind_called("scan"), subject_id=image.pk, actor=system_user(), max_attempts=1)
    running.run(job.pk)
    job.refresh_from_db()
    return job


def test_a_scan_stores_packages_with_the_layer_that_brought_them(place):
    item = debian_image()
    oci.push(client_for(place.registry), place.name, item, "1")
    image = known(place, item)
    job = scan(image)
    assert job.state == Job.State.SUCCEEDED, job.last_error
    image.refresh_from_db()
    assert (image.distro, image.scan_problem, image.package_count) == ("debian-12", "", 3)
    held = {
        h.package.name: (h.package.version, h.layer_position, h.package.source_name) for h in queries.packages_of(image)
    }
    assert held["tar"][:2] == ("1.35-1", 1)
    assert held["libcurl4"] == ("7.88.1-10", 0, "curl")
    assert held["requests"][:2] == ("2.25.0", 2)
    document = json.loads(zlib.decompress(bytes(Sbom.objects.get(image=image).document)))
    assert document["descriptor"]["name"] == "syft"
    licences = ImageLicences.objects.get(image=image)
    assert (licences.licences, licences.undeclared_count) == ({"Apache 2.0": ["requests"]}, 2)  # tar and libcurl4
    (facts,) = facts_of_images([(image, place, None)], {Need.LICENCES})
    assert facts.licences == LicenceFacts({"Apache 2.0": {"requests"}}, 2)
    match = Job.objects.get(kind="match")
    assert len(match.payload["package_ids"]) == 3
    before = image.scanned_at
    assert scan(image).state == Job.State.SUCCEEDED
    image.refresh_from_db()
    assert image.scanned_at == before
    assert Job.objects.filter(kind="match").count() == 1


def test_an_image_that_cannot_be_pulled_says_why_and_stays_unknown(place):
    image = known(place, debian_image())
    RepositoryImage.objects.update(repository=dock.repository("shop/empty"))
    job = scan(image)
    assert job.state == Job.State.FAILED
    image.refresh_from_db()
    assert image.scanned_at is None
    assert image.scan_problem


@pytest.mark.django_db
@pytest.mark.parametrize(("minutes", "state", "attempts"), [(0, "waiting", 0), (59, "waiting", 0), (61, "failed", 1)])
def test_a_registry_that_is_away_costs_a_scan_no_attempt_for_an_hour(monkeypatch, minutes, state, attempts):
    image = known(dock.repository("shop/away"), debian_image())
    monkeypatch.setattr("lifecycle.sbom.handlers._read", lambda *_: (_ for _ in ()).throw(RegistryUnavailable("away")))
    job = services.queue(kind_called("scan"), subject_id=image.pk, actor=system_user(), max_attempts=1)
    Job.objects.update(created_at=clock.now() - timedelta(minutes=minutes))
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts, job.last_error) == (state, attempts, "away")
    image.refresh_from_db()
    assert image.scan_problem == ("away" if state == "failed" else "")


def test_a_full_scratch_folder_is_no_fault_of_the_image(tmp_path, monkeypatch):
    program = tmp_path / "syft"
    program.write_text("#!/bin/sh\necho 'write /x: no space left on device' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(scanner, "syft_path", lambda: str(program))
    with pytest.raises(DiskFull, match="SCRATCH"):
        scanner.run_syft(tmp_path, tmp_path, lambda: None)


@pytest.mark.django_db
def test_the_managed_registry_is_asked_first_and_a_foreign_one_only_where_no_other_holds_the_image(monkeypatch):
    foreign = Registry.objects.create(name="mcr", endpoint="https://mcr.example")
    theirs = Repository.objects.create(registry=foreign, name="base/debian", team=dock.team("shop"), family="x")
    image = known(theirs, debian_image())
    asked = []

    def read(run, image, place):
        asked.append(str(place.repository))
        if len(asked) in {2, 3}:
            raise ManifestUnknown("The registry does not have this manifest.")
        raise RegistryRefused("no")

    monkeypatch.setattr("lifecycle.sbom.handlers._read", read)
    scan(image)
    assert asked == ["base/debian"]
    for name in ("shop/old", "shop/api"):
        RepositoryImage.objects.create(repository=dock.repository(name), image=image)
    assert scan(image).last_error == "The registry does not have this manifest."
    assert asked == ["base/debian", "shop/old", "shop/api"]
    image.refresh_from_db()
    assert image.scan_problem == "The registry does not have this manifest."
