"""Empty mount points that a builder leaves are removed from a layer. All else stays."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from lifecycle.core.types import Digest
from lifecycle.oci.chains import TRAPS
from lifecycle.rebuild.builders import mount_points

MOUNTED = {"etc/pip.conf", "etc/apt/mirrors", "etc/hosts"}


def tar(*entries, tar_format=tarfile.PAX_FORMAT):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tar_format) as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mtime = 1_700_000_000.5  # needs a header of its own in PAX
            if content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def cleaned(tmp_path, raw):
    path = tmp_path / "layer"
    path.write_bytes(raw)
    result = mount_points.remove(path, MOUNTED)
    if result is None:
        return None
    with tarfile.open(result) as archive:
        return [(entry.name, entry.size, entry.mtime) for entry in archive]


@pytest.mark.parametrize("pack", [lambda raw: raw, lambda raw: gzip.compress(raw, mtime=0)])
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_empty_mount_points_and_their_folders_are_removed(tmp_path, pack, tar_format):
    long = "srv/" + "x" * 150
    raw = tar(
        ("etc/", None), ("etc/apt/", None), ("etc/apt/mirrors/", None), ("etc/pip.conf", b""), ("etc/hosts", b""),
        ("srv/", None), (long, b"kept" * 1000), tar_format=tar_format,
    )  # fmt: skip
    found = cleaned(tmp_path, pack(raw))
    assert [(name, size) for name, size, _ in found] == [("srv", 0), (long, 4000)]
    assert {int(mtime) for _, _, mtime in found} == {1_700_000_000}


def test_content_from_the_recipe_is_kept(tmp_path):
    raw = tar(
        ("etc", None), ("etc/pip.conf", b"[global]\n"), ("etc/apt", None), ("etc/apt/mirrors", None),
        ("etc/apt/mirrors/a.list", b"x"), ("etc/hosts", b""), ("srv", None), ("empty", b""),
    )  # fmt: skip
    assert [name for name, _, _ in cleaned(tmp_path, raw)] == [
        "etc", "etc/pip.conf", "etc/apt", "etc/apt/mirrors", "etc/apt/mirrors/a.list", "srv", "empty",
    ]  # fmt: skip


def test_layer_without_mount_points_is_unchanged(tmp_path):
    assert cleaned(tmp_path, tar(("etc", None), ("etc/passwd", b""), ("etc/apt", None))) is None


def test_layer_with_only_mount_points_becomes_an_empty_layer(tmp_path):
    path = tmp_path / "layer"
    path.write_bytes(tar(("etc", None), ("etc/hosts", b"")))
    result = mount_points.remove(path, MOUNTED)
    assert Digest.of(result.read_bytes()).text in TRAPS
