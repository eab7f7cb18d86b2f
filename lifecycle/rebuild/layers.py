"""The file tree of an image's layers: used to decide whether its own layers fit onto another base."""

from __future__ import annotations

import re
import struct
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from django.conf import settings

from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.core.scratch import naming_full_disk
from lifecycle.core.types import Digest
from lifecycle.oci import layer_files
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.layer_files import Budget
from lifecycle.oci.types import Descriptor

# image-spec layer.md, "Whiteouts".
WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
MEMBERS_MAX: Final = 1_000_000
KEPT_MAX: Final = 32 * 1024 * 1024  # bytes of one file whose content is kept, such as a package database
# Files whose content is needed for a decision.
KEPT: Final = frozenset({"var/lib/dpkg/status", "lib/apk/db/installed", "usr/lib/apk/db/installed", "etc/os-release",
                         "usr/lib/os-release", "etc/passwd", "etc/group"})  # fmt: skip
_ELF_DYNAMIC: Final = 2  # PT_DYNAMIC


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a layer: `kind` is f(ile), d(irectory), l(ink) or o(ther)."""

    kind: str
    mode: int
    uid: int
    gid: int
    size_bytes: int = 0
    target: str = ""
    is_dynamic: bool = False  # a program that needs the dynamic loader and its libraries
    content: bytes | None = None  # of KEPT paths only


@dataclass(slots=True)
class FileTree:
    """Paths without a leading slash. `whiteouts` and `opaque` apply to layers below this tree."""

    entries: dict[str, Entry] = field(default_factory=dict)
    whiteouts: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)

    def add(self, upper: FileTree) -> None:
        """Apply the tree of the next layer."""
        for hidden in upper.opaque:
            self._remove_below(hidden)
        for hidden in upper.whiteouts:
            self.entries.pop(hidden, None)
            self._remove_below(hidden)
        for path, entry in upper.entries.items():
            below = self.entries.get(path)
            if below is not None and below.kind == "d" and entry.kind != "d":
                self._remove_below(path)
            self.entries[path] = entry
        self.whiteouts |= upper.whiteouts
        self.opaque |= upper.opaque

    def _remove_below(self, folder: str) -> None:
        prefix = f"{folder}/"
        for path in [path for path in self.entries if path.startswith(prefix)]:
            del self.entries[path]

    def text(self, *paths: str) -> str:
        """Return the content of the first of these files that exists, without following links; "" for none."""
        for path in paths:
            entry = self.entries.get(path)
            if entry is not None and entry.content is not None:
                return entry.content.decode(errors="replace")
        return ""


def file_tree_of_layers(client: RegistryClient, repository: str, layers: Iterable[Descriptor]) -> FileTree:
    """Return the merged tree of these layers, lowest first; raises Malformed, LimitExceeded as `read_layer` does."""
    whole = FileTree()
    for layer in layers:
        with naming_full_disk(), tempfile.TemporaryFile(dir=settings.SCRATCH or None) as stream:
            client.fetch_blob(repository, layer.digest, stream, size_bytes=layer.size_bytes)
            stream.seek(0)
            whole.add(read_layer(stream))
    return whole


def copy_blob(client: RegistryClient, source: str, target: str, blob: Digest, *, size_bytes: int) -> None:
    """Copy a blob from one repository to another through this machine, for a registry that cannot mount it."""
    with naming_full_disk(), tempfile.NamedTemporaryFile(dir=settings.SCRATCH or None) as stream:
        client.fetch_blob(source, blob, cast(BinaryIO, stream), size_bytes=size_bytes)
        stream.flush()
        client.upload_blob(target, blob, Path(stream.name))


def read_layer(stream: IO[bytes]) -> FileTree:
    """Return one layer's paths; raises LimitExceeded, or Malformed unless it is a plain, gzip or zstd tar."""
    tree = FileTree()
    try:
        for archive, member in layer_files.members(stream, Budget(members=MEMBERS_MAX)):
            _add_member(tree, archive, member)
    except layer_files.UNREADABLE as error:
        raise Malformed(f"A layer cannot be read: {error}") from error
    return tree


def _add_member(tree: FileTree, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = "/".join(part for part in member.name.split("/") if part not in ("", "."))
    folder, _, name = path.rpartition("/")
    if name == OPAQUE:
        tree.opaque.add(folder)
    elif name.startswith(WHITEOUT):
        tree.whiteouts.add(f"{folder}/{name[len(WHITEOUT) :]}".lstrip("/"))
    elif path:
        tree.entries[path] = _entry(archive, member, path)


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Entry:
    kind = "d" if member.isdir() else "f" if member.isreg() else "l" if member.issym() or member.islnk() else "o"
    content, is_dynamic = None, False
    if member.isreg() and member.size and (file := archive.extractfile(member)) is not None:
        if path in KEPT:
            if member.size > KEPT_MAX:
                raise LimitExceeded(f"/{path} is larger than {KEPT_MAX} bytes.")
            content = file.read()
        elif member.size > len(_ELF_MAGIC):
            is_dynamic = is_dynamic_elf(file.read(4096))
    target = member.linkname if kind == "l" else ""
    return Entry(kind, member.mode, member.uid, member.gid, member.size, target, is_dynamic, content)


_ELF_MAGIC: Final = b"\x7fELF"


def is_dynamic_elf(start: bytes) -> bool:
    """Return whether a file that starts like this is an ELF object with a dynamic section (elf(5)); True in doubt."""
    if not start.startswith(_ELF_MAGIC) or len(start) < 64:
        return start.startswith(_ELF_MAGIC)
    order = "<" if start[5] == 1 else ">"
    if start[4] == 2:  # 64 bit
        offset, size, count = *struct.unpack_from(f"{order}Q", start, 32), *struct.unpack_from(f"{order}HH", start, 54)
    else:
        offset, size, count = *struct.unpack_from(f"{order}I", start, 28), *struct.unpack_from(f"{order}HH", start, 42)
    if offset + size * count > len(start) or (count and size < 4):
        return True
    kinds = (struct.unpack_from(f"{order}I", start, offset + position * size)[0] for position in range(count))
    return any(kind == _ELF_DYNAMIC for kind in kinds)


def packages(tree: FileTree) -> set[str]:
    """Return the names of the Debian or Alpine packages that the tree's own databases list as installed."""
    names: set[str] = set()
    for block in tree.text("var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Package") and fields.get("Status", "").endswith(" installed"):
            names.add(fields["Package"])
    for line in tree.text("lib/apk/db/installed", "usr/lib/apk/db/installed").splitlines():
        if line.startswith("P:"):
            names.add(line[2:])
    return names


def release(tree: FileTree) -> tuple[str, str]:
    """Return (ID, VERSION_ID) of os-release(5); empty strings without the file."""
    lines = tree.text("etc/os-release", "usr/lib/os-release").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("ID", "").strip("\"'"), values.get("VERSION_ID", "").strip("\"'")


_ID: Final = re.compile(r"[0-9]{1,10}")


def names_by_number(tree: FileTree, path: str) -> dict[int, str]:
    """Return {uid or gid: name} of passwd(5) or group(5)."""
    rows: Sequence[list[str]] = [line.split(":") for line in tree.text(path).splitlines()]
    return {int(row[2]): row[0] for row in rows if len(row) > 2 and _ID.fullmatch(row[2])}
