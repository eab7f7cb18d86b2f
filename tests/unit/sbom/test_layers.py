"""Find the layer that added each package, also in untrusted tar files."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from lifecycle.core.errors import LimitExceeded
from lifecycle.sbom import layers
from lifecycle.sbom.layers import package_of_path, package_positions


def tar(tmp_path, name, *paths, packed=True):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path in paths:
            archive.addfile(tarfile.TarInfo(path))
    file = tmp_path / name
    file.write_bytes(gzip.compress(raw.getvalue()) if packed else raw.getvalue())
    return file


def test_debian_package_belongs_to_topmost_layer_with_its_record(tmp_path):
    info = "var/lib/dpkg/info/"
    first = tar(tmp_path, "1", f"{info}tar.list", f"{info}libc6:amd64.list", "var/lib/dpkg/status")
    second = tar(tmp_path, "2", f"./{info}tar.list", f"{info}curl.md5sums", packed=False)
    third = tar(tmp_path, "3", "var/lib/dpkg/status.d/base", "var/lib/dpkg/status")
    assert package_positions([first, second, None, third]) == {
        ("deb", "libc6"): 0,
        ("deb", "tar"): 1,
        ("deb", "base"): 3,
    }


def apk_layer(tmp_path, name, text, path="lib/apk/db/installed"):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo(path)
        member.size = len(text.encode())
        archive.addfile(member, io.BytesIO(text.encode()))
    file = tmp_path / name
    file.write_bytes(gzip.compress(raw.getvalue()))
    return file


def test_alpine_package_belongs_to_first_layer_with_its_entry(tmp_path):
    musl, busybox = "C:Q1a\nP:musl\nV:1.2.4-r2\nF:lib\n\n", "C:Q1b\nP:busybox\nV:1.36.1-r5\n\n"
    layers = [
        apk_layer(tmp_path, "1", musl + busybox + "C:Q1c\nP:gone\nV:1-r0\n\n"),
        apk_layer(tmp_path, "2", musl + busybox.replace("r5", "r7") + "C:Q1d\nP:curl\nV:8.5.0-r0\n\n"),
        tar(tmp_path, "3", "etc/x"),
        # Installed again in the same version: the control data differ, so it is another copy. Newer path of the file.
        apk_layer(
            tmp_path,
            "4",
            musl + busybox.replace("r5", "r7") + "C:Q1e\nP:curl\nV:8.5.0-r0\n\n",
            "./usr/lib/apk/db/installed",
        ),
    ]
    assert package_positions(layers) == {("apk", "musl"): 0, ("apk", "busybox"): 1, ("apk", "curl"): 3}


def test_too_large_alpine_database_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "DATABASE_MAX", 10)
    with pytest.raises(LimitExceeded):
        package_positions([apk_layer(tmp_path, "1", "P:musl\nV:1.2.4-r2\n\n")])


@pytest.mark.parametrize(
    "path", ["var/lib/dpkg/info/../tar.list", "x/var/lib/dpkg/info/tar.list", "var/lib/dpkg/info/a/tar.list", ""]
)
def test_other_path_belongs_to_no_package(path):
    assert not package_of_path(path)


def test_broken_layer_is_skipped(tmp_path):
    truncated, valid = tmp_path / "truncated", tar(tmp_path, "valid", "var/lib/dpkg/info/tar.list")
    truncated.write_bytes(valid.read_bytes()[:-30])
    other = tmp_path / "other"
    other.write_bytes(b"\x28\xb5\x2f\xfd" + b"x" * 2000)
    assert package_positions([truncated, other, valid])["deb", "tar"] == 2


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(tarfile.TarInfo("x").tobuf() + bytes(3_000_000)))
    header = tarfile.TarInfo("big")
    header.size = 2_000_000
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.addfile(header, io.BytesIO(bytes(header.size)))
    bomb.write_bytes(gzip.compress(raw.getvalue()))
    monkeypatch.setattr(layers, "UNPACKED_MAX", 1_000_000)
    with pytest.raises(LimitExceeded):
        package_positions([bomb])


def test_extended_header_that_claims_huge_size_is_refused(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 4 * 1024**3
    file = tmp_path / "pax"
    file.write_bytes(header.tobuf() + bytes(1024))
    with pytest.raises(LimitExceeded):
        package_positions([file])


def test_file_that_claims_an_endless_size_is_refused_at_once(tmp_path):
    member = tarfile.TarInfo("huge")
    member.size = 2**60
    layer = tmp_path / "layer.tar"
    layer.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(LimitExceeded, match="claims more than"):
        package_positions([layer])
