"""Find the layer that added each package, also in untrusted tar files."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
import zstandard

from lifecycle.core.errors import LimitExceeded
from lifecycle.oci import layer_files
from lifecycle.sbom import layers
from lifecycle.sbom.layers import package_of_path, package_records


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
    assert package_records([first, second, None, third]).positions == {
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
    assert package_records(layers).positions == {("apk", "musl"): 0, ("apk", "busybox"): 1, ("apk", "curl"): 3}


def test_too_large_alpine_database_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "DATABASE_MAX", 10)
    with pytest.raises(LimitExceeded):
        package_records([apk_layer(tmp_path, "1", "P:musl\nV:1.2.4-r2\n\n")])


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
    assert package_records([truncated, other, valid]).positions["deb", "tar"] == 2


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
        package_records([bomb])


def test_extended_header_that_claims_huge_size_is_refused(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 4 * 1024**3
    file = tmp_path / "pax"
    file.write_bytes(header.tobuf() + bytes(1024))
    with pytest.raises(LimitExceeded):
        package_records([file])


def test_file_that_claims_an_endless_size_is_refused_at_once(tmp_path):
    member = tarfile.TarInfo("huge")
    member.size = 2**60
    layer = tmp_path / "layer.tar"
    layer.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(LimitExceeded, match="claims more than"):
        package_records([layer])


def packed(tmp_path, name, content, pack):
    file = tmp_path / name
    file.write_bytes(pack(content))
    return file


def in_frames(content):
    """Return zstd as zstd:chunked writes it: several frames, then one that readers skip."""
    frames = [zstandard.compress(content[start : start + 700]) for start in range(0, len(content), 700)]
    return b"".join(frames) + b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


def skippable_first(content):
    return b"\x5a\x2a\x4d\x18\x04\x00\x00\x00abcd" + zstandard.compress(content)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress, in_frames, skippable_first])
def test_layers_are_read_in_each_compression(tmp_path, pack):
    info = "var/lib/dpkg/info/"
    plain = [
        tar(tmp_path, "1", f"{info}libc6.list", f"{info}zlib1g.list", packed=False).read_bytes(),
        tar(tmp_path, "2", f"{info}curl.list", packed=False).read_bytes(),
    ]
    files = [packed(tmp_path, f"packed{number}", content, pack) for number, content in enumerate(plain)]
    assert package_records(files).positions == {("deb", "libc6"): 0, ("deb", "zlib1g"): 0, ("deb", "curl"): 1}


def test_zstd_bomb_is_refused(tmp_path, monkeypatch):
    header = tarfile.TarInfo("big")
    header.size = 2_000_000
    bomb = packed(tmp_path, "bomb", header.tobuf() + bytes(header.size), zstandard.compress)
    assert bomb.stat().st_size < 1000
    monkeypatch.setattr(layers, "UNPACKED_MAX", 1_000_000)
    with pytest.raises(LimitExceeded):
        package_records([bomb])


def test_zstd_frame_that_needs_too_much_memory_is_not_read(tmp_path):
    """The header of a frame says how much memory it needs: here 1 GiB, of which the limit is 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    valid = tar(tmp_path, "valid", "var/lib/dpkg/info/tar.list", packed=False).read_bytes()
    file = tmp_path / "wide"
    file.write_bytes(packer.compress(valid) + packer.flush())
    assert package_records([file]).positions == {}
    with file.open("rb") as layer, pytest.raises(zstandard.ZstdError, match="memory"):
        layer_files.unpacked(layer).read(10)


def files_layer(tmp_path, name, files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    file = tmp_path / name
    file.write_bytes(zstandard.compress(raw.getvalue()))
    return file


def test_owners_of_files_come_from_lists_sums_and_databases(tmp_path):
    wanted = {"usr/lib/python3/a.egg-info", "usr/lib/b.jar", "usr/lib/c", "opt/d", "usr/share/e"}
    first = files_layer(
        tmp_path,
        "1",
        {
            "var/lib/dpkg/info/python3-a.list": "/.\n/usr\n/usr/lib/python3/a.egg-info\n/usr/share/other\n",
            "./var/lib/dpkg/info/libb:amd64.list": "/lib/b.jar\n/opt/d\n",
            "var/lib/dpkg/status.d/base": "Package: base\n",
            "var/lib/dpkg/status.d/base.md5sums": "d41d8cd98f00b204e9800998ecf8427e  usr/lib/c\n",
        },
    )
    second = files_layer(
        tmp_path,
        "2",
        {
            "var/lib/dpkg/info/libb:amd64.list": "/lib/b.jar\n",  # the upgrade has no /opt/d
            "lib/apk/db/installed": "P:e\nV:1-r0\nF:usr/share\nR:e\nF:opt\nR:x\n\n",
        },
    )
    records = package_records([first, second], wanted)
    assert records.owners == {
        "usr/lib/python3/a.egg-info": ("deb", "python3-a"),
        "usr/lib/b.jar": ("deb", "libb"),
        "usr/lib/c": ("deb", "base"),
        "usr/share/e": ("apk", "e"),
    }
    assert package_records([first, second]).owners == {}
