"""Rebase: allowed only if it gives the same result as a rebuild. File trees and documents are compared completely."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from lifecycle.core.errors import LimitExceeded, Malformed, MalformedManifest
from lifecycle.core.types import Digest
from lifecycle.rebuild import documents, layers, rebase
from tests.fakes.registry import InMemoryRegistry

STATUS = "Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n"
OS = "ID=debian\nVERSION_ID=12\n"
OLD = {"etc/os-release": OS, "var/lib/dpkg/status": STATUS.format(name="openssl", version="1"), "usr/bin/x": "old"}
NEW = {"etc/os-release": OS, "var/lib/dpkg/status": STATUS.format(name="openssl", version="2"), "usr/bin/x": "new!"}

# An ELF header whose only program header is beyond the bytes that are read. It counts as dynamically linked.
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
    steps = [{"created_by": f"step {number}"} for number in range(len(contents))]
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
        **({"history": steps if history is True else history} if history else {}),
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
    return documents.load(client, repository, digest)


@pytest.fixture
def client():
    return InMemoryRegistry()


def image_with_bases(client, own, *, old=OLD, new=NEW, app_config=None, old_config=None, new_config=None, **more):
    return (
        put(client, "shop/static", [old, own], app_config, **more),
        put(client, "base/debian", [old], old_config),
        put(client, "base/debian", [new], new_config),
    )


def test_own_layers_are_put_on_new_base(client):
    app, old, new = image_with_bases(
        client, {"srv": None, "srv/index.html": "hello"}, author="ann", created="2026-01-02T03:04:05Z",
        annotations={"team": "shop"},
    )  # fmt: skip

    assert rebase.decide(client, app, old, new) == rebase.RebaseDecision(True)
    result = rebase.merge(app, old, new, base_name="localhost:1/base/debian:latest")
    digest = rebase.push(client, result, app, new, tag="new")

    after = documents.load(client, "shop/static", digest)
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


def test_image_without_history_keeps_all_layers(client):
    app, old, new = image_with_bases(client, {"srv/a": "a"}, history=False)

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
def test_rebase_is_refused_with_reason_when_unsafe(client, own, reason):
    decision = rebase.decide(client, *image_with_bases(client, own))

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
def test_own_layers_are_checked_before_new_base_exists(client, own, reason):
    app, old, _ = image_with_bases(client, own)

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
def test_rebase_is_refused_when_new_base_is_incompatible(client, new, reason):
    decision = rebase.decide(client, *image_with_bases(client, {"srv/a": "a"}, new=new))

    assert not decision.is_safe
    assert reason in " ".join(decision.reasons)


def test_rebase_is_refused_when_image_is_not_built_on_old_base(client):
    app, _, new = image_with_bases(client, {"srv/a": "a"})

    assert not rebase.decide(client, app, new, new).is_safe


def test_settings_are_merged_three_ways(client):
    app, old, new = image_with_bases(
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


def test_rebase_is_refused_when_both_changed_one_setting(client):
    app, old, new = image_with_bases(
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
    ("more", "reason"),
    [
        ({"config": {"Env": [5]}}, "Env: not a list of strings."),
        ({"config": {"Env": 5}}, "Env: not a JSON array."),
        ({"config": {"Env": {"A": "1"}}}, "Env: not a JSON array."),
        ({"config": {"Labels": [1]}}, "Labels: not a JSON object."),
        ({"config": {"Labels": {"a": 1}}}, "Labels: not a string."),
        ({"config": {"Volumes": ["/srv"]}}, "Volumes: not a JSON object."),
        ({"config": ["Env"]}, "config: not a JSON object."),
        ({"rootfs": "x"}, "rootfs: not a JSON object."),
        ({"rootfs": {"diff_ids": {"0": "x"}}}, "diff_ids: not a JSON array."),
        ({"rootfs": {"diff_ids": [1, 2]}}, "diff_ids: not a list of strings."),
        ({"rootfs": {"diff_ids": []}}, "The manifest has 2 layers, but the configuration has 0 diff ids."),
        ({"history": [1, 2]}, "history: an entry is not a JSON object."),
        ({"history": {"0": {}}}, "history: not a JSON array."),
        ({"history": [{"empty_layer": "yes"}]}, "history: empty_layer is not true or false."),
        ({"os": ["linux"]}, "os: not a string."),
        ({"x": 2**70}, "The configuration has a string or a number that cannot be encoded."),
        ({"x": "\ud800"}, "The configuration has a string or a number that cannot be encoded."),
    ],
)
def test_malformed_configuration_is_refused_with_reason(client, more, reason):
    """Anyone can push such an image, so it must not stop the plan for the other images on the base."""
    with pytest.raises(MalformedManifest) as refused:
        put(client, "app", [OLD, {"srv/app": "app"}], **more)
    assert refused.value.message == reason


def test_configuration_that_is_a_list_is_refused_with_reason(client):
    loaded = put(client, "app", [OLD])
    client.upload_blob("app", Digest.of(b"[1]"), b"[1]")
    manifest = loaded.manifest | {"config": loaded.manifest["config"] | {"digest": Digest.of(b"[1]").text, "size": 3}}
    content = json.dumps(manifest).encode()
    digest = client.put_manifest("app", Digest.of(content).text, content, loaded.content.media_type)
    with pytest.raises(MalformedManifest, match="configuration: not a JSON object"):
        documents.load(client, "app", digest)


def test_optional_fields_that_are_absent_or_null_are_empty(client):
    loaded = put(client, "app", [OLD], history=False, os=None, config={"Env": None, "Labels": None, "Volumes": None})
    assert (loaded.platform, loaded.history) == (("", "arm64", "v8"), ())
    assert (loaded.settings.env, loaded.settings.maps["Labels"]) == ({}, {})


def test_rebase_is_refused_when_a_layer_cannot_be_read(client):
    app, old, new = image_with_bases(client, {"srv/a": "a"})

    def refuse(client, repository, descriptors):
        raise Malformed("A layer cannot be read: truncated.")

    decision = rebase.decide(client, app, old, new, read=refuse)

    assert decision == rebase.RebaseDecision(False, ("A layer cannot be read: truncated.",))


def test_documents_of_rebased_image_have_exact_bytes(client):
    """Equal inputs must give the same digest, also in later versions of this code. Unknown keys are kept."""
    both = {"Cmd": ["sh"], "Labels": {"base": "1"}}
    app, old, new = image_with_bases(
        client,
        {"srv/a": "a"},
        old_config=both | {"Env": ["PATH=/bin", "BARE"]},
        app_config=both | {"Env": ["PATH=/bin", "BARE", "APP=a=b"], "Cmd": ["run"], "X-Own": {"k": 1}},
        new_config=both | {"Env": ["PATH=/sbin", "BARE"], "Labels": {"base": "2"}, "ExposedPorts": {"80/tcp": {}}},
        author="ann",
        annotations={"team": "shop"},
        unknown={"b": [1, 2.5, None], "a": "\u00e9"},
    )

    result = rebase.merge(app, old, new, base_name="host/base/debian")

    base, own = new.diff_ids[0], app.diff_ids[1]
    assert result.config.decode() == (
        '{"architecture":"arm64","author":"ann","config":{"Cmd":["run"],"Env":["PATH=/sbin","BARE=","APP=a=b"],'
        '"ExposedPorts":{"80/tcp":{}},"Labels":{"base":"2"},"X-Own":{"k":1}},'
        '"history":[{"created_by":"step 0"},{"created_by":"step 1"}],"os":"linux",'
        f'"rootfs":{{"diff_ids":["{base}","{own}"],"type":"layers"}},'
        '"unknown":{"a":"\u00e9","b":[1,2.5,null]},"variant":"v8"}'
    )
    layer = '{{"digest":"{}","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":{}}}'
    first, second = (layer.format(item.digest.text, item.size_bytes) for item in (new.layers[0], app.layers[1]))
    assert result.manifest.decode() == (
        f'{{"annotations":{{"org.opencontainers.image.base.digest":"{new.content.digest.text}",'
        '"org.opencontainers.image.base.name":"host/base/debian","team":"shop"},'
        f'"config":{{"digest":"{Digest.of(result.config).text}",'
        f'"mediaType":"application/vnd.oci.image.config.v1+json","size":{len(result.config)}}},'
        f'"layers":[{first},{second}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}}'
    )


def test_file_that_claims_an_endless_size_is_refused_at_once():
    member = tarfile.TarInfo("srv/a")
    member.size = 2**60
    layer = member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(LimitExceeded):
        layers.read_layer(io.BytesIO(layer))


def test_malformed_passwd_lines_and_elf_headers_cause_no_error():
    tree = layers.FileTree()
    text = f"a:x:\u00b2:\nb:x:{'9' * 5000}:\nc:x:7:\n".encode()
    tree.entries["etc/passwd"] = layers.Entry("f", 0o644, 0, 0, len(text), "", False, text)
    assert layers.names_by_number(tree, "etc/passwd") == {7: "c"}
    header = DYNAMIC[:32] + (4093).to_bytes(8, "little") + DYNAMIC[40:54] + b"\x01\x00" + DYNAMIC[56:]
    assert layers.is_dynamic_elf(header + bytes(4096 - len(header)))
