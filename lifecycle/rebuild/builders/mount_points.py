"""Remove the mount points of a builder from a built layer: empty files, and the folders created for them.

Otherwise they would be part of every image, and a rebase decision would count them as its own files.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Final

from lifecycle.core.errors import LimitExceeded
from lifecycle.oci import layer_files

# Files that buildah creates while a RUN runs. Runtimes mount over them again.
OF_BUILDAH: Final = frozenset({"etc/hosts", "etc/resolv.conf", "etc/hostname", "run/.containerenv"})
# There are many forms of an empty tar; lineage ignores this one when it compares images (lineage/chains.py).
EMPTY: Final = bytes(1024)
_BLOCK: Final = 1024 * 1024
MEMBERS_MAX: Final = 1_000_000  # files of one layer that a build made


def remove(layer: Path, mounted: Collection[str]) -> Path | None:
    """Write the layer without the empty mount points as a plain tar beside it, and return its path, or None.

    Returns None if the layer has no such mount points. All other bytes and their order are unchanged, because members
    are cut out and never rewritten. `mounted` are paths without a leading slash. A parent folder with nothing else
    below it in this layer is removed too, because only the mount created or changed it.
    """
    with tempfile.TemporaryFile(dir=layer.parent) as plain:
        with layer.open("rb") as stream:
            shutil.copyfileobj(layer_files.unpacked(stream), plain, _BLOCK)
        plain.seek(0)
        members = list(_members(plain))
        dropped = _dropped(members, mounted)
        if not dropped:
            return None
        path = layer.with_name(layer.name + ".cleaned")
        if len(dropped) == len({name for name, _, _ in members}):
            path.write_bytes(EMPTY)
            return path
        with path.open("wb") as target:
            position = 0
            for number, (name, start, _) in enumerate(members):
                if name in dropped:
                    _copy(plain, target, position, start)
                    position = members[number + 1][1] if number + 1 < len(members) else _end(plain)
            _copy(plain, target, position, None)
        return path


def _members(stream: IO[bytes]) -> Iterator[tuple[str, int, bool]]:
    """Yield (name, offset of its first header, whether it is a folder or an empty file) of each member."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for number, member in enumerate(archive):
            if number >= MEMBERS_MAX:
                raise LimitExceeded(f"The layer has more than {MEMBERS_MAX} files.")
            name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
            yield name, member.offset, member.isdir() or (member.isreg() and not member.size)


def _dropped(members: list[tuple[str, int, bool]], mounted: Collection[str]) -> set[str]:
    names = {name for name, _, _ in members}
    is_bare = {name: bare for name, _, bare in members}
    above = {"/".join(path.split("/")[:length]) for path in mounted for length in range(1, path.count("/") + 1)}
    dropped: set[str] = set()
    for name in sorted(names & ({*mounted} | above), key=lambda name: -name.count("/")):
        below = {other for other in names - dropped if other.startswith(f"{name}/")}
        is_above = name in above and any(gone.startswith(f"{name}/") for gone in dropped)
        if is_bare[name] and not below and (name in mounted or is_above):
            dropped.add(name)
    return dropped


def _end(stream: IO[bytes]) -> int:
    """Return the offset of the end of the last member, where the closing zero blocks begin."""
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        archive.getmembers()
        return archive.offset


def _copy(source: IO[bytes], target: IO[bytes], start: int, end: int | None) -> None:
    source.seek(start)
    left = None if end is None else end - start
    while left is None or left > 0:
        chunk = source.read(_BLOCK if left is None else min(_BLOCK, left))
        if not chunk:
            return
        target.write(chunk)
        if left is not None:
            left -= len(chunk)
