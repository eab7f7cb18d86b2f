"""The result that a box leaves is copied without trust: no links, no devices, no holes, no other documents."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from lifecycle.rebuild.builders import keeper
from lifecycle.rebuild.builders.keeper import BAD_RESULT, Refused

LIMIT = 1_000_000


class Result:
    """An OCI layout as a box leaves it, with one layer."""

    def __init__(self, folder):
        self.folder, self.target = folder / "disk", folder / "out"
        self.blobs = self.folder / "result" / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.layer = self.blob(b"layer")
        self.write()

    def blob(self, content):
        name = hashlib.sha256(content).hexdigest()
        (self.blobs / name).write_bytes(content)
        return f"sha256:{name}"

    def write(self, **more):
        config = self.blob(json.dumps({"rootfs": {"diff_ids": [self.layer]}} | more.get("config", {})).encode())
        manifest = {"config": {"digest": config}, "layers": [{"digest": self.layer}]} | more.get("manifest", {})
        self.manifest = self.blob(json.dumps(manifest).encode())
        index = {"manifests": [{"digest": self.manifest}]} | more.get("index", {})
        (self.folder / "result" / "index.json").write_text(json.dumps(index))

    def copy(self, *, known=()):
        self.target.mkdir(exist_ok=True)
        keeper._copy_out(self.folder, self.target, limit=LIMIT, known=frozenset(known))
        return sorted(path.read_bytes() for path in (self.target / "result" / "blobs" / "sha256").iterdir())

    def path(self, digest):
        return self.blobs / digest.removeprefix("sha256:")


@pytest.fixture
def result(tmp_path):
    (tmp_path / "outside").write_text("of the machine")
    return Result(tmp_path)


def test_result_is_copied_without_the_layers_of_its_bases(result):
    assert b"layer" in result.copy()


def test_known_layer_is_not_copied(result):
    assert b"layer" not in result.copy(known=[result.layer])


def test_link_to_a_file_of_the_machine_is_not_followed(result, tmp_path):
    path = result.path(result.layer)
    path.unlink()
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(Refused) as refused:
        result.copy()
    assert refused.value.code == BAD_RESULT
    assert not list(result.target.rglob(path.name))


@pytest.mark.parametrize("name", ["result", "result/blobs", "result/blobs/sha256", "result/index.json"])
def test_link_in_place_of_a_part_is_not_followed(result, tmp_path, name):
    moved = tmp_path / "moved"
    (result.folder / name).rename(moved)
    (result.folder / name).symlink_to(moved)
    with pytest.raises(Refused):
        result.copy()


def test_pipe_in_place_of_a_layer_is_refused_without_waiting(result):
    path = result.path(result.layer)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Refused, match="no regular file"):
        result.copy()


def test_layer_with_a_huge_hole_is_refused(result):
    os.truncate(result.path(result.layer), 100 * LIMIT)
    with pytest.raises(Refused, match="larger than its disk"):
        result.copy()


def test_huge_document_is_refused(result):
    os.truncate(result.folder / "result" / "index.json", 1 << 40)
    with pytest.raises(Refused, match="larger than"):
        result.copy()


@pytest.mark.parametrize(
    "more",
    [
        {"index": {"manifests": []}},
        {"index": {"manifests": [{"digest": "sha256:" + "a" * 64}] * 2}},
        {"index": {"manifests": [{"digest": "sha256:../../../outside"}]}},
        {"index": {"manifests": [{"digest": "sha256:" + "A" * 64}]}},
        {"index": {"manifests": "x"}},
        {"manifest": {"config": {"digest": "../outside"}}},
        {"manifest": {"config": []}},
        {"manifest": {"layers": [{"digest": "sha256:/etc/shadow"}]}},
        {"manifest": {"layers": []}},
        {"config": {"rootfs": {}}},
        {"config": {"rootfs": {"diff_ids": [["x"]]}}},
    ],
)
def test_document_that_names_other_files_is_refused(result, more):
    result.write(**more)
    with pytest.raises(Refused) as refused:
        result.copy()
    assert refused.value.code == BAD_RESULT


def test_result_that_is_no_json_is_refused(result):
    (result.folder / "result" / "index.json").write_bytes(b"\xff{")
    with pytest.raises(Refused):
        result.copy()
