"""Rebase: refused unless it gives what a rebuild would; the merged file tree and the documents are compared whole."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from lifecycle.core.types import Digest
from lifecycle.rebuild import layers, rebase
from tests.fakes.registry import InMemoryRegistry

STATUS = "Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n"
OS = "ID=debian\nVERSION_ID=12\n"
OLD = {"etc/os-release": OS, "var/lib/dpkg/status": STATUS.format(name="openssl", version="1"), "usr/bin/x": "old"}
NEW = {"etc/os-release": OS, "var/lib/dpkg/status": STATUS.format(name="openssl", version="2"), "usr/bin/x": "new!"}

# An ELF header whose one program header lies beyond what is read of a file: it is taken for dynamically linked.
DYNAMIC = (
    b"\x7fELF\x02\x01" + bytes(26) + (10**6).to_bytes(8, "little") + bytes(14)
    + (56).to_bytes(2, "little") + (1).to_bytes(2, "little") + bytes(6)
)  # fmt: skip


def tar(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            if text is None:
                member.type = tarfile.DIRTYPE
            content = text if isinstance(text, bytes) else (text or "").encode()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def put(client, repository, contents, config=None, *, history=True, annotations=None, **more):
    descriptors, diff_ids = [], []
    for files in contents:
        raw = tar(files)
        packed = gzip.compress(raw, mtime=0)
        client.upload_blob(repository, Digest.of(packed), packed)
        descriptors.append(
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest.of(packed).text,
                "size": len(packed),
            }
        )
        diff_ids.append(Digest.of(raw).text)
    document = {
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        **({"history": [{"created_by": f"step {number}"} for number in range(len(contents))]} if history else {}),
        **more,
    }
    content = json.dumps(document).encode()
    client.upload_blob(repository, Digest.of(content), content)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest.of(content).text,
                "size": len(content),
            },
            "layers": descriptors,
            "annotations": annotations or {},
        }
    ).encode()
    digest = client.put_manifest(
        repository, Digest.of(manifest).text, manifest, "application/vnd.oci.image.manifest.v1+json"
    )
    return rebase.load(client, repository, digest)


@pytest.fixture
def client():
    return InMemoryRegistry()


def three(client, own, *, old=OLD, new=NEW, app_config=None, old_config=None, new_config=None, **more):
    return (
        put(client, "shop/static", [old, own], app_config, **more),
        put(client, "base/debian", [old], old_config),
        put(client, "base/debian", [new], new_config),
    )


def test_files_of_its_own_are_put_onto_the_new_base(client):
    app, old, new = three(
        client, {"srv": None, "srv/index.html": "hello"}, author="ann", created="2026-01-02T03:04:05Z",
        annotations={"team": "shop"},
    )  # fmt: skip

    assert rebase.decide(client, app, old, new) == rebase.RebaseDecision(True)
    result = rebase.merge(app, old, new, base_name="localhost:1/base/debian:latest")
    digest = rebase.push(client, result, app, new, tag="new")

    after = rebase.load(client, "shop/static", digest)
    whole = layers.file_tree_of_layers(client, "shop/static", after.layers)
    expected = layers.file_tree_of_layers(client, "base/debian", new.layers)
    expected.add(layers.file_tree_of_layers(client, "shop/static", app.layers[1:]))
    assert whole.entries == expected.entries
    assert after.platform == ("linux", "arm64", "v8")
    assert (after.config["author"], after.config["created"]) == ("ann", "2026-01-02T03:04:05Z")
    assert after.manifest["annotations"] == {
        "team": "shop",
        "org.opencontainers.image.base.name": "localhost:1/base/debian:latest",
        "org.opencontainers.image.base.digest": new.content.digest.text,
    }
    assert rebase.merge(app, old, new, base_name="localhost:1/base/debian:latest").digest == result.digest


def test_no_layer_is_lost_when_the_image_has_no_history(client):
    app, old, new = three(client, {"srv/a": "a"}, history=False)

    config = json.loads(rebase.merge(app, old, new, base_name="").config)

    assert config["rootfs"]["diff_ids"] == [*new.diff_ids, app.diff_ids[1]]
    assert config["history"] == [{"created_by": "step 0"}, {"created_by": "unknown"}]


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({"var/lib/dpkg/status": "x"}, "package database"),
        ({"lib/apk/db/installed": "x"}, "package database"),
        ({"var/lib/dpkg/.wh.status": ""}, "package database"),
        ({"usr/bin/x": "mine"}, "replaces a file of the base (/usr/bin/x)"),
        ({"usr/bin/.wh.x": ""}, "remove /usr/bin/x of the base"),
        ({"opt/.wh..wh..opq": ""}, "remove /opt of the base"),
        ({"opt/tool": b"\x7fELF" + bytes(200)}, None),
        ({"opt/tool": DYNAMIC}, "dynamically linked"),
        ({"usr/lib/python3.11/site-packages/a.py": "a"}, "python3.11"),
        ({"app/node_modules/a.js": "a"}, "Node modules"),
    ],
)
def test_it_is_refused_with_the_reason_when_it_cannot_be_proven(client, own, reason):
    decision = rebase.decide(client, *three(client, own))

    assert decision.is_safe == (reason is None)
    assert reason is None or reason in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({"srv/a": "a"}, None),
        ({"var/lib/dpkg/status": "x"}, "package database"),
        ({"opt/tool": DYNAMIC}, "dynamically linked"),
        ({"opt/.wh.x": ""}, "remove /opt/x of the base"),
        ({"app/node_modules/a.js": "a"}, "Node modules"),
    ],
)
def test_what_its_own_layers_forbid_is_known_before_the_new_base_is_built(client, own, reason):
    app, old, _ = three(client, own)

    decision = rebase.decide(client, app, old, None)

    assert decision.is_safe == (reason is None)
    assert reason is None or reason in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (NEW | {"etc/os-release": "ID=debian\nVERSION_ID=13\n"}, "another release"),
        (NEW | {"var/lib/dpkg/status": STATUS.format(name="curl", version="2")}, "no longer has the package openssl"),
        (NEW | {"srv": "a file now"}, "link or file in a base"),
    ],
)
def test_it_is_refused_when_the_new_base_is_not_like_the_old_one(client, new, reason):
    decision = rebase.decide(client, *three(client, {"srv/a": "a"}, new=new))

    assert not decision.is_safe
    assert reason in " ".join(decision.reasons)


def test_it_is_refused_when_the_base_is_not_below_it(client):
    app, _, new = three(client, {"srv/a": "a"})

    assert not rebase.decide(client, app, new, new).is_safe


def test_settings_are_merged_three_ways(client):
    app, old, new = three(
        client,
        {"srv/a": "a"},
        old_config={"Env": ["PATH=/bin", "SSL=1"], "User": "root", "Labels": {"base": "1"}},
        app_config={"Env": ["PATH=/bin", "SSL=1", "APP=yes"], "User": "www", "Labels": {"base": "1", "a": "b"}},
        new_config={"Env": ["PATH=/bin:/sbin", "SSL=2"], "User": "root", "Labels": {"base": "2"}},
    )

    config = json.loads(rebase.merge(app, old, new, base_name="").config)["config"]

    assert config == {
        "Env": ["PATH=/bin:/sbin", "SSL=2", "APP=yes"],
        "User": "www",
        "Labels": {"base": "2", "a": "b"},
    }


def test_it_is_refused_when_both_changed_one_setting(client):
    app, old, new = three(
        client,
        {"srv/a": "a"},
        old_config={"Env": ["PATH=/bin"]},
        app_config={"Env": ["PATH=/app"]},
        new_config={"Env": ["PATH=/sbin"]},
    )

    assert rebase.decide(client, app, old, new).reasons == (
        "The image and its new base both changed the variable PATH.",
    )


@pytest.mark.parametrize(
    "more",
    [
        {"config": {"Env": [5]}},
        {"config": {"Env": 5}},
        {"config": {"Labels": [1]}},
        {"rootfs": "x"},
    ],
)
def test_a_configuration_of_another_shape_is_a_reason_and_no_crash(more):
    """Anybody may push one; it must not end the plan of all that stands on the base."""
    client = InMemoryRegistry()
    old = put(client, "base", [OLD])
    new = put(client, "base", [NEW])
    app = put(client, "app", [OLD, {"srv/app": "app"}], **more)
    assert not rebase.decide(client, app, old, new).is_safe


def test_files_of_another_shape_are_read_past():
    tree = layers.FileTree()
    text = f"a:x:\u00b2:\nb:x:{'9' * 5000}:\nc:x:7:\n".encode()
    tree.entries["etc/passwd"] = layers.Entry("f", 0o644, 0, 0, len(text), "", False, text)
    assert layers.names_by_number(tree, "etc/passwd") == {7: "c"}
    header = DYNAMIC[:32] + (4093).to_bytes(8, "little") + DYNAMIC[40:54] + b"\x01\x00" + DYNAMIC[56:]
    assert layers.is_dynamic_elf(header + bytes(4096 - len(header)))
