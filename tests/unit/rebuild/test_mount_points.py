"""What builders leave where they mounted something is cut out of a layer, and nothing else is touched."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from lifecycle.core.types import Digest
from lifecycle.oci.chains import TRAPS
from lifecycle.rebuild.builders import mount_points

MOUNTED = {"etc/pip.conf", "etc/apt/mirrors", "etc/hosts"}


def tar(*entries, form=tarfile.PAX_FORMAT):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
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
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_empty_mount_points_go_with_the_folders_made_for_them(tmp_path, pack, form):
    long = "srv/" + "x" * 150
    raw = tar(
        ("etc/", None), ("etc/apt/", None), ("etc/apt/mirrors/", None), ("etc/pip.conf", b""), ("etc/hosts", b""),
        ("srv/", None), (long, b"kept" * 1000), form=form,
    )  # fmt: skip
    found = cleaned(tmp_path, pack(raw))
    assert [(name, size) for name, size, _ in found] == [("srv", 0), (long, 4000)]
    assert {int(mtime) for _, _, mtime in found} == {1_700_000_000}


def test_what_the_recipe_put_there_stays(tmp_path):
    raw = tar(
        ("etc", None), ("etc/pip.conf", b"[global]\n"), ("etc/apt", None), ("etc/apt/mirrors", None),
        ("etc/apt/mirrors/a.list", b"x"), ("etc/hosts", b""), ("srv", None), ("empty", b""),
    )  # fmt: skip
    assert [name for name, _, _ in cleaned(tmp_path, raw)] == [
        "etc", "etc/pip.conf", "etc/apt", "etc/apt/mirrors", "etc/apt/mirrors/a.list", "srv", "empty",
    ]  # fmt: skip


def test_a_layer_without_any_is_left_as_it_is(tmp_path):
    assert cleaned(tmp_path, tar(("etc", None), ("etc/passwd", b""), ("etc/apt", None))) is None


def test_a_layer_of_nothing_else_becomes_the_empty_layer_that_tells_nobody_apart(tmp_path):
    path = tmp_path / "layer"
    path.write_bytes(tar(("etc", None), ("etc/hosts", b"")))
    result = mount_points.remove(path, MOUNTED)
    assert Digest.of(result.read_bytes()).text in TRAPS
