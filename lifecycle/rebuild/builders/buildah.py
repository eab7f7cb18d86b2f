"""The embedded builder: buildah in a box of its own (box.py).

The builder never calls the registry. Our client fetches the bases into an OCI layout and pushes the result from one, so
a build cannot access any credentials. Layers of the base keep their original digests in the result, although buildah
would compress them again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from lifecycle.core.errors import Malformed
from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.rebuild.builders import box, mount_points, settings_files
from lifecycle.rebuild.builders.output import Check, Log, Output
from lifecycle.rebuild.containerfile import for_builder
from lifecycle.rebuild.types import BuildFailed, BuildRequest, BuildResult

_ARGUMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WRITES_BUNDLE: Final = re.compile(r"ca-certificates|\b(?:dist-|full-)?upgrade\b")
MIB: Final = 1024 * 1024
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"


def build(request: BuildRequest, client: RegistryClient, *, log: Log, check: Check) -> BuildResult:
    """Build the recipe on exactly the given bases, push it as `repository:tag`, and return its digest.

    `log` gets each line without control characters, mirror addresses and index addresses. `check` is called every two
    seconds and can raise an error to end the build. Raises BuildFailed when the recipe fails or takes too long.
    """
    started = time.monotonic()
    with scratch_folder("build") as work:
        layout = build_layout(request, client, work, log=log, check=check)
        digest = _push(client, layout, request)
    return BuildResult(digest=digest, seconds=round(time.monotonic() - started, 1))


def build_layout(request: BuildRequest, client: RegistryClient, work: Path, *, log: Log, check: Check) -> Path:
    """Build like `build`, but push nothing; return the result as an OCI layout below `work`, an empty folder.

    The layout contains one manifest, with the reference name `new`, and all its blobs.
    """
    for name, value in request.build_args.items():
        if not _ARGUMENT.fullmatch(name) or any(ord(c) < 32 for c in value):
            raise Malformed("A build argument needs a valid name and a value on one line.", argument=name[:60])
    is_confined = box.is_confined()
    inputs = work / "in"
    inputs.mkdir()
    volumes = settings_files.write(inputs / "settings", with_proxy=not is_confined)
    variables = settings_files.variables(inputs / "settings")
    local = {}
    for number, (written, pinned_reference) in enumerate(request.bases.items()):
        repository, _, digest = pinned_reference.partition("@")
        layout = inputs / f"base{number}"
        fetch_layout(client, repository, Digest.parse(digest), layout)
        _add_variables(layout, variables)
        local[written] = f"localhost/base{number}:pinned"
    if "ca.pem" in os.listdir(inputs / "settings") and not _WRITES_BUNDLE.search(request.containerfile):
        # A package manager cannot replace a file that has a mount over it, so a recipe that installs or upgrades
        # `ca-certificates` would fail. pip and apt always find our bundle through their own settings.
        (inputs / "bundle-path").write_text(settings_files.SYSTEM_BUNDLE)
    seen_as = "/in" if is_confined else "/mnt/in"  # the folder of the inputs, for the builder
    recipe = for_builder(request.containerfile, local, request.build_args, f"{seen_as}/heredocs")
    (inputs / "Containerfile").write_bytes(recipe.text.encode())
    for name, content in recipe.files.items():
        path = inputs / "heredocs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if request.context is None:
        (inputs / "context").mkdir()
    else:
        shutil.copytree(request.context, inputs / "context", symlinks=True)
    words = [
        "--pull=never",
        "--format=oci",
        "--layers=false",
        "--disable-compression",  # every new layer would be unpacked again in buildah's storage
        *recipe.options,
    ]
    words += [f"--volume={volume}" for volume in volumes]
    words += [f"--build-arg={name}={value}" for name, value in sorted(request.build_args.items())]
    known = _base_layers(inputs)
    output = Output(secrets=settings_files.secrets_of(inputs / "settings"), log=log, check=check)
    made = box.build(work, words, known=known, output=output)
    mounted = [volume.split(":")[1].lstrip("/") for volume in volumes]
    if (made / "mounted-bundle").exists():
        mounted.append(settings_files.SYSTEM_BUNDLE.lstrip("/"))
    try:
        return _finish(made / "result", inputs, request, mounted=mounted, added=variables)
    except (
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        orjson.JSONDecodeError,
        tarfile.TarError,
        Malformed,
    ) as bad:
        raise BuildFailed("The result of the build is not an image.") from bad


def fetch_layout(client: RegistryClient, repository: str, digest: Digest, folder: Path) -> None:
    """Write the platform image `digest` as an OCI image layout with the reference name `pinned`."""
    manifest = client.get_manifest(repository, digest.text)
    document = orjson.loads(manifest.content)
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / Digest.of(manifest.content).encoded).write_bytes(manifest.content)
    for descriptor in (document["config"], *document["layers"]):
        blob = Digest.parse(descriptor["digest"])
        path = blobs / blob.encoded
        if not path.exists():
            with path.open("wb") as stream:
                client.fetch_blob(repository, blob, stream, size_bytes=descriptor["size"])
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    _write_index(folder, digest, len(manifest.content), manifest.media_type, name="pinned")


def _add_variables(layout: Path, variables: Mapping[str, str]) -> None:
    """Add variables for the programs of a build to a base, only in its local layout (docs/adr/0008).

    A RUN gets exactly the variables of its image, and variables from its base do not appear in the history. Variables
    that the base sets itself are kept. The layers do not change, so the diff ids do not change either.
    """
    index = orjson.loads((layout / "index.json").read_bytes())
    written = _blob(layout, index["manifests"][0]["digest"])
    document = orjson.loads(written.read_bytes())
    config = orjson.loads(_blob(layout, document["config"]["digest"]).read_bytes())
    settings_of_image = config.get("config") or {}
    env = list(settings_of_image.get("Env") or [])
    names = {line.partition("=")[0] for line in env}
    env += [f"{name}={value}" for name, value in variables.items() if name not in names]
    config["config"] = {**settings_of_image, "Env": env}
    config_bytes = orjson.dumps(config)
    document["config"] |= {"digest": Digest.of(config_bytes).text, "size": len(config_bytes)}
    document["config"].pop("data", None)  # an embedded copy of the old configuration
    _blob(layout, document["config"]["digest"]).write_bytes(config_bytes)
    content = orjson.dumps(document)
    digest = Digest.of(content)
    _blob(layout, digest.text).write_bytes(content)
    _write_index(layout, digest, len(content), index["manifests"][0]["mediaType"], name="pinned")


def _remove_variables(config: dict[str, Any], added: Mapping[str, str]) -> None:
    """Remove the variables that `_add_variables` added to the base from a built image's configuration."""
    ours = {f"{name}={value}" for name, value in added.items()}
    if env := (config.get("config") or {}).get("Env"):
        config["config"]["Env"] = [line for line in env if line not in ours]


def _write_index(layout: Path, digest: Digest, size_bytes: int, media_type: str, *, name: str) -> None:
    """Write the index with the layout's only manifest."""
    entry = {
        "mediaType": media_type,
        "digest": digest.text,
        "size": size_bytes,
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    (layout / "index.json").write_bytes(orjson.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _finish(
    layout: Path, inputs: Path, request: BuildRequest, *, mounted: Sequence[str], added: Mapping[str, str]
) -> Path:
    """Write the final documents of the result layout, and return its folder.

    The layers of the base get their original digests back. The empty mount points (`mounted`, and buildah's own) are
    removed from new layers, and the variables in `added` from the configuration. The annotations are added. Buildah
    wrote every layer uncompressed; new layers are compressed here.
    """
    index = orjson.loads((layout / "index.json").read_bytes())
    written = _blob(layout, index["manifests"][0]["digest"])
    document = orjson.loads(written.read_bytes())
    document = {"schemaVersion": 2, "config": document["config"], "layers": document["layers"]}
    config_path = _blob(layout, document["config"]["digest"])
    config = orjson.loads(config_path.read_bytes())
    _remove_variables(config, added)
    diff_ids = config["rootfs"]["diff_ids"]
    known = _base_layers(inputs)
    for position, diff_id in enumerate(list(diff_ids)):
        original = known.get(diff_id)
        if original is None:
            old = _checked_layer(layout, document["layers"][position], diff_id)
            cleaned = mount_points.remove(old, {*mounted, *mount_points.OF_BUILDAH})
            if cleaned is not None:
                diff_ids[position], size_bytes = _store_layer(layout, cleaned)
                document["layers"][position] |= {
                    "mediaType": LAYER_TYPE, "digest": diff_ids[position], "size": size_bytes
                }  # fmt: skip
            document["layers"][position] = _compressed(layout, document["layers"][position])
        else:
            document["layers"][position] = original
            target = _blob(layout, original["digest"])
            if not target.exists():  # an image can contain the same layer twice
                next(inputs.glob(f"base*/blobs/sha256/{target.name}")).replace(target)
    config_path.unlink()
    config_bytes = orjson.dumps(config)
    document["config"] |= {"digest": Digest.of(config_bytes).text, "size": len(config_bytes)}
    _blob(layout, document["config"]["digest"]).write_bytes(config_bytes)
    document["mediaType"] = MANIFEST_TYPE
    document["annotations"] = dict(request.annotations)
    content = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    digest = Digest.of(content)
    written.unlink()
    _blob(layout, digest.text).write_bytes(content)
    _write_index(layout, digest, len(content), MANIFEST_TYPE, name="new")
    return layout


def _checked_layer(layout: Path, descriptor: Mapping[str, Any], diff_id: str) -> Path:
    """Return the file of a new layer. It is a plain tar, so its digest is its diff id, and both must be right."""
    path = _blob(layout, descriptor["digest"])
    with path.open("rb") as stream:
        # gzip or zstd: it would be unpacked here, to any size
        is_packed = stream.read(4).startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))
        stream.seek(0)
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    if is_packed or not digest == descriptor["digest"] == diff_id or descriptor["mediaType"] != LAYER_TYPE:
        raise BuildFailed("The result of the build names other content than it has.", layer=str(diff_id)[:80])
    return path


def _store_layer(layout: Path, path: Path) -> tuple[str, int]:
    """Move a plain tar to the path of its digest; return its digest, which is also its diff id, and its size."""
    with path.open("rb") as stream:
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    size_bytes = path.stat().st_size
    path.replace(_blob(layout, digest))
    return digest, size_bytes


def _compressed(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    """Add the gzip of a layer to the layout; return its descriptor. Equal layers give equal bytes."""
    if descriptor["mediaType"] != LAYER_TYPE:
        return descriptor
    source, draft = _blob(layout, descriptor["digest"]), layout / "compressed"
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)  # gzip, without a time or a name
    name, size_bytes = hashlib.sha256(), 0
    with source.open("rb") as plain, draft.open("wb") as packed:
        while piece := plain.read(MIB):
            part = packer.compress(piece)
            name.update(part)
            size_bytes += packed.write(part)
        part = packer.flush()
        name.update(part)
        size_bytes += packed.write(part)
    digest = f"sha256:{name.hexdigest()}"
    draft.replace(_blob(layout, digest))
    return {"mediaType": f"{LAYER_TYPE}+gzip", "digest": digest, "size": size_bytes}


def _push(client: RegistryClient, layout: Path, request: BuildRequest) -> str:
    """Upload a finished layout, and return the manifest's digest. Layers of the bases are mounted, if possible."""
    content = _blob(layout, orjson.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]).read_bytes()
    document = orjson.loads(content)
    sources = [reference.partition("@")[0] for reference in request.bases.values()]
    for descriptor in (*document["layers"], document["config"]):
        blob = Digest.parse(descriptor["digest"])
        if client.blob_size(request.repository, blob) is None and not any(
            client.mount_blob(request.repository, blob, source_repository=source) for source in sources
        ):
            client.upload_blob(request.repository, blob, _blob(layout, blob.text))
    digest = client.put_manifest(request.repository, Digest.of(content).text, content, MANIFEST_TYPE)
    client.put_manifest(request.repository, request.tag, content, MANIFEST_TYPE)
    return digest.text


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / Digest.parse(digest).encoded


def _base_layers(inputs: Path) -> dict[str, dict[str, Any]]:
    """Return {diff id: layer descriptor in the base's own manifest} of all bases."""
    layers: dict[str, dict[str, Any]] = {}
    for layout in sorted(inputs.glob("base[0-9]*")):
        index = orjson.loads((layout / "index.json").read_bytes())
        document = orjson.loads(_blob(layout, index["manifests"][0]["digest"]).read_bytes())
        config = orjson.loads(_blob(layout, document["config"]["digest"]).read_bytes())
        layers |= dict(zip(config["rootfs"]["diff_ids"], document["layers"], strict=True))
    return layers
