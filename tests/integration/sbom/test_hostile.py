"""Images made to break the scanner: nothing leaves the scan's own folder, and each limit ends the scan by name."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.core.scratch import folder
from lifecycle.core.types import Digest
from lifecycle.oci.constants import MediaType
from lifecycle.oci.types import ManifestContent
from lifecycle.sbom import scanner
from tests.factories import oci
from tests.fakes.registry import InMemoryRegistry

METADATA = b"Metadata-Version: 2.1\nName: requests\nVersion: 2.25.0\n"
GOOD = ("usr/lib/python3/dist-packages/requests-2.25.0.dist-info/METADATA", METADATA)


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> tuple[bytes, bytes]:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for made, content in members:
            archive.addfile(made, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), 1, mtime=0), raw.getvalue()


def image(*layers: tuple[bytes, bytes]) -> oci.OciImage:
    diff_ids = [oci.sha(raw) for _, raw in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config_bytes = json.dumps(config).encode()
    about = {"mediaType": MediaType.OCI_CONFIG.value, "digest": oci.sha(config_bytes), "size": len(config_bytes)}
    entries = [{"mediaType": oci.GZIP_LAYER, "digest": oci.sha(packed), "size": len(packed)} for packed, _ in layers]
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": MediaType.OCI_MANIFEST.value, "config": about, "layers": entries}
    ).encode()
    blobs = {oci.sha(packed): packed for packed, _ in layers} | {oci.sha(config_bytes): config_bytes}
    manifest = ManifestContent(Digest.of(content), MediaType.OCI_MANIFEST.value, content)
    return oci.OciImage(manifest, config, blobs, diff_ids)


@pytest.fixture
def scan(tmp_path: Path, settings: object) -> Callable[[oci.OciImage], list[str]]:
    """Scan an image in a folder of its own; gives the names of what was found."""
    settings.SCRATCH = str(tmp_path / "scratch")

    def run(item: oci.OciImage) -> list[str]:
        shelf = InMemoryRegistry()
        oci.push(shelf, "shop/hostile", item)
        with folder("scan") as scratch:
            layout = scratch / "image"
            layout.mkdir()
            layers = scanner.write_layout(shelf, "shop/hostile", item.manifest, layout, alive=lambda: None)
            document = scanner.run_syft(layout, scratch, lambda: None)
            content = scanner.read_document(document, item.diff_ids, layers)
        return [package.purl for package in content.packages]

    return run


def test_paths_links_and_devices_lead_nowhere(scan: Callable[[oci.OciImage], list[str]], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "METADATA").write_bytes(METADATA.replace(b"requests", b"stolen"))
    up = "../" * 30
    info = "usr/lib/python3/dist-packages/{}-1.dist-info"
    hostile = layer(
        member(f"{up}{victim}/written", b"x"),
        member(f"{victim}/written", b"x"),
        member("out", type=tarfile.SYMTYPE, linkname=str(victim)),
        member("out/written", b"x"),
        member(info.format("a"), type=tarfile.SYMTYPE, linkname=str(victim)),
        member(info.format("b") + "/METADATA", type=tarfile.SYMTYPE, linkname=f"{up}{victim}/METADATA"),
        member(info.format("c") + "/METADATA", type=tarfile.LNKTYPE, linkname=f"{up}{victim}/METADATA"),
        member("circle", type=tarfile.SYMTYPE, linkname="circle"),
        member("dev/zero", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("pipe", type=tarfile.FIFOTYPE),
        member("nested.tar.gz", gzip.compress(gzip.compress(b"x" * 100_000))),
        member(*GOOD),
    )
    found = scan(image(hostile, layer(member("etc/x", b"x"))))
    assert found == ["pkg:pypi/requests@2.25.0"]
    assert sorted(path.name for path in victim.iterdir()) == ["METADATA"]
    assert [path for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(("limit", "words"), [("FILE_MAX", "syft failed with"), ("SCRATCH_MAX", "wrote more than")])
def test_a_bomb_ends_the_scan_and_leaves_nothing(
    scan: Callable[[oci.OciImage], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, words: str
) -> None:
    monkeypatch.setattr(scanner, limit, 50 * 1024**2)
    monkeypatch.setattr(scanner, "_CHECK_EVERY_S", 0.02)
    bomb = image(layer(member("zeros", bytes(400 * 1024**2)), member(*GOOD)))
    with pytest.raises(scanner.ScanFailed, match=words):
        scan(bomb)
    assert [path for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == []


def test_a_scan_sees_no_network_no_secret_and_is_bounded(
    scan: Callable[[oci.OciImage], list[str]], tmp_path: Path, settings: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not scanner._without_network():
        pytest.skip("the kernel lets this process make no network namespace")
    seen, program = tmp_path / "seen", tmp_path / "syft"
    program.write_text(
        f"#!/bin/sh\n{{ cat /proc/net/dev | sed 1,2d | cut -d: -f1; ulimit -v; env; }} > {seen}\n"
        f'exec {scanner.syft_path()} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("SECRET_CANARY", "x")
    settings.SYFT = str(program)
    assert scan(image(layer(member(*GOOD)))) == ["pkg:pypi/requests@2.25.0"]
    lines = [line.strip() for line in seen.read_text().splitlines()]
    assert lines[:2] == ["lo", str(scanner.MEMORY_MAX // 1024)]
    names = {line.partition("=")[0] for line in lines[2:]}
    assert not names & {"SECRET_CANARY", "DATABASE_URL", "SECRET_KEY", "REDIS_URL", "FIELD_KEY"}
