"""The embedded builder with real buildah, a registry and a shell inside the build."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import orjson
import pytest

from lifecycle.core.errors import LeaseLost, Malformed
from lifecycle.core.types import Digest
from lifecycle.rebuild.builders import buildah, output, settings_files
from lifecycle.rebuild.builders.settings_files import SYSTEM_BUNDLE
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


def build(client, text, *, repository, bases=None, context=None, log=None, check=lambda: None):
    request = BuildRequest(
        containerfile=text,
        context=context,
        build_args={},
        bases=bases or {},
        repository=repository,
        tag="1",
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


def test_build_keeps_base_layer_digests_and_pushes_by_digest(client, tmp_path):
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
    assert {layer["mediaType"] for layer in above["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    assert above["annotations"] == {"org.opencontainers.image.base.name": "base"}
    assert client.resolve("shop/two", "1").digest == Digest.parse(derived)


PROBE = """\
FROM base/shell:1
COPY probe /probe
RUN sh /probe
"""


def test_machine_settings_reach_the_build_but_not_the_image_or_log(
    client, settings, tmp_path, shell_folder, monkeypatch
):
    """Search everything that is written: configuration, history, labels, manifest, layers and log."""
    bundle = tmp_path / "machines-own-bundle.pem"
    bundle.write_text(CANARY)
    settings.BUILD_CA_BUNDLE = str(bundle)
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret@packages.internal.example/simple")
    monkeypatch.setattr(settings_files, "mirrors", lambda: {"debian": ["http://mirror.internal.example/debian"]})
    base_text = f'{SHELL}RUN ["/bin/sh", "-c", "mkdir -p /etc/ssl/certs; echo own > {SYSTEM_BUNDLE}"]\n'
    base = build(client, base_text, repository="base/shell", context=shell_folder)
    context = tmp_path / "context"
    context.mkdir()
    # The recipe itself contains none of the words, so no output may contain them.
    (context / "probe").write_text(
        "set -e\nenv | grep -q ^https_[p]roxy=http\ncat /etc/apt/mirrors/*.list\ngrep -q user: /etc/pip.conf\n"
        "bundle=$(sed -n 's/^cert = //p' /etc/pip.conf)\ngrep -q 'C[A]NARY' $bundle\n"
        f"grep -q 'C[A]NARY' {SYSTEM_BUNDLE}\ngrep -q $bundle /etc/apt/apt.conf.d/*\n"
        # each of the three variables, whatever its name: no output may contain the words
        'test "$(env | grep -c "=$bundle\\$")" = 3\necho seen-by-the-build\n'
    )
    log: list[str] = []
    bases = {"base/shell:1": f"base/shell@{base}"}
    digest = build(client, PROBE, repository="shop/leak", context=context, log=log, bases=bases)
    assert "seen-by-the-build" in log
    assert "http://<mirror>/debian" in log
    document = manifest_of(client, "shop/leak", digest)
    config = client.get_blob("shop/leak", Digest.parse(document["config"]["digest"]), max_bytes=10**6)
    names, contents = files_of(client, "shop/leak", document["layers"])
    assert [name for name in names if name.startswith("etc/")] == ["etc/ssl", "etc/ssl/certs", SYSTEM_BUNDLE[1:]]
    written = [*log, config.decode(), orjson.dumps(document).decode(), *names, *contents]
    words = ("internal.example", "user:secret", "CANARY", "/dev/gravingdock", "gravingdock/ca.pem", bundle.name,
             "https_proxy", "127.0.0.1:3128", "PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS",
             str(tmp_path))  # fmt: skip
    for word in words:
        assert not [text for text in written if word in text], word


def test_extra_bundle_is_trusted_and_a_missing_one_is_named(settings, tmp_path):
    extra = tmp_path / "extra.pem"
    settings.BUILD_CA_BUNDLE = str(extra)
    with pytest.raises(Malformed, match=r"The file of BUILD_CA_BUNDLE does not exist: .*extra\.pem"):
        settings_files.write(tmp_path / "settings")
    extra.write_text(CANARY)
    settings_files.write(tmp_path / "settings")
    written = (tmp_path / "settings" / "ca.pem").read_bytes()
    assert written.endswith(CANARY.encode())
    assert Path(SYSTEM_BUNDLE).read_bytes() in written
    settings.BUILD_CA_BUNDLE = ""
    settings_files.write(tmp_path / "settings")
    assert CANARY.encode() not in (tmp_path / "settings" / "ca.pem").read_bytes()


def files_of(client, repository, layers):
    """Return (names in order, contents of all files) of some layers."""
    names, contents = [], []
    for layer in layers:
        blob = io.BytesIO()
        client.fetch_blob(repository, Digest.parse(layer["digest"]), blob)
        assert Digest.of(blob.getvalue()).text == layer["digest"]
        blob.seek(0)
        with tarfile.open(fileobj=blob) as archive:
            for entry in archive:
                names.append(entry.name.rstrip("/"))
                if entry.isfile() and (stream := archive.extractfile(entry)) is not None:
                    contents.append(stream.read().decode(errors="replace"))
    return names, contents


@pytest.mark.parametrize("words", ["apt-get install -y ca-certificates", "apt-get -y dist-upgrade"])
def test_bundle_that_the_recipe_may_replace_is_not_mounted(client, tmp_path, shell_folder, words):
    base_text = f'{SHELL}RUN ["/bin/sh", "-c", "mkdir -p /etc/ssl/certs; echo own > {SYSTEM_BUNDLE}"]\n'
    base = build(client, base_text, repository="base/shell", context=shell_folder)
    log: list[str] = []
    text = f"FROM base/shell:1\n# {words}\nRUN echo new > /n && mv /n {SYSTEM_BUNDLE} && cat {SYSTEM_BUNDLE}\n"
    build(client, text, repository="shop/certs", log=log, bases={"base/shell:1": f"base/shell@{base}"})
    assert "new" in log


def test_log_of_verbose_build_is_truncated_and_build_continues(client, shell_folder, monkeypatch):
    monkeypatch.setattr(output, "LOG_LINES_MAX", 50)
    log: list[str] = []
    text = f'{SHELL}RUN ["/bin/sh", "-c", "seq 1 5000; head -c 300000 /dev/zero | tr -c x y"]\n'
    build(client, text, repository="shop/talk", context=shell_folder, log=log)
    assert (len(log), log[-1]) == (50, "The log has more than 50 lines. The rest is not stored.")


def test_build_cannot_read_secrets_or_other_processes(client, services, shell_folder):
    log: list[str] = []
    text = f'{SHELL}RUN ["/bin/sh", "-c", "env; ls /mnt; ls /proc | grep -c ^[0-9]"]\n'
    build(client, text, repository="shop/box", context=shell_folder, log=log)
    output = "\n".join(log)
    for name in ("SECRET_KEY", "DATABASE_URL", "TOKEN_KEY", str(services.home)):
        assert name not in output


def test_failed_build_reports_the_reason(client, shell_folder):
    with pytest.raises(BuildFailed, match="exit status 7"):
        build(client, f'{SHELL}RUN ["/bin/sh", "-c", "exit 7"]\n', repository="shop/bad", context=shell_folder)


def test_build_stops_when_its_job_is_lost(client, shell_folder):
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


def test_here_documents_are_built(client, shell_folder):
    text = (
        f"{SHELL}ARG V=1\nCOPY --chmod=600 <<EOF /d/file\nFROM base/none\nversion $V\nEOF\n"
        "RUN <<EOF\nset -e\ngrep -qx 'version 1' /d/file\ncat /d/file > /copy\nEOF\n"
    )
    digest = build(client, text, repository="shop/here", context=shell_folder)
    names, contents = files_of(client, "shop/here", manifest_of(client, "shop/here", digest)["layers"])
    assert {"d/file", "copy"} <= set(names)
    assert contents.count("FROM base/none\nversion 1\n") == 2
