"""The embedded builder, for real: buildah, a registry, and a shell to run in the build."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import orjson
import pytest

from lifecycle.core.errors import LeaseLost
from lifecycle.core.types import Digest
from lifecycle.rebuild.builders import buildah, settings_files
from lifecycle.rebuild.types import BuildFailed, BuildRequest
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Registry

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the embedded builder needs root for its namespaces"),
]

CANARY = "CANARY-CERTIFICATE-0001"


@pytest.fixture
def client(services, settings):
    services.need_registry()
    (services.home / "scratch").mkdir(exist_ok=True)
    settings.SCRATCH = str(services.home / "scratch")
    registry = Registry.objects.create(name="managed", endpoint=services.registry.url, is_managed=True)
    return client_for(registry)


@pytest.fixture(scope="session")
def shell_folder(tmp_path_factory):
    """A build context with a real shell in it: Debian's busybox-static, taken from its package."""
    folder = tmp_path_factory.mktemp("busybox")
    done = subprocess.run(
        ["apt-get", "download", "-q", "busybox-static"], cwd=folder, capture_output=True, text=True, check=False
    )
    packages = list(folder.glob("*.deb"))
    if done.returncode != 0 or not packages:
        pytest.skip("busybox-static cannot be downloaded here: " + done.stderr[-200:])
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(folder / "root")], check=True)
    context = folder / "context"
    context.mkdir()
    program = next(path for path in (folder / "root").rglob("busybox") if path.is_file() and os.access(path, os.X_OK))
    shutil.copy(program, context / "busybox")
    return context


def build(client, text, *, repository, bases=None, context=None, log=None, check=lambda: None):
    request = BuildRequest(
        containerfile=text,
        context=context,
        build_args={},
        bases=bases or {},
        repository=repository,
        tag="1",
        labels={"org.opencontainers.image.title": repository},
        annotations={"org.opencontainers.image.base.name": "base"},
    )
    lines = [] if log is None else log
    return buildah.build(request, client, log=lines.append, check=check).digest


def manifest_of(client, repository, digest):
    return orjson.loads(client.get_manifest(repository, digest).content)


SHELL = """\
FROM scratch
COPY busybox /bin/busybox
ENV PATH=/bin
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox mkdir -p /tmp; /bin/busybox --install -s /bin; exit 0"]
"""


def test_a_build_keeps_the_base_layers_under_their_own_digests_and_pushes_by_digest(client, tmp_path):
    (tmp_path / "a").write_text("a")
    base = build(client, "FROM scratch\nCOPY a /a\n", repository="base/one", context=tmp_path)
    derived = build(
        client,
        "FROM base/one:1\nCOPY a /b\n",
        repository="shop/two",
        bases={"base/one:1": f"base/one@{base}"},
        context=tmp_path,
    )
    below, above = manifest_of(client, "base/one", base), manifest_of(client, "shop/two", derived)
    assert above["layers"][:1] == below["layers"]
    assert len(above["layers"]) == 2
    assert above["annotations"] == {"org.opencontainers.image.base.name": "base"}
    assert client.resolve("shop/two", "1").digest == Digest.parse(derived)


def test_settings_of_the_machine_reach_the_build_and_never_the_image_or_the_log(
    client, settings, tmp_path, shell_folder, monkeypatch
):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(CANARY)
    settings.BUILD_CA_BUNDLE = str(bundle)
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret@packages.internal.example/simple")
    monkeypatch.setattr(settings_files, "mirrors", lambda: {"debian": ["http://mirror.internal.example/debian"]})
    log: list[str] = []
    probe = (
        f"grep -q {CANARY} /dev/gravingdock/ca.pem && grep -q cert /etc/pip.conf "
        "&& grep -q internal /etc/apt/mirrors/debian.list && cat /etc/pip.conf && echo seen-by-the-build"
    )
    text = f'{SHELL}RUN ["/bin/sh", "-c", "{probe}"]\n'
    digest = build(client, text, repository="shop/leak", context=shell_folder, log=log)
    assert "seen-by-the-build" in log
    document = manifest_of(client, "shop/leak", digest)
    config = client.get_blob("shop/leak", Digest.parse(document["config"]["digest"]), max_bytes=10**6).decode()
    written = [*log, config.replace(probe, "").replace(probe.replace("&", "\\u0026"), "")]
    for layer in document["layers"]:
        blob = io.BytesIO()
        client.fetch_blob("shop/leak", Digest.parse(layer["digest"]), blob)
        blob.seek(0)
        with tarfile.open(fileobj=blob) as archive:
            for entry in archive:
                assert "gravingdock" not in entry.name
                if entry.name in {"etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"}:
                    assert entry.size == 0  # the mount point that buildah leaves
                elif entry.isfile() and (stream := archive.extractfile(entry)) is not None:
                    content = stream.read()
                    assert CANARY.encode() not in content
                    assert b"internal.example" not in content
    text_written = "\n".join(line for line in written if not line.startswith("STEP"))
    for word in ("internal.example", "user:secret"):
        assert word not in text_written


def test_a_build_sees_no_secret_of_ours_and_no_other_process(client, services, shell_folder):
    log: list[str] = []
    text = f'{SHELL}RUN ["/bin/sh", "-c", "env; ls /mnt; ls /proc | grep -c ^[0-9]"]\n'
    build(client, text, repository="shop/box", context=shell_folder, log=log)
    output = "\n".join(log)
    for name in ("SECRET_KEY", "DATABASE_URL", "TOKEN_KEY", str(services.home)):
        assert name not in output


def test_a_failing_recipe_says_how_it_failed(client, shell_folder):
    with pytest.raises(BuildFailed, match="exit status 7"):
        build(client, f'{SHELL}RUN ["/bin/sh", "-c", "exit 7"]\n', repository="shop/bad", context=shell_folder)


def test_a_build_ends_when_its_job_is_lost(client, shell_folder):
    def lost() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        build(
            client,
            f'{SHELL}RUN ["/bin/sleep", "300"]\n',
            repository="shop/slow",
            context=shell_folder,
            check=lost,
        )
    sleeping = [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists() and b"sleep\x00300" in path.read_bytes()
    ]
    assert sleeping == []
