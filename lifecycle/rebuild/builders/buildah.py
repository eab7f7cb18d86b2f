"""The embedded builder: buildah with chroot isolation, for trusted recipes only.

The builder never calls the registry. Our client fetches the bases into an OCI layout and pushes the result from one, so
a build cannot access any credentials. Builds use the network of the machine, for package indexes. Layers of the base
keep their original digests in the result, although buildah would compress them again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from django.conf import settings

from lifecycle.core.errors import Malformed
from lifecycle.core.scratch import folder as scratch_folder
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.rebuild.builders import mount_points, namespaces, settings_files
from lifecycle.rebuild.containerfile import for_builder
from lifecycle.rebuild.types import BuildFailed, BuildRequest, BuildResult

Log = Callable[[str], None]
Check = Callable[[], None]

_ARGUMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ANSI: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
SANDBOX: Final = Path(__file__).with_name("sandbox.sh")
CHECK_EVERY_S: Final = 2.0
LOG_LINES_MAX: Final = 20_000  # of one build
LOG_LINE_MAX: Final = 64 * 1024  # bytes without a line end
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
    sandbox = _Sandbox(work, log=log, check=check)
    local = {}
    for number, (written, pinned_reference) in enumerate(request.bases.items()):
        repository, _, digest = pinned_reference.partition("@")
        layout = work / f"base{number}"
        fetch_layout(client, repository, Digest.parse(digest), layout)
        _add_variables(layout, sandbox.variables)
        local[written] = f"localhost/base{number}:pinned"
        sandbox.run(["pull", "-q", f"oci:/mnt/base{number}:pinned"], tag=local[written])
    volumes = [*sandbox.volumes, *sandbox.bundle_volume(request.containerfile)]
    recipe = for_builder(request.containerfile, local, request.build_args, "/mnt/heredocs")
    (work / "Containerfile").write_bytes(recipe.text.encode())
    for name, content in recipe.files.items():
        path = work / "heredocs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    context = work / "context"
    if request.context is None:
        context.mkdir()
    else:
        shutil.copytree(request.context, context, symlinks=True)
    words = [
        "build",
        "--pull=never",
        "--network=host",
        "--format=oci",
        "--layers=false",
        "-t",
        "oci:/mnt/result:new",  # directly, because every new layer would be unpacked again in buildah's storage
        "--disable-compression",
        *recipe.options,
    ]
    for volume in volumes:
        words += ["--volume", volume]
    for name, value in sorted(request.build_args.items()):
        words += ["--build-arg", f"{name}={value}"]
    sandbox.run([*words, "-f", "/mnt/Containerfile", "/mnt/context"])
    mounted = [volume.split(":")[1].lstrip("/") for volume in volumes]
    return _finish(work, request, mounted=mounted, added=sandbox.variables)


class _Sandbox:
    """The namespaces, storage and settings of one build."""

    def __init__(self, work: Path, *, log: Log, check: Check) -> None:
        self._work, self._log, self._check = work, log, check
        settings_folder = work / "settings"
        self.volumes = settings_files.write(settings_folder)
        self.variables = settings_files.variables(settings_folder)
        self._secrets = settings_files.secrets_of(settings_folder)
        self._deadline = time.monotonic() + settings.BUILD_TIMEOUT_S
        self._lines_left = LOG_LINES_MAX
        (work / "root").mkdir()
        (work / "run").mkdir()
        self._driver = "vfs"
        self._driver = "overlay" if self._try_overlay() else "vfs"

    def bundle_volume(self, recipe: str) -> list[str]:
        """Return the volume that mounts our bundle over the system's bundle, if a base has one and no RUN changes it.

        A package manager cannot replace a file that has a mount over it, so a recipe that installs or upgrades
        `ca-certificates` would fail. pip and apt always find our bundle through their own settings.
        """
        name = settings_files.SYSTEM_BUNDLE.lstrip("/")
        storage = self._work / "root"
        has_bundle = any(storage.glob(f"overlay/*/diff/{name}")) or any(storage.glob(f"vfs/dir/*/{name}"))
        if not has_bundle or _WRITES_BUNDLE.search(recipe) or not (self._work / "settings" / "ca.pem").exists():
            return []
        return [f"{settings_files.FOLDER}/ca.pem:{settings_files.SYSTEM_BUNDLE}:ro"]

    def _try_overlay(self) -> bool:
        """Return whether the kernel can mount an overlay here. The fallback, vfs, copies every layer."""
        for name in ("lower", "upper", "index", "merged"):
            (self._work / "probe" / name).mkdir(parents=True)
        options = "lowerdir=probe/lower,upperdir=probe/upper,workdir=probe/index"
        command = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, "probe/merged"]
        return subprocess.run(command, cwd=self._work, capture_output=True, check=False).returncode == 0

    def _command(self, words: Sequence[str]) -> list[str]:
        hidden = [str(settings.HOME), "/run/secrets", "/root/.config", "/root/.docker", "/root/.ssh"]
        storage = ["--root", "/mnt/root", "--runroot", "/mnt/run", "--storage-driver", self._driver]
        sandbox = ["sh", str(SANDBOX), str(self._work), str(self._work / "settings"), *hidden, "--"]
        return [*namespaces.OWN, *sandbox, "buildah", *storage, *words]

    def run(self, words: Sequence[str], *, tag: str = "") -> None:
        """Run one buildah command and wait for its end; raises BuildFailed, and the errors of `check`."""
        environment = settings_files.environment() | {
            "BUILDAH_ISOLATION": "chroot",
            "HOME": "/mnt",
            "TMPDIR": "/mnt",
            "XDG_RUNTIME_DIR": "/mnt/run",
        }
        process = subprocess.Popen(
            self._command(words),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        last = ""
        try:
            for line in self._lines(process):
                last = line or last
                if not tag:
                    self._write_log(line)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if process.returncode != 0:
            raise BuildFailed(f"buildah {words[0]} failed: {last[:500]}", exit_code=process.returncode)
        if tag:
            self.run(["tag", last.strip(), tag])

    def _write_log(self, line: str) -> None:
        """Log a line, up to the maximum for one build."""
        self._lines_left -= 1
        if self._lines_left > 0:
            self._log(line)
        elif self._lines_left == 0:
            self._log(f"The log has more than {LOG_LINES_MAX} lines. The rest is not stored.")

    def _lines(self, process: subprocess.Popen[bytes]) -> Any:
        """Yield cleaned lines as they arrive, and call `check` regularly; raises BuildFailed after the time limit."""
        if process.stdout is None:
            return
        os.set_blocking(process.stdout.fileno(), False)
        rest = b""
        next_check = time.monotonic() + CHECK_EVERY_S
        while True:
            has_ended = process.poll() is not None  # before the read, so that the last output is in the pipe
            chunk = process.stdout.read()
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield self._clean(line)
                if len(rest) > LOG_LINE_MAX:
                    yield self._clean(rest)
                    rest = b""
            elif has_ended:
                break
            else:
                time.sleep(0.1)
            if time.monotonic() > self._deadline:
                raise BuildFailed(
                    f"The build took longer than {settings.BUILD_TIMEOUT_S} s, the limit of BUILD_TIMEOUT_S."
                )
            if time.monotonic() > next_check:
                self._check()
                next_check = time.monotonic() + CHECK_EVERY_S
        if rest:
            yield self._clean(rest)

    def _clean(self, line: bytes) -> str:
        text = _ANSI.sub("", line.decode(errors="replace"))
        for secret in self._secrets:
            text = text.replace(secret, "<mirror>")
        return "".join(c for c in text if c.isprintable() or c == "\t").rstrip()


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


def _finish(work: Path, request: BuildRequest, *, mounted: Sequence[str], added: Mapping[str, str]) -> Path:
    """Write the final documents of the result layout, and return its folder.

    The layers of the base get their original digests back. The empty mount points (`mounted`, and buildah's own) are
    removed from new layers, and the variables in `added` from the configuration. The annotations are added. Buildah
    wrote every layer uncompressed; new layers are compressed here.
    """
    layout = work / "result"
    index = orjson.loads((layout / "index.json").read_bytes())
    written = _blob(layout, index["manifests"][0]["digest"])
    document = orjson.loads(written.read_bytes())
    config_path = _blob(layout, document["config"]["digest"])
    config = orjson.loads(config_path.read_bytes())
    _remove_variables(config, added)
    diff_ids = config["rootfs"]["diff_ids"]
    known = _base_layers(work)
    for position, diff_id in enumerate(list(diff_ids)):
        original = known.get(diff_id)
        if original is None:
            old = _blob(layout, document["layers"][position]["digest"])
            cleaned = mount_points.remove(old, {*mounted, *mount_points.OF_BUILDAH})
            if cleaned is not None:
                diff_ids[position], size_bytes = _store_layer(layout, cleaned)
                document["layers"][position] |= {
                    "mediaType": LAYER_TYPE, "digest": diff_ids[position], "size": size_bytes
                }  # fmt: skip
            document["layers"][position] = _compressed(layout, document["layers"][position])
        elif original["digest"] != document["layers"][position]["digest"]:
            document["layers"][position] = original
            target = _blob(layout, original["digest"])
            if not target.exists():  # an image can contain the same layer twice
                next(work.glob(f"base*/blobs/sha256/{target.name}")).replace(target)
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


def _base_layers(work: Path) -> dict[str, dict[str, Any]]:
    """Return {diff id: layer descriptor in the base's own manifest} of all bases."""
    layers: dict[str, dict[str, Any]] = {}
    for layout in sorted(work.glob("base[0-9]*")):
        index = orjson.loads((layout / "index.json").read_bytes())
        document = orjson.loads(_blob(layout, index["manifests"][0]["digest"]).read_bytes())
        config = orjson.loads(_blob(layout, document["config"]["digest"]).read_bytes())
        layers |= dict(zip(config["rootfs"]["diff_ids"], document["layers"], strict=True))
    return layers
