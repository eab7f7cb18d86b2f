"""Put an image's own layers onto a newer base without a build, if the result provably equals that of a build.

The rules are in docs/explanation/rebuild.md. A case that cannot be proven is rejected with a reason. This module avoids
known defects of other tools: a lost variant, author, creation time or annotation, and a dropped first layer of an image
without history.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.types import Descriptor
from lifecycle.rebuild import layers
from lifecycle.rebuild.documents import MAPS, Loaded, Settings
from lifecycle.rebuild.layers import FileTree

BASE_NAME: Final = "org.opencontainers.image.base.name"
BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
# Rule 2: an old database on top would hide the new one, and scanners would report packages that no longer exist.
_PACKAGE_DATABASE: Final = re.compile(
    r"(?:var/lib/dpkg(?:/.*)?|var/lib/apt(?:/.*)?|(?:usr/)?lib/apk/db(?:/.*)?|var/lib/rpm(?:/.*)?"
    r"|usr/lib/sysimage/rpm(?:/.*)?)"
)
# Rule 3: empty files that builders leave at their mount points. Runtimes mount over them again.
_MOUNT_POINTS: Final = frozenset({"etc/hosts", "etc/resolv.conf", "etc/hostname"})
_PYTHON: Final = re.compile(r"(?:.*/)?(python\d+\.\d+)(?:/.*)?")
_REASONS_MAX: Final = 5

ReadFileTree = Callable[[RegistryClient, str, Iterable[Descriptor]], FileTree]


@dataclass(frozen=True, slots=True)
class RebaseDecision:
    """Whether the rebase is safe; if not, the reasons, one sentence each."""

    is_safe: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rebased:
    """The documents of a rebased image; nothing is pushed yet."""

    manifest: bytes
    media_type: str
    config: bytes

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)


class ConfigConflict(Malformed):
    """The image and its new base changed the same setting in different ways."""

    code = "config_conflict"


def decide(
    client: RegistryClient,
    app: Loaded,
    old: Loaded,
    new: Loaded | None,
    *,
    read: ReadFileTree = layers.file_tree_of_layers,
) -> RebaseDecision:
    """Return whether `app`, built on `old`, can be put onto `new`.

    Without `new` (not built yet), only the rules that apply to every new base are checked; "safe" then means "not
    excluded". An unreadable layer is a reason against the rebase. Raises the errors of `read` except Malformed:
    RegistryUnavailable, PlanLimit.
    """
    try:
        return _decide(client, app, old, new, read)
    except Malformed as error:
        return RebaseDecision(False, (error.message,))


def _decide(client: RegistryClient, app: Loaded, old: Loaded, new: Loaded | None, read: ReadFileTree) -> RebaseDecision:
    count = len(old.diff_ids)
    if not count or app.diff_ids[:count] != old.diff_ids:
        return RebaseDecision(False, ("Its first layers are not those of the recorded base.",))
    own = read(client, app.repository, app.layers[count:]) if len(app.layers) > count else FileTree()
    reasons = _own_reasons(own)
    if reasons or new is None:
        return RebaseDecision(not reasons, tuple(reasons[:_REASONS_MAX]))
    if old.platform != new.platform:
        return RebaseDecision(False, ("The new base is for another platform.",))
    merge(app, old, new, base_name="")  # raises ConfigConflict, and reads no layer
    old_tree = read(client, old.repository, old.layers)
    new_tree = read(client, new.repository, new.layers)
    return decide_trees(own, old_tree, new_tree)


def decide_trees(own: FileTree, old: FileTree, new: FileTree) -> RebaseDecision:
    """Apply rules 2 to 7 to the files of the image's own layers and of the two bases."""
    reasons = [*_own_reasons(own), *_rules_3_and_4(own, old, new), *_rule_5(old, new), *_rules_6_and_7(own, old, new)]
    return RebaseDecision(not reasons, tuple(dict.fromkeys(reasons))[:_REASONS_MAX])


def _own_reasons(own: FileTree) -> list[str]:
    """Return the reasons in the image's own layers that exclude a rebase onto any base."""
    reasons = _rule_2(own)
    reasons += [f"Its own layers remove /{hidden} of the base." for hidden in sorted(own.whiteouts | own.opaque)]
    programs = sorted(path for path, entry in own.entries.items() if entry.is_dynamic)
    if programs:
        reasons.append(
            f"It adds a dynamically linked program (/{programs[0]}). Only a build links it against the new base."
        )
    if any("node_modules" in path.split("/") for path in own.entries):
        reasons.append("It adds Node modules, which may be built for the Node version of the old base.")
    return reasons


def _rule_2(own: FileTree) -> list[str]:
    touched = sorted(
        path
        for path in {*own.whiteouts, *own.opaque, *(p for p, entry in own.entries.items() if entry.kind != "d")}
        if _PACKAGE_DATABASE.fullmatch(path)
    )
    return [f"Its own layers write the package database (/{touched[0]})."] if touched else []


def _rules_3_and_4(own: FileTree, old: FileTree, new: FileTree) -> list[str]:
    reasons = []
    folders: set[str] = set()
    for path, entry in sorted(own.entries.items()):
        before, after = old.entries.get(path), new.entries.get(path)
        if entry.kind == "d":
            if (before is None) != (after is None) or (before is not None and before != after):
                reasons.append(f"Its layers contain the folder /{path}, which differs between the bases.")
        elif (before is not None or after is not None) and not (path in _MOUNT_POINTS and entry.size_bytes == 0):
            reasons.append(f"It replaces a file of the base (/{path}).")
        parts = path.split("/")
        folders.update("/".join(parts[:length]) for length in range(1, len(parts)))
    for folder in sorted(folders):
        kinds = {tree.entries[folder].kind for tree in (old, new) if folder in tree.entries}
        if len(kinds) > 1 or (kinds and kinds != {"d"}):
            reasons.append(f"/{folder} is a link or file in a base, but its layers write below it.")
    return reasons


def _rule_5(old: FileTree, new: FileTree) -> list[str]:
    reasons = []
    if layers.release(old) != layers.release(new):
        reasons.append("The new base is another release of the distribution.")
    if missing := sorted(layers.packages(old) - layers.packages(new)):
        reasons.append(f"The new base no longer has the package {missing[0]}.")
    return reasons


def _rules_6_and_7(own: FileTree, old: FileTree, new: FileTree) -> list[str]:
    reasons = []
    minors = {match[1] for path in own.entries if (match := _PYTHON.fullmatch(path))}
    for minor in sorted(minors):
        programs = [f"{folder}/bin/{minor}" for folder in ("usr", "usr/local")]
        if not any(program in new.entries for program in programs):
            reasons.append(f"It adds files for {minor}, which the new base does not have.")
    for table, number in (("etc/passwd", "uid"), ("etc/group", "gid")):
        before, after = layers.names_by_number(old, table), layers.names_by_number(new, table)
        for owner in sorted({getattr(entry, number) for entry in own.entries.values()} - {0}):
            if before.get(owner) != after.get(owner):
                reasons.append(f"The {number} {owner}, which owns some of its files, has another name in the new base.")
    return reasons


def merge(app: Loaded, old: Loaded, new: Loaded, *, base_name: str) -> Rebased:
    """Return the documents of `app` on `new`. Equal inputs give equal bytes. Raises ConfigConflict."""
    count = len(old.diff_ids)
    config = copy.deepcopy(dict(app.config))
    config["config"] = _merged(app.settings, old.settings, new.settings)
    config["rootfs"] = {"type": "layers", "diff_ids": [*new.diff_ids, *app.diff_ids[count:]]}
    config["history"] = _history(app, old, new)
    for name in ("os.version", "os.features"):
        config.pop(name, None)
        if name in new.config:
            config[name] = new.config[name]
    config_bytes = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
    manifest = copy.deepcopy(dict(app.manifest))
    is_docker = "docker" in app.content.media_type
    base_layers = [_descriptor(layer, is_docker=is_docker) for layer in new.manifest.get("layers") or ()]
    manifest["layers"] = [*base_layers, *app.manifest["layers"][count:]]
    manifest["config"] |= {"digest": Digest.of(config_bytes).text, "size": len(config_bytes)}
    manifest["config"].pop("data", None)  # an embedded copy of the old configuration
    if not is_docker:  # Docker's manifests have no annotations
        manifest["annotations"] = {
            **(app.manifest.get("annotations") or {}),
            BASE_NAME: base_name or (app.manifest.get("annotations") or {}).get(BASE_NAME, ""),
            BASE_DIGEST: new.content.digest.text,
        }
    return Rebased(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS), app.content.media_type, config_bytes)


def push(client: RegistryClient, result: Rebased, app: Loaded, new: Loaded, *, tag: str) -> Digest:
    """Push a rebased image into the image's own repository under `tag`. Layers are mounted if the registry can."""
    document = orjson.loads(result.manifest)
    for layer in document["layers"]:
        blob = Digest.parse(layer["digest"])
        if client.blob_size(app.repository, blob) is not None:
            continue
        if not client.mount_blob(app.repository, blob, source_repository=new.repository):
            layers.copy_blob(client, new.repository, app.repository, blob, size_bytes=layer["size"])
    client.upload_blob(app.repository, Digest.of(result.config), result.config)
    client.put_manifest(app.repository, result.digest.text, result.manifest, result.media_type)
    return client.put_manifest(app.repository, tag, result.manifest, result.media_type)


def _merged(app: Settings, old: Settings, new: Settings) -> dict[str, Any]:
    """Merge the `config` objects three ways, key by key; raises ConfigConflict."""
    result: dict[str, Any] = {}
    for key in sorted({*app.document, *old.document, *new.document}):
        if key == "Env":
            pairs = _three_way(app.env, old.env, new.env, what="variable")
            result[key] = [f"{name}={value}" for name, value in pairs.items()]
        elif key in MAPS:
            result[key] = _three_way(app.maps[key], old.maps[key], new.maps[key], what=key)
        else:
            documents = (app.document, old.document, new.document)
            parts = ({key: document[key]} if key in document else {} for document in documents)
            result |= _three_way(*parts, what="setting")
        if key in result and result[key] in ([], {}) and not app.document.get(key):
            del result[key]
    return result


def _three_way(app: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key in dict.fromkeys((*new, *app, *old)):
        mine, before, after = app.get(key), old.get(key), new.get(key)
        if mine == before:
            value = after
        elif after in (before, mine):
            value = mine
        else:
            raise ConfigConflict(f"The image and its new base both changed the {what} {key}.")
        if value is not None:
            result[key] = value
    return result


def _history(app: Loaded, old: Loaded, new: Loaded) -> list[Mapping[str, Any]]:
    """Return the new base's history, then the image's own; layers without an entry get a minimal one."""
    own_layers = len(app.diff_ids) - len(old.diff_ids)
    tail: list[Mapping[str, Any]] = []
    if old.history and app.history[: len(old.history)] == old.history:
        tail += app.history[len(old.history) :]
    else:
        left = len(old.diff_ids)
        for entry in app.history:
            if left <= 0:
                tail.append(entry)
            elif not entry.get("empty_layer"):
                left -= 1
    return [*_complete(new.history, len(new.diff_ids)), *_complete(tail, own_layers)]


def _complete(entries: Sequence[Mapping[str, Any]], layer_count: int) -> list[Mapping[str, Any]]:
    described = sum(not entry.get("empty_layer") for entry in entries)
    if described > layer_count:  # the history does not match the layers, and no history is better than a wrong one
        return [{"created_by": "unknown"} for _ in range(layer_count)]
    return [*entries, *({"created_by": "unknown"} for _ in range(layer_count - described))]


def _descriptor(layer: Mapping[str, Any], *, is_docker: bool) -> dict[str, Any]:
    """Return a base's layer descriptor with the media type for the image's format, Docker or OCI. The blob is equal."""
    media_type = layer["mediaType"]
    if is_docker and "oci.image.layer" in media_type and media_type.endswith("+gzip"):
        media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    elif not is_docker and "docker.image.rootfs.diff" in media_type:
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    return {**layer, "mediaType": media_type}
