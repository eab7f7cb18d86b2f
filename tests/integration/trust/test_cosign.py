"""Real cosign verifies what a promotion attaches, with nothing of ours but the public key; also in another registry.

COSIGN names the program. Build it outside the clone: GOBIN=/some/folder go install
github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.models import User
from config.embedded import ports
from lifecycle.core.http import HttpClient
from lifecycle.core.types import Digest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.oci.authorization import SelfIssued
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.copying import merge_fallback
from lifecycle.oci.http_client import HttpRegistryClient, fallback_tag
from lifecycle.oci.manifests import parse_links
from lifecycle.oci.scopes import repository_scope
from lifecycle.oci.signing import sign as sign_token
from lifecycle.promotion import services as promotions
from lifecycle.promotion.signing import PROMOTION
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Registry
from lifecycle.signatures.constants import VSA
from lifecycle.trust import signing
from tests.factories import oci
from tests.factories.dock import carry, package

COSIGN = os.environ.get("COSIGN", "")
ORAS = os.environ.get("ORAS", "")  # copies too, when it is given
pytestmark = pytest.mark.skipif(not COSIGN, reason="COSIGN names no cosign program")


@pytest.fixture
def other_registry(tmp_path: Path) -> Iterator[str]:
    """Start a second registry, open to everybody, and return its host and port."""
    (port,) = ports.scratch(1)
    configuration = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "other")}},
        "http": {"addr": f"{ports.LOOPBACK}:{port}"},
    }
    (tmp_path / "other.yml").write_text(json.dumps(configuration))
    command = ["docker-registry", "serve", str(tmp_path / "other.yml")]
    with (tmp_path / "other.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + 30
        while not ports.is_listening(port):
            assert process.poll() is None, (tmp_path / "other.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"localhost:{port}"
        process.terminate()


@pytest.fixture
def promoted(services: Any, dock: SimpleNamespace, settings: Any, transactional_db: None) -> SimpleNamespace:
    """An image with one package, promoted into dev by the job, in a real registry, while two keys sign."""
    services.need_registry()
    settings.REGISTRY_URL = services.registry.url
    Registry.objects.filter(pk=dock.repository.registry_id).update(endpoint=services.registry.url)
    item = oci.image("base", "app")
    Image.objects.filter(pk=dock.image.pk).update(
        digest=item.manifest.digest.text, manifest=item.manifest.content, config=item.config
    )
    dock.image.refresh_from_db()
    carry(dock.image, 0, package("openssl", "3.0.11-1"))
    client = client_for(Registry.objects.get(pk=dock.repository.registry_id))
    oci.push(client, "shop/api", item, "1.0")
    admin = User.objects.create_superuser("admin", password="dock-side-pass")
    key = signing.create_key("release", actor=admin)
    following = signing.create_key("next", actor=admin)
    digest = item.manifest.digest.text
    request = promotions.request_promotion(dock.repository, digest, dock.dev, actor=dock.requester, reason="release")
    promotions.execute(request.pk, actor=dock.deployer)
    job = Job.objects.get(kind="promote")
    running.run(job.pk)
    request.refresh_from_db()
    job.refresh_from_db()
    assert request.state == "succeeded", job.last_error
    host = services.registry.url.removeprefix("http://")
    return SimpleNamespace(
        request=request, digest=item.manifest.digest, host=host, keys=[key, following], admin=admin, client=client
    )


@pytest.fixture
def cosign(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs cosign, with a public key and no log: (pem, image, arguments, what, *more)."""

    def run(pem: str, image: str, arguments: Sequence[str], what: str, *more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "key.pub").write_text(pem)
        command = [COSIGN, what, "--key", str(tmp_path / "key.pub"), "--insecure-ignore-tlog=true", *more, *arguments]
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "HTTPS_PROXY": "http://127.0.0.1:9"}
        return subprocess.run(
            [*command, image], capture_output=True, text=True, env=environment, timeout=120, check=False
        )

    return run


def predicates(output: str) -> list[dict[str, Any]]:
    """Return the predicates in the envelopes that `cosign verify-attestation` prints, one a line."""
    envelopes = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [json.loads(base64.b64decode(envelope["payload"]))["predicate"] for envelope in envelopes]


def run_oras(source: str, target: str) -> None:
    """Copy an image with all that refers to it, with oras."""
    command = ["cp", "--recursive", "--from-plain-http", "--to-plain-http"]
    done = subprocess.run([ORAS, *command, source, target], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def copied(source: RegistryClient, target: RegistryClient, digest: Digest) -> None:
    """Copy an image, what refers to it and its signature to another registry, as bytes."""
    referrers = source.referrers("dev/shop/api", digest)
    signature = f"{fallback_tag(digest)}.sig"
    for reference in (digest.text, *(entry.digest.text for entry in referrers), signature):
        content = source.get_manifest("dev/shop/api", reference)
        for blob in parse_links(content).blobs:
            data = source.get_blob("dev/shop/api", blob.digest, max_bytes=10_000_000)
            target.upload_blob("mirror/api", blob.digest, data)
        target.put_manifest("mirror/api", reference, content.content, content.media_type)
    merge_fallback(target, "mirror/api", digest, referrers)


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")
def test_cosign_verifies_a_promoted_image_and_its_copy_in_another_registry(
    promoted: SimpleNamespace,
    other_registry: str,
    cosign: Callable[..., subprocess.CompletedProcess[str]],
    settings: Any,
) -> None:
    signing.retire_key("release", actor=promoted.admin)  # what it has signed stays valid
    stranger = signing.create_key("stranger", actor=promoted.admin)
    token = sign_token("admin", [repository_scope("dev/shop/api", "pull")]).text
    settings.OUTBOUND_ALLOW = [other_registry]
    places = [(f"{promoted.host}/dev/shop/api@{promoted.digest}", [f"--registry-token={token}"])]
    other = HttpRegistryClient(f"http://{other_registry}", http=HttpClient(), authorizer=SelfIssued())
    copied(promoted.client, other, promoted.digest)
    places.append((f"{other_registry}/mirror/api@{promoted.digest}", []))
    if ORAS:
        run_oras(places[1][0], f"{other_registry}/second/api:1.0")
        places.append((f"{other_registry}/second/api@{promoted.digest}", []))
    for image, arguments in places:
        for key in promoted.keys:
            verified(partial(cosign, key.public_key, image, arguments), promoted)
        assert cosign(stranger.public_key, image, arguments, "verify").returncode != 0
        assert cosign(stranger.public_key, image, arguments, "verify-attestation", "--type", VSA).returncode != 0


def verified(run: Callable[..., subprocess.CompletedProcess[str]], promoted: SimpleNamespace) -> None:
    """Check that cosign, with one key, verifies the signature and each attestation, and finds no other kind."""
    done = run("verify")
    assert done.returncode == 0, done.stderr
    found = {}
    for kind in (VSA, PROMOTION, "cyclonedx"):
        done = run("verify-attestation", "--type", kind)
        assert done.returncode == 0, (kind, done.stderr)
        (found[kind],) = predicates(done.stdout)
    assert found[VSA]["verificationResult"] == "PASSED"
    assert found[PROMOTION]["promotion"] == promoted.request.pk
    assert found[PROMOTION]["sbom"] == found["cyclonedx"]["serialNumber"]
    assert [entry["name"] for entry in found["cyclonedx"]["components"]] == ["openssl"]
    assert run("verify-attestation", "--type", "spdx").returncode != 0
